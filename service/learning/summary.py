"""A look at the rows that a run learns from, for people: Evidently's data summary on a stated sample of them."""

import html as escaping

import numpy as np
import pandas as pd

from service.domain.spec import Schema
from service.learning.columns import thinned
from service.learning.foreign import DataDefinition, Dataset, DataSummaryPreset, Report
from service.learning.frames import EVENT_TIME, LABEL
from service.learning.statistic import quiet_evidently

__all__ = ["SAMPLE", "summary"]

SAMPLE = 10_000
"""At most so many rows are drawn: a histogram of more looks the same."""


def summary(schema: Schema, rows: pd.DataFrame, *, title: str) -> str:
    """Return a page that stands on its own.

    Parameters
    ----------
    schema
        Says which columns are numbers and which are categories.
    rows
        Labelled rows in canonical columns, in time order; not changed.
    title
        Heading of the page.
    """
    some = thinned(rows, SAMPLE).reset_index(drop=True)
    numeric = [feature.name for feature in schema.features if feature.kind == "numeric"]
    texts = [feature.name for feature in schema.features if feature.kind != "numeric"]
    (numeric if schema.label == "number" else texts).append(LABEL)
    frame = pd.DataFrame(
        {name: some[name].to_numpy(dtype=np.float64, na_value=np.nan) for name in numeric}
        | {name: some[name].map(str, na_action="ignore").to_numpy(dtype=object) for name in texts}
    )
    definition = DataDefinition(numerical_columns=numeric, categorical_columns=texts)
    with quiet_evidently():
        page: str = (
            Report([DataSummaryPreset()])
            .run(Dataset.from_pandas(frame, data_definition=definition), None)
            .get_html_str(as_iframe=False)
        )
    head = _head(title, rows, len(some))
    start = page.find("<body")
    if start < 0:
        return f"<!doctype html><html><head><meta charset='utf-8'></head><body>{head}{page}</body></html>"
    inside = page.index(">", start) + 1
    return page[:inside] + head + page[inside:]


def _head(title: str, rows: pd.DataFrame, shown: int) -> str:
    times = rows[EVENT_TIME]
    span = f"{times.iloc[0]:%Y-%m-%d %H:%M} to {times.iloc[-1]:%Y-%m-%d %H:%M} UTC"
    words = f"all {shown:,} rows" if shown == len(rows) else f"{shown:,} of {len(rows):,} rows, spread evenly in time"
    return (
        "<div style='font-family:sans-serif;margin:24px'>"
        f"<h1 style='font-size:20px'>{escaping.escape(title)}</h1>"
        f"<p>Shown: {words}; event times {span}.</p></div>"
    )
