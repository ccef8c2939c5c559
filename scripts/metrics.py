"""Writes docs/metrics.md, the table of every metric, from their declarations: ``python -m scripts.metrics``."""

from pathlib import Path

from service.telemetry import STATES, Declared, Telemetry

__all__ = ["PAGE", "declared", "text"]

PAGE = Path(__file__).parents[1] / "docs" / "metrics.md"
HEAD = """# Metrics

Made by `python -m scripts.metrics` out of `service/telemetry.py`; do not edit. `GET /metrics` of any worker tells the
figures of all processes of its home: workers, committer, controller. Label values come from closed sets: words of the
code, models and their features and clauses, and live workers (`worker`). `version` stands on one gauge alone, with the
champion and the one before, so the number of series does not grow with versions; no event carries it.

**Kept in the database**: the same whichever replica is asked (take them by `max`), and unchanged by a restart. While
the database is away the last values stand and `retrue_database_up` is 0.
"""
EVENTS = """
**Counted by processes**: each home has its own (add them up). A worker that dies keeps its counts and loses its gauges;
a restart of the service begins at 0. Counters get the ending `_total`; histograms have `_bucket`, `_sum`, `_count`.
"""


def declared() -> list[Declared]:
    """Return every metric, those of the database first."""
    return [*STATES.values(), *Telemetry().declared]


def text() -> str:
    """Return the page."""
    return f"{HEAD}\n{_table(list(STATES.values()))}{EVENTS}\n{_table(Telemetry().declared)}"


def _table(metrics: list[Declared]) -> str:
    lines = ["| name | type | labels | unit | meaning |", "|---|---|---|---|---|"]
    for one in metrics:
        name = f"{one.name}_total" if one.kind == "counter" else one.name
        labels = ", ".join(f"`{label}`" for label in one.labels) or "–"
        lines.append(f"| `{name}` | {one.kind} | {labels} | {one.measure} | {one.help} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(text(), encoding="utf-8")
