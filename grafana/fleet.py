"""The dashboard *Fleet*: every model at a glance, and the service under them."""

from grafana_foundation_sdk.builders.dashboard import Dashboard, Row

from grafana.parts import BAD, ODD, Ask, board, cells, lines, number, rows

__all__ = ["fleet"]

M = 'model=~"$model"'


def fleet() -> Dashboard:
    """Return the dashboard."""
    made = board("Retrue / Fleet", uid="retrue-fleet", words="All models at a glance, and what serves them.", many=True)
    return _service(_trouble(_models(made)))


def _models(made: Dashboard) -> Dashboard:
    asked = (
        Ask(f"max by (model) (retrue_champion_generation{{{M}}})", "Generation"),
        Ask(
            f"max by (model) (time() - retrue_champion_changed_timestamp_seconds{{{M}}}) / 86400", "Champion for, days"
        ),
        Ask(f"sum by (model) (rate(retrue_predictions_total{{{M}}}[$__rate_interval]))", "Rows a second"),
        Ask(
            f"max by (model) (retrue_drift_family_statistic{{{M}}} / retrue_drift_family_threshold)",
            "Drift / threshold",
        ),
        Ask(f"max by (model) (retrue_performance_loss{{{M}}})", "Realised loss"),
        Ask(f"max by (model) (retrue_performance_reference_loss{{{M}}})", "Loss when promoted"),
        Ask(f"max by (model) (retrue_label_coverage{{{M}}})", "Labels that came"),
        Ask(f'max by (model) (retrue_switch{{{M}, switch="quarantine"}})', "Quarantine"),
    )
    words = "One line for each model: what serves, since when, how far its data have moved, how well it does."
    names = {"model": "Model"}
    return made.with_row(Row("Models")).with_panel(rows("Models", *asked, words=words, names=names))


def _trouble(made: Dashboard) -> Dashboard:
    lagging = number(
        "Not on the champion",
        Ask(f"sum(max by (model) (retrue_serving_lagging{{{M}}}))", "workers"),
        words="Live workers that do not serve a model's champion.",
        unit="short",
        steps=BAD,
    )
    quarantined = number(
        "In quarantine",
        Ask(f'sum(max by (model) (retrue_switch{{{M}, switch="quarantine"}}))', "models"),
        words="Models whose data are broken upstream.",
        unit="short",
        steps=BAD,
    )
    worse = number(
        "Worse on labels",
        Ask(f"sum(max by (model) (retrue_performance_worse{{{M}}})) or vector(0)", "models"),
        words="Models whose realised loss has risen beyond chance.",
        unit="short",
        steps=BAD,
    )
    broken = number(
        "Runs that broke",
        Ask(f"sum(max by (model) (retrue_run_broken_in_a_row{{{M}}}))", "runs"),
        words="Newest runs of each model that came to no verdict.",
        unit="short",
        steps=ODD,
    )
    probation = number(
        "On probation",
        Ask(f"sum(max by (model) (retrue_probation{{{M}}}))", "models"),
        words="Champions that can still be taken back by themselves.",
        unit="short",
        steps=ODD,
    )
    leaderless = number(
        "Without a leader",
        Ask("max(retrue_leaderless_seconds)", "for"),
        words="Since no controller leads: nothing is checked, trained or swapped.",
        unit="s",
        steps=((None, "green"), (30, "red")),
    )
    drift = cells(
        "Drift of each model",
        Ask(f"max by (model) (retrue_drift_family_statistic{{{M}}} / retrue_drift_family_threshold)", "{{model}}"),
        words="The largest score of all columns as a share of the threshold; from 1 on the window has drifted.",
        unit="percentunit",
        steps=((None, "green"), (0.7, "yellow"), (1, "red")),
        height=7,
    )
    for panel in (lagging, quarantined, worse, broken, probation, leaderless):
        made = made.with_panel(panel)
    return made.with_panel(drift)


def _service(made: Dashboard) -> Dashboard:
    made = made.with_row(Row("Service"))
    made = made.with_panel(
        lines(
            "Answered rows",
            Ask(f"sum by (model) (rate(retrue_predictions_total{{{M}}}[$__rate_interval]))", "{{model}}"),
            words="Rows that were answered and recorded, a second.",
            unit="rowsps",
        )
    )
    made = made.with_panel(
        lines(
            "Predictions that were not answered",
            Ask(f"model:retrue_request_errors:ratio_rate5m{{{M}}}", "{{model}}"),
            words="Share of requests that failed through the service's fault, in 5 minutes.",
            unit="percentunit",
            steps=((None, "green"), (0.001, "yellow"), (0.0144, "red")),
        )
    )
    made = made.with_panel(
        lines(
            "Answers over 0.1 s",
            Ask(f"model:retrue_request_slow:ratio_rate5m{{{M}}}", "{{model}}"),
            words="Share of answers that took longer, in 5 minutes; the objective is 1 %.",
            unit="percentunit",
            steps=((None, "green"), (0.01, "yellow"), (0.144, "red")),
        )
    )
    made = made.with_panel(
        lines(
            "Spool",
            Ask("retrue_spool_bytes and retrue_spool_cap_bytes > 0", "{{instance}}"),
            Ask("retrue_spool_cap_bytes > 0", "cap {{instance}}"),
            words="What waits for the lake. At the cap answers are refused.",
            unit="bytes",
        )
    )
    made = made.with_panel(
        lines(
            "Waits for the lake",
            Ask("retrue_spool_oldest_seconds", "oldest segment {{instance}}"),
            Ask(f"max by (model) (retrue_lake_lag_seconds{{{M}}})", "newest commit {{model}}"),
            words="Age of the oldest segment in the spool, and of the oldest row in the newest commit.",
            unit="s",
            steps=((None, "green"), (60, "yellow"), (300, "red")),
        )
    )
    return made.with_panel(
        lines(
            "Workers",
            Ask("max(retrue_workers)", "alive"),
            Ask("sum(retrue_degraded)", "without the database"),
            words="Workers that answer, and those of them that can't reach the database.",
            unit="short",
        )
    )
