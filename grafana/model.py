"""The dashboard *Model*: what it is asked, how its data move, how well it does, who was champion when."""

from typing import Any

from grafana_foundation_sdk.builders.dashboard import Dashboard, Row

from grafana.parts import BAD, ODD, Ask, board, cells, lines, mark, name, number

__all__ = ["model"]

M = 'model="$model"'
RATE = "[$__rate_interval]"
YES = {"0": "no", "1": "yes"}


def model() -> Dashboard:
    """Return the dashboard."""
    words = "One model: champion, traffic, drift by feature, realised and estimated performance, labels."
    made = board("Retrue / Model", uid="retrue-model", words=words, many=False)
    for title, kind, color in (("Promoted", "promote", "green"), ("Rolled back", "rollback", "red")):
        moment = f'max by (model) (retrue_swap_timestamp_seconds{{{M}, kind="{kind}"}}) * 1000'
        made = made.annotation(mark(title, moment, color=color, at_value=True))
    quarantine = f'max by (model) (retrue_switch{{{M}, switch="quarantine"}})'
    made = made.annotation(mark("Quarantine", quarantine, color="orange", at_value=False))
    for part in (_champion, _traffic, _drift, _performance, _labels):
        made = part(made)
    return made


def _champion(made: Dashboard) -> Dashboard:
    made = made.with_row(Row("Champion"))
    panels = (
        name(
            "Version",
            Ask(f'max by (version) (retrue_model_info{{{M}, role="champion"}})', "{{version}}"),
            words="The version that answers.",
        ),
        number(
            "Champion for",
            Ask(f"max(time() - retrue_champion_changed_timestamp_seconds{{{M}}})", "for"),
            words="Since it was promoted, or came back.",
            unit="s",
        ),
        number(
            "Age of what it learned",
            Ask(f"max(retrue_model_age_seconds{{{M}}})", "age"),
            words="Event time from the newest row it learned from to the newest window.",
            unit="s",
            steps=((None, "green"), (84 * 86400, "yellow"), (180 * 86400, "red")),
        ),
        number(
            "On probation",
            Ask(f"max(retrue_probation{{{M}}})", "probation"),
            words="Whether it can still be taken back by itself.",
            unit="short",
            steps=ODD,
            texts=YES,
        ),
        number(
            "Quarantine",
            Ask(f'max(retrue_switch{{{M}, switch="quarantine"}})', "quarantine"),
            words="Whether the data are broken upstream: then nothing is learned.",
            unit="short",
            steps=BAD,
            texts=YES,
        ),
        number(
            "Not yet on it",
            Ask(f"max(retrue_serving_lagging{{{M}}})", "workers"),
            words="Live workers that do not serve it.",
            unit="short",
            steps=BAD,
        ),
        lines(
            "Champion timeline",
            Ask(f"max(retrue_champion_generation{{{M}}})", "generation"),
            Ask(f"max by (worker) (retrue_serving_generation{{{M}}})", "served by {{worker}}"),
            words="Each change of champion adds one; marks say whether it was a promotion or a rollback.",
            unit="short",
            width=16,
        ),
        lines(
            "Switches",
            Ask(f"max by (switch) (retrue_switch{{{M}}})", "{{switch}}"),
            words="What people, or a quarantine, have set.",
            unit="bool",
            steps=ODD,
            top=1,
        ),
    )
    return _with(made, *panels)


def _traffic(made: Dashboard) -> Dashboard:
    made = made.with_row(Row("Traffic and latency"))
    seconds = f'sum by (le) (rate(retrue_request_seconds_bucket{{{M}, endpoint="predict"}}{RATE}))'
    panels = (
        lines(
            "Requests",
            Ask(f"sum by (endpoint, outcome) (rate(retrue_requests_total{{{M}}}{RATE}))", "{{endpoint}} {{outcome}}"),
            words="Requests a second by what came of them.",
            unit="reqps",
        ),
        lines(
            "Rows",
            Ask(f"sum(rate(retrue_predictions_total{{{M}}}{RATE}))", "answered"),
            Ask(f"sum(rate(retrue_refused_rows_total{{{M}}}{RATE})) or vector(0)", "refused"),
            Ask(
                f"sum by (signal) (rate(retrue_flagged_values_total{{{M}}}{RATE})) or vector(0)",
                "odd values {{signal}}",
            ),
            words="Rows a second: answered, against the schema, and values that no training row had.",
            unit="rowsps",
        ),
        lines(
            "Latency",
            *(Ask(f"histogram_quantile({q / 100}, {seconds})", f"p{q}") for q in (50, 90, 99)),
            words="From the body to the answer. The objective: 99 % within 0.1 s.",
            unit="s",
            steps=((None, "green"), (0.1, "red")),
        ),
    )
    return _with(made, *panels)


def _drift(made: Dashboard) -> Dashboard:
    made = made.with_row(Row("Drift"))
    seen = ((None, "green"), (0.5, "yellow"), (1.0, "red"))
    panels = (
        cells(
            "Drift by feature",
            Ask(f"model_feature:retrue_drift:ratio{{{M}}}", "{{feature}}"),
            words="Distance of the newest window from the reference, as a share of the column's threshold.",
            unit="percentunit",
            steps=seen,
            width=16,
            height=10,
        ),
        lines(
            "Drift of all columns together",
            Ask(f"max(retrue_drift_family_statistic{{{M}}})", "statistic"),
            Ask(f"max(retrue_drift_family_threshold{{{M}}})", "threshold"),
            words="One test over all columns: at the threshold the window has drifted.",
            unit="short",
        ),
        lines(
            "Alarms in 90 days",
            Ask(f"max(retrue_drift_realised_alarms_90d{{{M}}})", "raised"),
            Ask(f"max(retrue_drift_expected_alarms_90d{{{M}}}) or vector(0)", "expected of clean data"),
            words="Confirmed alarms of the newest 90 days of event time beside what the calibration expects.",
            unit="short",
            width=12,
        ),
        cells(
            "Verdicts",
            Ask(f"max by (verdict) (retrue_check_verdict{{{M}}})", "{{verdict}}"),
            words="The verdict of the latest check.",
            unit="short",
            steps=((None, "transparent"), (1, "blue")),
            width=12,
            height=8,
        ),
    )
    return _with(made, *panels)


def _performance(made: Dashboard) -> Dashboard:
    made = made.with_row(Row("Performance"))
    panels = (
        lines(
            "Loss: realised, estimated, when promoted",
            Ask(f"max(retrue_performance_loss{{{M}}})", "realised"),
            Ask(f"max(retrue_performance_estimate_loss{{{M}}})", "estimated without labels"),
            Ask(f"max(retrue_performance_reference_loss{{{M}}})", "on its holdout"),
            words="Lower is better. Realised: on mature labels. The estimate needs none, and may not hold.",
            unit="short",
            width=12,
        ),
        lines(
            "Realised performance",
            Ask(f"max by (metric) (retrue_performance_value{{{M}}})", "{{metric}}"),
            words="In the model's own metric, on mature labels.",
            unit="short",
            width=8,
        ),
        number(
            "Worse beyond chance",
            Ask(f"max(retrue_performance_worse{{{M}}}) or vector(0)", "worse"),
            words="Whether the realised loss has risen for certain.",
            unit="short",
            steps=BAD,
            texts=YES,
        ),
    )
    return _with(made, *panels)


def _labels(made: Dashboard) -> Dashboard:
    made = made.with_row(Row("Labels"))
    panels = (
        lines(
            "Label delay",
            Ask(f"max(retrue_label_delay_seconds{{{M}}})", "median"),
            Ask(f"max(retrue_label_immature_seconds{{{M}}})", "until mature"),
            words="From a row's event to its label; and how far back the newest row lies whose labels are mature.",
            unit="s",
        ),
        lines(
            "Labels that came",
            Ask(f"max(retrue_label_coverage{{{M}}})", "of the judged rows"),
            Ask(f"max(retrue_label_coverage_reached{{{M}}})", "of older rows"),
            words="Share of rows whose label has arrived.",
            unit="percentunit",
            steps=((None, "red"), (0.05, "green")),
            top=1,
        ),
        lines(
            "Labels received",
            Ask(f"sum by (outcome) (rate(retrue_labels_total{{{M}}}{RATE}))", "{{outcome}}"),
            words="Labels a second.",
            unit="ops",
        ),
    )
    return _with(made, *panels)


def _with(made: Dashboard, *panels: Any) -> Dashboard:
    for panel in panels:
        made = made.with_panel(panel)
    return made
