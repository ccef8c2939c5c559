"""Accuracy for its cost where labels come at once, or a week late: the shipped streams only, and only when asked for.

Fixed before: all as in `bench.decisions_streams`.
"""

from typing import Any

from bench import decisions_streams as streams
from bench.decisions_streams import run
from bench.report import Section

__all__ = ["jobs", "run", "section"]

DELAYS = ("0", "1w")


def jobs(*, quick: bool, seed: int) -> list[streams.Job]:
    """Return what can run side by side: both delays of a stream in one process, for they fit the same stretches."""
    return [(name, seed, DELAYS[: 1 if quick else 2], quick) for name in streams.SHIPPED]


def section(results: list[list[dict[str, Any]]], *, quick: bool, seconds: float) -> Section:
    """Return the table as `bench.decisions_streams` does."""
    return streams.section(results, quick=quick, seconds=seconds, name="delays", more=", labels at once or a week late")
