"""Laws of candidates: weights reach the estimator that takes them, and the table says what was done."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from service.learning.candidates import choose, fit, fit_candidates, weight_parameter, weights_of
from service.learning.frames import canonical
from service.learning.schema import infer
from service.spec import Training

WEIGHTED = ("4d", "all", "all, half-life 1d")


class _Recorder(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn ships no types
    """Learns the weighted share of each class and keeps the weights that it was given."""

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Any:
        del X
        self.classes_ = np.unique(y)
        self.given_ = None if sample_weight is None else np.asarray(sample_weight)
        return self

    def predict(self, X: Any) -> Any:
        return np.repeat(self.classes_[:1], len(X))


def _table(kind: Any, build: Any, windows: tuple[str, ...] = WEIGHTED) -> Any:
    spec = replace(kind.spec, build=build, training=replace(kind.spec.training, windows=windows))
    schema = infer(spec, kind.source)
    rows = canonical(spec, schema, kind.source)
    silent = lambda *_: None  # noqa: E731
    return fit_candidates(spec, schema, rows.iloc[:450], rows.iloc[450:], seed=0, progress=silent)


@pytest.mark.parametrize(
    ("estimator", "name"),
    [
        (LogisticRegression(), "sample_weight"),
        (HistGradientBoostingClassifier(), "sample_weight"),
        (make_pipeline(StandardScaler(), LogisticRegression()), "logisticregression__sample_weight"),
        (make_pipeline(make_pipeline(LogisticRegression())), "pipeline__logisticregression__sample_weight"),
        (KNeighborsClassifier(), None),
        (make_pipeline(StandardScaler(), KNeighborsClassifier()), None),
        (make_pipeline(StandardScaler(), "passthrough"), None),
        (GridSearchCV(LogisticRegression(), {"C": [1.0]}), None),
    ],
)
def test_weights_go_where_the_estimator_or_a_pipelines_last_step_takes_them(estimator: Any, name: str | None) -> None:
    assert weight_parameter(estimator) == name


def test_a_row_weighs_half_as_much_with_every_half_life_and_one_on_average() -> None:
    at = pd.date_range("2026-01-01", periods=10, freq="1D", tz="UTC")
    weights = weights_of(pd.DataFrame({"event_time": at}), timedelta(days=3))
    assert weights.mean() == pytest.approx(1.0)
    assert weights[3:] / weights[:-3] == pytest.approx(np.full(7, 2.0))


def test_a_weighted_candidate_is_fitted_with_its_weights_and_the_others_without(numbers: Any) -> None:
    fitted, table = _table(numbers, _Recorder)
    given = [one.predictor.estimator.given_ for one in fitted]
    assert given[0] is None
    assert given[1] is None
    assert given[2][-1] > given[2][0] > 0
    assert [line.weighting for line in table] == ["none", "none", "half-life 1d"]
    assert table[2].effective_rows is not None
    assert table[2].effective_rows < table[1].rows == table[2].rows


def test_the_weights_change_what_is_learned_and_the_refit_has_them_too(numbers: Any) -> None:
    schema = infer(numbers.spec, numbers.source)
    rows = canonical(numbers.spec, schema, numbers.source)
    fits = [fit(numbers.spec, schema, rows, seed=0, half_life=half)[0] for half in (None, timedelta(days=1))]
    plain, weighted = (one.estimator.coef_ for one in fits)
    assert not np.allclose(plain, weighted)


def test_an_estimator_that_takes_no_weights_has_an_unweighted_twin_that_is_fitted_once(numbers: Any) -> None:
    fitted, table = _table(numbers, lambda: KNeighborsClassifier(3))
    assert [one.window for one in fitted] == ["4d", "all"]
    assert table[2].note == "the estimator takes no weights: the same rows as all"
    alone, table = _table(numbers, lambda: KNeighborsClassifier(3), ("all, half-life 1d",))
    assert [one.window for one in alone] == ["all, half-life 1d"]
    assert table[0].note == "the estimator takes no weights: fitted without"
    assert table[0].weighting == "none"


def test_the_holdout_chooses_and_of_equals_the_first(numbers: Any) -> None:
    fitted, table = _table(numbers, LogisticRegression)
    assert choose(fitted).loss == min(line.loss for line in table)
    assert choose([replace(one, loss=0.5) for one in fitted]).window == "4d"


def test_two_windows_that_hold_the_same_rows_are_fitted_once_unless_they_weigh_them_otherwise(numbers: Any) -> None:
    fitted, table = _table(numbers, LogisticRegression, ("365d", "all", "365d, half-life 1d", "all, half-life 1d"))
    assert [one.window for one in fitted] == ["365d", "365d, half-life 1d"]
    assert [line.note for line in table] == ["", "the same rows as 365d", "", "the same rows as 365d, half-life 1d"]


def test_by_default_each_run_tries_the_recent_and_the_growing_weighted_history(numbers: Any) -> None:
    _, table = _table(numbers, LogisticRegression, Training().windows)
    assert "half-life" in table[-1].weighting
