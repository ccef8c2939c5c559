"""All that a data scientist imports to put a model into Retrue."""

from service.domain.policy import Drift, Gate, Quality, Retrain, Training
from service.domain.spec import Feature, ModelSpec

__all__ = ["Drift", "Feature", "Gate", "ModelSpec", "Quality", "Retrain", "Training"]
