"""Evidence for people: Evidently's own report over the very values that the verdict was computed from."""

import html as escaping
from typing import Any

import pandas as pd

from service.domain.check import ColumnDrift
from service.domain.policy import Drift
from service.domain.spec import Schema
from service.learning.calibration import Calibration
from service.learning.columns import Pair
from service.learning.drift import Compared
from service.learning.foreign import DataDefinition, Dataset, Report, ValueDrift
from service.learning.statistic import method_of, quiet_evidently

__all__ = ["html", "statistics"]


def html(
    schema: Schema, policy: Drift, *, reference: pd.DataFrame, window: pd.DataFrame, title: str,
    calibration: Calibration | None = None,
) -> str:  # fmt: skip
    """Return a page that stands on its own: a table of every column's verdict, then Evidently's plots.

    Parameters
    ----------
    schema, policy, reference, window, calibration
        As for `service.learning.drift.compare`.
    title
        Heading of the page.
    """
    compared = Compared(schema, policy, reference=reference, window=window, calibration=calibration)
    verdicts = [compared.column(pair) for pair in compared.pairs]
    comparable = [
        (pair, verdict.threshold) for pair, verdict in zip(compared.pairs, verdicts, strict=True) if not pair.obstacle
    ]
    page: str = ""
    if comparable:
        with quiet_evidently():
            page = _run(policy, comparable).get_html_str(as_iframe=False)
    head = _table(title, verdicts)
    start = page.find("<body")
    if start < 0:
        return f"<!doctype html><html><head><meta charset='utf-8'></head><body>{head}</body></html>"
    inside = page.index(">", start) + 1
    return page[:inside] + head + page[inside:]


def statistics(policy: Drift, pairs: tuple[Pair, ...]) -> dict[str, float]:
    """Return the statistic that Evidently's report shows for each column: what the verdicts are tested against."""
    with quiet_evidently():
        run = _run(policy, [(pair, 1.0) for pair in pairs if not pair.obstacle])
        found: list[dict[str, Any]] = run.dict()["metrics"]
    return {metric["config"]["column"]: float(metric["value"]) for metric in found}


def _run(policy: Drift, judged: list[tuple[Pair, float]]) -> Any:
    """Run the report; the columns may differ in length, so each goes in padded with nulls, which Evidently drops."""
    pairs = [pair for pair, _ in judged]
    definition = DataDefinition(
        numerical_columns=[pair.column for pair in pairs if pair.kind == "numeric"],
        categorical_columns=[pair.column for pair in pairs if pair.kind == "categorical"],
    )
    sides = [
        Dataset.from_pandas(
            pd.concat({pair.column: getattr(pair, side).reset_index(drop=True) for pair in pairs}, axis=1),
            data_definition=definition,
        )
        for side in ("window", "reference")
    ]
    metrics = [
        ValueDrift(column=pair.column, method=method_of(policy, pair), threshold=threshold)
        for pair, threshold in judged
    ]
    return Report(metrics).run(*sides)


def _table(title: str, verdicts: list[ColumnDrift]) -> str:
    rows = "".join(
        f"<tr><td>{escaping.escape(v.column)}</td><td>{v.method}</td>"
        f"<td>{'–' if v.statistic is None else f'{v.statistic:.4g}'}</td><td>{v.threshold:.4g}</td>"
        f"<td>{'not evaluated' if v.drifted is None else 'moved' if v.drifted else 'within'}</td>"
        f"<td>{escaping.escape(v.reason)}</td></tr>"
        for v in verdicts
    )
    return (
        "<div style='font-family:sans-serif;margin:24px'>"
        f"<h1 style='font-size:20px'>{escaping.escape(title)}</h1>"
        "<table style='border-collapse:collapse' cellpadding='6'><thead><tr>"
        "<th>column</th><th>method</th><th>statistic</th><th>threshold</th><th>verdict</th><th>note</th>"
        f"</tr></thead><tbody>{rows}</tbody></table></div>"
    )
