"""All that a data scientist imports to put a model into Retrue."""

from service.domain.policy import Drift, Gate, Probation, Quality, Recording, Retention, Retrain, Training
from service.domain.spec import Feature, ModelSpec

__all__ = [
    "Drift",
    "Feature",
    "Gate",
    "ModelSpec",
    "Probation",
    "Quality",
    "Recording",
    "Retention",
    "Retrain",
    "Training",
]
