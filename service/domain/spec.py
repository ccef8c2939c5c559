"""What a data scientist declares about a model, and the schema that follows from it."""

import re
from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, TypeAdapter, field_validator, model_validator
from pydantic.dataclasses import dataclass

from service.domain.errors import UnknownModel
from service.domain.policy import Drift, Gate, Probation, Quality, Recording, Retention, Retrain, Training

__all__ = ["Feature", "ModelSpec", "Schema", "Task", "unknown_model"]

Task = Literal["classification", "regression"]
Kind = Literal["numeric", "categorical", "boolean"]
LabelKind = Literal["string", "integer", "number"]

NAME = re.compile(r"[a-z][a-z0-9_-]{0,62}")
"""Model names: they stand in URLs, paths and metric labels."""

RESERVED = frozenset({"id", "event_time", "prediction"})
"""Feature names that would collide with what Retrue itself writes beside the features."""


def unknown_model(name: str) -> UnknownModel:
    """Return the error for a model that is not registered; it repeats a name only if a model could have it."""
    named = f" called {name!r}" if NAME.fullmatch(name) else " of that name"
    return UnknownModel(f"no model{named} is registered", **({"model": name} if NAME.fullmatch(name) else {}))


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Feature:
    """One input column.

    Parameters
    ----------
    name
        As it stands in the source and in a request's instances.
    kind
        ``numeric`` (int or float), ``categorical`` (strings, or integers where `integer` is true) or ``boolean``.
    nullable
        Whether null is an answerable value.
    low, high
        Bounds, inclusive, in the feature's own unit. Values outside are answered and counted, unless `refuse`.
    categories
        The known categories. Others are answered and counted as unseen, unless `refuse`.
    refuse
        Refuse out-of-range values and unseen categories with 422 instead of answering them.
    """

    name: Annotated[str, Field(min_length=1, max_length=200)]
    kind: Kind = "numeric"
    nullable: bool = False
    low: float | None = None
    high: float | None = None
    categories: tuple[str, ...] | tuple[int, ...] | None = None
    refuse: bool = False

    @field_validator("name")
    @classmethod
    def _name_is_free(cls, name: str) -> str:
        if name in RESERVED:
            msg = f"the feature name {name!r} is reserved; rename the column"
            raise ValueError(msg)
        return name

    @model_validator(mode="after")
    def _options_fit_kind(self) -> "Feature":
        if self.kind != "numeric" and (self.low is not None or self.high is not None):
            msg = f"feature {self.name!r} is {self.kind}: low and high belong to numeric features"
            raise ValueError(msg)
        if self.low is not None and self.high is not None and self.low > self.high:
            msg = f"feature {self.name!r}: low {self.low} lies above high {self.high}"
            raise ValueError(msg)
        if self.kind != "categorical" and self.categories is not None:
            msg = f"feature {self.name!r} is {self.kind}: categories belong to categorical features"
            raise ValueError(msg)
        return self


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Schema:
    """What a version takes and gives: JSON-able, stored with the version, all that a worker needs to validate.

    Attributes
    ----------
    features
        In the order of the model's columns. A categorical feature always has its categories' type decided here.
    integer_categories
        Names of the categorical features whose values are integers (the others hold strings).
    frame
        Whether the estimator wants a DataFrame with column names (else: one float64 array, shape
        (n_rows, n_features), booleans as 0/1 and null as NaN).
    label
        Type of the labels: ``string`` or ``integer`` classes, or a ``number``.
    classes
        Known classes in the estimator's order; empty for regression.
    """

    model: str
    task: Task
    timestamp: str
    features: tuple[Feature, ...]
    integer_categories: tuple[str, ...] = ()
    frame: bool = False
    label: LabelKind
    classes: tuple[str, ...] | tuple[int, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Feature names in column order."""
        return tuple(feature.name for feature in self.features)

    def is_text(self, feature: Feature) -> bool:
        """Return whether `feature` holds strings (everything else fits a float64 column)."""
        return feature.kind == "categorical" and feature.name not in self.integer_categories

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        plain: dict[str, Any] = TypeAdapter(Schema).dump_python(self, mode="json")
        return plain

    @staticmethod
    def from_json(plain: dict[str, Any]) -> "Schema":
        """Return the schema that `to_json` wrote.

        Raises
        ------
        pydantic.ValidationError
            If `plain` was not written by `to_json`.
        """
        return TypeAdapter(Schema).validate_python(plain)


POLICIES = ("training", "quality", "drift", "retrain", "gate", "probation", "recording", "retention")
"""Fields of a `ModelSpec` that hold a policy."""


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid", arbitrary_types_allowed=True))
class ModelSpec:
    """A named prediction problem: one per file in ``models/``.

    Parameters
    ----------
    name
        Lower case letters, digits, ``-`` and ``_``; at most 63.
    task
        ``classification`` or ``regression``.
    target
        Column of the source that holds the truth.
    timestamp
        Column of the source, and optional field of a request's instances, that holds the event time (UTC).
    build
        Takes nothing, returns an unfitted scikit-learn estimator or Pipeline.
    metric
        Any scikit-learn scorer name that works on predicted labels, probabilities or values.
    source
        Path of a parquet or CSV file that version 1 learns from; relative to the project folder.
    features
        Input columns in order; inferred from the source when left out.
    input
        ``frame`` hands the estimator a DataFrame, ``array`` a float64 array; ``auto`` takes an array unless a feature
        holds strings.
    """

    name: str
    task: Task
    target: Annotated[str, Field(min_length=1)]
    timestamp: Annotated[str, Field(min_length=1)]
    build: Callable[[], Any]
    metric: Annotated[str, Field(min_length=1)]
    source: Annotated[str, Field(min_length=1)]
    features: tuple[Feature, ...] | list[Feature] | None = None
    input: Literal["auto", "array", "frame"] = "auto"
    description: str = ""
    training: Training = Field(default_factory=Training)
    quality: Quality = Field(default_factory=Quality)
    drift: Drift = Field(default_factory=Drift)
    retrain: Retrain = Field(default_factory=Retrain)
    gate: Gate = Field(default_factory=Gate)
    probation: Probation = Field(default_factory=Probation)
    recording: Recording = Field(default_factory=Recording)
    retention: Retention = Field(default_factory=Retention)

    @field_validator("name")
    @classmethod
    def _name_is_plain(cls, name: str) -> str:
        if not NAME.fullmatch(name):
            msg = f"{name!r} is no model name: lower case letters, digits, '-' and '_', a letter first, at most 63"
            raise ValueError(msg)
        return name

    @field_validator("features")
    @classmethod
    def _features_differ(cls, features: Any) -> tuple[Feature, ...] | None:
        if features is None:
            return None
        names = [feature.name for feature in features]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            msg = f"features are named twice: {', '.join(twice)}"
            raise ValueError(msg)
        if not names:
            msg = "features is empty: name at least one, or leave it out to infer them from the source"
            raise ValueError(msg)
        return tuple(features)

    @model_validator(mode="after")
    def _target_is_no_feature(self) -> "ModelSpec":
        names = {feature.name for feature in self.features or ()}
        for role, column in (("target", self.target), ("timestamp", self.timestamp)):
            if column in names:
                msg = f"{column!r} is the {role} and stands among the features: a model must not see it"
                raise ValueError(msg)
        if self.target == self.timestamp:
            msg = f"target and timestamp are both {self.target!r}"
            raise ValueError(msg)
        return self

    def policies(self) -> dict[str, Any]:
        """Return all policies as plain JSON values."""
        plain: dict[str, Any] = {
            name: TypeAdapter(type(getattr(self, name))).dump_python(getattr(self, name), mode="json")
            for name in POLICIES
        }
        return plain
