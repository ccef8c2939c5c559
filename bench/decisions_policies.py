"""When others would refit: never, by the calendar, at random, when the plain trigger or Evidently's own rule says so.

A calendar is told what to learn from. The others refit what the holdout of two weeks chose out of the same three
histories, holdout included, so that nothing but the moment tells them from Retrue. None of them has a gate: what they
refit is promoted.
"""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bench.decisions_rivals import Column, Kind
from bench.simulation import WEEK, Stream
from service.learning.candidates import answers_of, fit, start_of
from service.learning.frames import EVENT_TIME, between, labels
from service.learning.predictor import Predictor
from service.learning.train import Challenge

__all__ = ["at_random", "calendar", "evidently_trigger", "never", "plain_trigger"]

HISTORIES = ("56d", "168d", "all")
HOLDOUT, PLAIN_HOLDOUT = timedelta(days=14), timedelta(days=7)
_FEW = 50
"""Rows below which a week says nothing."""
_SMALL_REFERENCE = 1_000

Due = Callable[[int, "_Champion"], bool]


class _Champion:
    """What answers now, and what is known of it."""

    def __init__(self, predictor: Predictor, loss: float, learned: pd.DataFrame, since: int) -> None:
        self.predictor, self.loss, self.learned, self.since = predictor, loss, learned, since
        self.memory: dict[str, Any] = {}


def never(stream: Stream, first: Challenge) -> dict[str, Any]:
    """Version 1 answers for ever."""
    output, _ = first.predictor.answer(between(stream.rows, after=stream.start, until=None))
    return stream.scored("never retrained", output, promotions=0, retrains=0)


def calendar(stream: Stream, first: Challenge, *, every: int, window: str) -> dict[str, Any]:
    """Refit every so many weeks on `window`, whatever happens: no check, no gate."""
    champion, outputs, refits = first.predictor, [], 0
    for week in range(stream.weeks):
        now = stream.start + week * WEEK
        if week and week % every == 0:
            known = stream.known_at(now)
            end = known[EVENT_TIME].iloc[-1].to_pydatetime()
            past = between(known, after=start_of(window, end), until=None)
            champion, _ = fit(stream.spec, stream.schema, past, seed=stream.seed)
            refits += 1
        outputs.append(champion.answer(between(stream.rows, after=now, until=now + WEEK))[0])
    history = "all rows" if window == "all" else f"last {window}"
    return stream.scored(f"every {every} weeks, {history}", np.concatenate(outputs), promotions=refits, retrains=refits)


def at_random(stream: Stream, first: Challenge, *, count: int, seed: int) -> dict[str, Any]:
    """Refit at `count` weeks drawn without replacement."""
    weeks = np.random.default_rng([seed, count]).permutation(np.arange(1, stream.weeks))[:count]
    chosen = set(weeks.tolist())
    return _run(stream, first, lambda week, _: week in chosen, policy=f"random moments, seed {seed}")


def plain_trigger(stream: Stream, first: Challenge, *, rise: float) -> dict[str, Any]:
    """Refit when the realised loss of a week lies so far above the champion's own holdout loss, chosen on one week."""

    def due(week: int, champion: _Champion) -> bool:
        known = stream.known_at(stream.start + week * WEEK)
        since = max(stream.start + champion.since * WEEK, known[EVENT_TIME].iloc[-1].to_pydatetime() - WEEK)
        newest = between(known, after=since, until=None)
        return len(newest) >= _FEW and _loss(stream, champion.predictor, newest) > champion.loss * (1 + rise)

    return _run(stream, first, due, policy=f"plain trigger, {rise:.0%}", holdout=PLAIN_HOLDOUT)


def evidently_trigger(stream: Stream, first: Challenge) -> dict[str, Any]:
    """Refit when half of the columns of a week have drifted by Evidently's defaults from what the champion learned."""
    schema = stream.schema
    kinds: dict[str, Kind] = {f.name: "numeric" if f.kind == "numeric" else "categorical" for f in schema.features}

    def due(week: int, champion: _Champion) -> bool:
        now = stream.start + week * WEEK
        window = between(stream.rows, after=now - WEEK, until=now)
        if len(window) < _FEW or len(champion.learned) <= _SMALL_REFERENCE:
            return False
        columns: dict[str, Column] = champion.memory
        if not columns:
            columns.update({name: Column(_plain(champion.learned, name), kind) for name, kind in kinds.items()})
        moved = sum(column.measure(_plain(window, name))[0] >= 0.1 for name, column in columns.items())
        return moved >= 0.5 * len(kinds)

    return _run(stream, first, due, policy="Evidently's default rule")


def _plain(frame: pd.DataFrame, name: str) -> NDArray[Any]:
    values = frame[name].to_numpy()
    return values.astype(np.int64) if values.dtype == bool else values


def _run(stream: Stream, first: Challenge, due: Due, *, policy: str, holdout: timedelta = HOLDOUT) -> dict[str, Any]:
    learned = between(stream.known_at(stream.start), after=first.reference_after, until=first.reference_until)
    champion = _Champion(first.predictor, float(first.metrics["loss"]), learned, 0)
    outputs, refits = [], 0
    for week in range(stream.weeks):
        now = stream.start + week * WEEK
        if week and due(week, champion):
            champion = _refitted(stream, week, holdout)
            refits += 1
        outputs.append(champion.predictor.answer(between(stream.rows, after=now, until=now + WEEK))[0])
    return stream.scored(policy, np.concatenate(outputs), promotions=refits, retrains=refits)


def _refitted(stream: Stream, week: int, holdout: timedelta) -> _Champion:
    known = stream.known_at(stream.start + week * WEEK)
    end = known[EVENT_TIME].iloc[-1].to_pydatetime()
    past, newest = between(known, after=None, until=end - holdout), between(known, after=end - holdout, until=None)
    losses = {}
    for history in HISTORIES:
        rows = between(past, after=start_of(history, past[EVENT_TIME].iloc[-1].to_pydatetime()), until=None)
        losses[history] = _loss(stream, fit(stream.spec, stream.schema, rows, seed=stream.seed)[0], newest)
    chosen = min(losses, key=losses.__getitem__)
    learned = between(known, after=start_of(chosen, end), until=None)
    predictor, _ = fit(stream.spec, stream.schema, learned, seed=stream.seed)
    return _Champion(predictor, losses[chosen], learned, week)


def _loss(stream: Stream, predictor: Predictor, rows: pd.DataFrame) -> float:
    answers = answers_of(predictor, rows)
    return stream.metric.loss(labels(stream.schema, rows), answers.output, answers.probabilities)
