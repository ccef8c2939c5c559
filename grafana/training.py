"""The dashboard *Training*: what is trained, how it was judged, how long it takes, what waits, and what is left."""

from grafana_foundation_sdk.builders.dashboard import Dashboard, Row

from grafana.parts import ODD, Ask, Steps, board, cells, lines, number, rows

__all__ = ["training"]

M = 'model=~"$model"'
ENDED = "succeeded|rejected|failed|timed_out|cancelled|expired|superseded|skipped|blocked_data|rolled_back"
WORK = "preparing|validating|training|packaging|evaluating|promoting"


def training() -> Dashboard:
    """Return the dashboard."""
    words = "Runs: what is under way, how it was judged, how long it takes, what waits, what the budget leaves."
    made = board("Retrue / Training", uid="retrue-training", words=words, many=True)
    return _clockwork(_gate(_runs(_now(made))))


def _now(made: Dashboard) -> Dashboard:
    made = made.with_row(Row("Now"))
    for title, expr, words, unit in (
        ("Under way", f"sum(max by (model) (retrue_run_active{{{M}}}))", "Runs that are worked on or queued.", "short"),
        (
            "Queue",
            f'sum(max by (model) (retrue_runs{{{M}, state="queued"}}))',
            "Runs that wait for a trainer.",
            "short",
        ),
        (
            "Wait for labels",
            f'sum(max by (model) (retrue_runs{{{M}, state="awaiting_labels"}}))',
            "Runs whose gate could not tell yet.",
            "short",
        ),
        (
            "Wait for a person",
            f'sum(max by (model) (retrue_runs{{{M}, state="awaiting_approval"}}))',
            "Challengers that passed the gate and want to be approved.",
            "short",
        ),
        (
            "Broke in a row",
            f"max(max by (model) (retrue_run_broken_in_a_row{{{M}}}))",
            "Newest runs that came to no verdict: after three, runs are only suggested.",
            "short",
        ),
        (
            "Longest wait",
            f"max(time() - min by (model, state) (retrue_run_waiting_since_timestamp_seconds{{{M}}})) or vector(0)",
            "Of all runs that wait for something.",
            "s",
        ),
    ):
        steps: Steps = ((None, "green"), (86400, "yellow"), (604800, "red")) if unit == "s" else ODD
        made = made.with_panel(number(title, Ask(expr, title), words=words, unit=unit, steps=steps))
    return made


def _runs(made: Dashboard) -> Dashboard:
    made = made.with_row(Row("Runs"))
    made = made.with_panel(
        lines(
            "Runs that ended",
            Ask(f'sum by (state) (max by (model, state) (retrue_runs{{{M}, state=~"{ENDED}"}})) > 0', "{{state}}"),
            words="All that ever ended, by how.",
            unit="short",
        )
    )
    made = made.with_panel(
        lines(
            "Budget",
            Ask(f"max by (model) (retrue_run_budget_spent{{{M}}})", "spent by {{model}}"),
            Ask(f"max by (model) (retrue_run_budget{{{M}}})", "budget of {{model}}"),
            words="Runs that checks may call for in the policy's stretch of event time, and how many it had.",
            unit="short",
        )
    )
    made = made.with_panel(
        lines(
            "What checks led to",
            Ask(f"sum by (code) (retrue_decisions_total{{{M}}})", "{{code}}"),
            words="Decisions since the service started.",
            unit="short",
        )
    )
    made = made.with_panel(
        cells(
            "What models do",
            Ask(f'max by (model, state) (retrue_runs{{{M}, state=~"queued|{WORK}|probation"}})', "{{model}} {{state}}"),
            words="Runs in each state of work.",
            unit="short",
            steps=((None, "transparent"), (1, "blue")),
            width=16,
        )
    )
    return made.with_panel(
        lines(
            "Duration of the newest run",
            Ask(
                f"sum by (model, state) (max by (model, state) (retrue_run_state_seconds{{{M}}}))",
                "{{model}} {{state}}",
            ),
            words="What it spent in each state.",
            unit="s",
        )
    )


def _gate(made: Dashboard) -> Dashboard:
    made = made.with_row(Row("Gate"))
    asked = (
        Ask(f"max by (model, clause) (retrue_gate_value{{{M}}})", "Value"),
        Ask(f"max by (model, clause) (retrue_gate_threshold{{{M}}})", "Threshold"),
        Ask(f'max by (model, clause) (retrue_gate_outcome{{{M}, outcome="pass"}})', "Passed"),
        Ask(f'max by (model, clause) (retrue_gate_outcome{{{M}, outcome="inconclusive"}})', "Inconclusive"),
        Ask(f'max by (model, clause) (retrue_gate_outcome{{{M}, outcome="fail"}})', "Failed"),
    )
    names = {"model": "Model", "clause": "Clause"}
    words = "The clauses of each model's newest judged run."
    made = made.with_panel(rows("Clauses of the gate", *asked, words=words, names=names, width=16))
    return made.with_panel(
        cells(
            "Outcome of the gate",
            Ask(f"max by (model, outcome) (retrue_gate_result{{{M}}})", "{{model}} {{outcome}}"),
            words="Of each model's newest judged run.",
            unit="short",
            steps=((None, "transparent"), (1, "blue")),
            width=8,
        )
    )


def _clockwork(made: Dashboard) -> Dashboard:
    made = made.with_row(Row("Clockwork"))
    made = made.with_panel(
        lines(
            "Swaps",
            *(
                Ask(f"sum(retrue_{name}_seconds_sum{{{M}}}) / sum(retrue_{name}_seconds_count{{{M}}})", legend)
                for name, legend in (("swap", "to its commit"), ("swap_mixed", "mixed"), ("load", "a worker's load"))
            ),
            words="Means since the service started: from a swap's request to its commit, from there until the last "
            "worker serves it, and of one load of a version.",
            unit="s",
        )
    )
    made = made.with_panel(
        lines(
            "Duration of a check",
            Ask(
                f"sum by (model) (retrue_check_seconds_sum{{{M}}}) / sum by (model) (retrue_check_seconds_count)",
                "{{model}}",
            ),
            words="Mean since the service started.",
            unit="s",
        )
    )
    return made.with_panel(
        lines(
            "Memory",
            Ask("max by (process) (retrue_peak_bytes)", "{{process}}"),
            words="Most resident memory of the controller, and of the newest check and trainer.",
            unit="bytes",
        )
    )
