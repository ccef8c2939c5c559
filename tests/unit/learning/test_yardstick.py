"""Laws of what a new version's drift is measured by."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import LinearRegression

from service.learning.calibration import calibrate
from service.learning.candidates import fit
from service.learning.frames import canonical
from service.learning.metric import metric_of
from service.learning.predictor import Predictor
from service.learning.schema import infer
from service.learning.yardstick import calibrated, importance, optimism
from service.spec import Drift, ModelSpec

N = 800


def _source() -> pd.DataFrame:
    random = np.random.default_rng(0)
    x, idle = random.normal(size=N), random.normal(size=N)
    at = pd.date_range("2026-01-01", periods=N, freq="1h", tz="UTC")
    return pd.DataFrame({"at": at, "x": x, "idle": idle, "y": x + 2 * random.normal(size=N)})


def _forest() -> Any:
    return RandomForestRegressor(n_estimators=10, random_state=0)


def _learned(build: Callable[[], Any]) -> tuple[ModelSpec, Predictor, pd.DataFrame]:
    spec = ModelSpec(
        name="small", task="regression", target="y", timestamp="at", build=build, metric="neg_mean_absolute_error",
        source="small.parquet", drift=Drift(window="50 rows", min_rows=20),
    )  # fmt: skip
    schema = infer(spec, _source())
    rows = canonical(spec, schema, _source())
    return spec, fit(spec, schema, rows, seed=0)[0], rows


def test_a_feature_that_the_answers_rest_on_weighs_more_than_an_idle_one() -> None:
    spec, predictor, rows = _learned(LinearRegression)
    worth = importance(predictor, metric_of(spec.metric, predictor.schema), rows, seed=0)
    assert worth["x"] > 10 * abs(worth["idle"])
    assert worth == importance(predictor, metric_of(spec.metric, predictor.schema), rows, seed=0)


def test_where_no_label_is_known_all_features_weigh_alike() -> None:
    spec, predictor, rows = _learned(LinearRegression)
    assert importance(predictor, metric_of(spec.metric, predictor.schema), rows.assign(label=np.nan), seed=0) == {}
    found = calibrated(spec, predictor, rows, holdout=rows.assign(label=np.nan), seed=0)
    assert {found.columns[name].weight for name in ("x", "idle")} == {1.0}


def test_an_estimator_that_knows_its_rows_by_heart_answers_new_ones_otherwise_and_is_given_that() -> None:
    found = {}
    for build in (LinearRegression, _forest):
        spec, predictor, rows = _learned(build)
        answered = rows.assign(output=predictor.answer(rows)[0])
        found[build] = optimism(spec, predictor, answered, seed=0)
        calibration = calibrated(spec, predictor, rows, holdout=rows.tail(200), seed=0)
        without = calibrate(predictor.schema, spec.drift, answered).columns["prediction"].centre
        assert calibration.columns["prediction"].centre == pytest.approx(without + found[build])
    assert found[_forest] > 0.15
    assert found[_forest] > 2 * found[LinearRegression]


@pytest.mark.parametrize("rows", [0, 1, 5])
def test_a_handful_of_rows_has_no_second_fit_and_no_error(rows: int) -> None:
    spec, predictor, all_rows = _learned(LinearRegression)
    few = all_rows.head(rows)
    assert optimism(spec, predictor, few.assign(output=0.0), seed=0) == 0.0
