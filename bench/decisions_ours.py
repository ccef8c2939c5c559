"""Retrue's calibrated drift test as the benches ask it: the service's own functions, nothing of theirs rebuilt."""

from dataclasses import dataclass
from typing import Any, cast

import pandas as pd
from numpy.typing import NDArray

from service.domain.check import ColumnDrift, DriftTest
from service.domain.policy import Drift
from service.domain.spec import Schema
from service.learning.calibration import Calibration, calibrate
from service.learning.drift import compare
from service.learning.examine import reference_rows
from service.learning.frames import OUTPUT
from service.learning.predictor import Predictor

__all__ = ["Ours"]


class _Known:
    """A champion whose answers stand in the rows already."""

    def answer(self, frame: pd.DataFrame) -> tuple[NDArray[Any], None]:
        """Return them."""
        return frame[OUTPUT].to_numpy(), None


@dataclass(frozen=True, kw_only=True)
class Ours:
    """A version's reference with the thresholds that follow from it."""

    schema: Schema
    policy: Drift
    reference: pd.DataFrame
    calibration: Calibration

    @staticmethod
    def of(schema: Schema, rows: pd.DataFrame, weights: dict[str, float], *, policy: Drift) -> "Ours":
        """Return the test that a version which learned from `rows` would carry; they hold its answers."""
        reference = reference_rows(policy, rows, cast("Predictor", _Known()))
        return Ours(
            schema=schema, policy=policy, reference=reference, calibration=calibrate(schema, policy, rows, weights)
        )

    def look(self, window: pd.DataFrame) -> tuple[tuple[ColumnDrift, ...], DriftTest]:
        """Return how far every column of a window has moved, and the test over all of them."""
        return compare(self.schema, self.policy, reference=self.reference, window=window, calibration=self.calibration)
