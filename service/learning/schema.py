"""The schema that follows from a spec and its source, and every check of a source."""

from typing import Any, Literal

import numpy as np
import pandas as pd
from sklearn.base import is_classifier, is_regressor

from service.domain.errors import SpecInvalid
from service.domain.spec import RESERVED, Feature, ModelSpec, Schema
from service.learning.frames import event_times
from service.learning.metric import check_metric

__all__ = ["check_estimator", "infer"]

LabelKind = Literal["string", "integer", "number"]

_ID_LIKE = 0.5
"""A text column in which more than this share of the values differs is an id or free text, not a category."""

_FEW = 100
"""With fewer rows than this, nothing is said about a text column's share of different values."""


def infer(spec: ModelSpec, source: pd.DataFrame) -> Schema:
    """Return the schema of `spec`, with features inferred from `source` where the spec leaves them out.

    Parameters
    ----------
    spec
        The declared model.
    source
        The rows of its source, under the source's own column names; not changed.

    Returns
    -------
    Schema
        Without classes: these come with the first fit.

    Raises
    ------
    SpecInvalid
        Naming the field at fault and the remedy.

    Notes
    -----
    Inferred: numbers are numeric, booleans boolean, text categorical; a column with nulls is nullable. Integers are
    numeric: whether seven of them are days of the week is for a person to say.
    """
    if source.empty:
        raise _invalid("source", f"the source {spec.source!r} has no rows", "give it rows to learn from")
    for field, column in (("target", spec.target), ("timestamp", spec.timestamp)):
        if column not in source.columns:
            raise _missing(field, column, spec, source)
    event_times(source[spec.timestamp], spec.timestamp)
    declared = spec.features
    features = tuple(declared) if declared is not None else _inferred(spec, source)
    integers = []
    for feature in features:
        if feature.name not in source.columns:
            raise _missing("features", feature.name, spec, source)
        if _check_column(feature, source[feature.name]):
            integers.append(feature.name)
    _check_slices(spec, features)
    label = _label_kind(spec, source[spec.target])
    has_text = any(f.kind == "categorical" and f.name not in integers for f in features)
    if has_text and spec.input == "array":
        names = ", ".join(f.name for f in features if f.kind == "categorical" and f.name not in integers)
        raise _invalid(
            "input", f"input='array' cannot hold text, and {names} do", "write input='frame' or leave it out"
        )
    schema = Schema(
        model=spec.name,
        task=spec.task,
        timestamp=spec.timestamp,
        features=features,
        integer_categories=tuple(integers),
        frame=spec.input == "frame" or has_text,
        label=label,
    )
    check_metric(spec.metric, _with_classes(schema, source[spec.target]), spec.task)
    return schema


def _check_slices(spec: ModelSpec, features: tuple[Feature, ...]) -> None:
    kinds = {feature.name: feature.kind for feature in features}
    for one in spec.gate.slices:
        name, bins = (one, None) if isinstance(one, str) else one
        if name not in kinds:
            what = f"the slice {name!r} is no feature of the model"
            raise _invalid("gate.slices", what, f"name one of {', '.join(kinds)}")
        if bins is not None and kinds[name] != "numeric":
            what = f"the slice {name!r} is {kinds[name]}, and only numbers are cut into bins"
            raise _invalid("gate.slices", what, f"write {name!r} alone")


def check_estimator(spec: ModelSpec) -> Any:
    """Return what ``build()`` gives, once it is known to be an unfitted estimator for the spec's task.

    Raises
    ------
    SpecInvalid
        If it fails or gives something else.
    """
    try:
        estimator = spec.build()
    except Exception as error:
        msg = f"build() raised {type(error).__name__}: {error}"
        raise _invalid("build", msg, "make it return an unfitted estimator") from error
    if not (hasattr(estimator, "fit") and hasattr(estimator, "predict") and hasattr(estimator, "get_params")):
        what = f"build() returned {type(estimator).__name__}, which is no estimator"
        raise _invalid("build", what, "return an unfitted scikit-learn estimator or Pipeline")
    wrong = is_regressor(estimator) if spec.task == "classification" else is_classifier(estimator)
    if wrong:
        what = f"the task is {spec.task}, and build() returns {type(estimator).__name__}"
        raise _invalid("task", what, "change the task or the estimator")
    return estimator


def _inferred(spec: ModelSpec, source: pd.DataFrame) -> tuple[Feature, ...]:
    features = []
    for name in source.columns:
        if name in {spec.target, spec.timestamp}:
            continue
        if name in RESERVED:
            raise _invalid("features", f"the source's column {name!r} has a reserved name", "rename the column")
        features.append(_inferred_feature(str(name), source[name]))
    if not features:
        remedy = "add columns, or name the features"
        raise _invalid("features", "the source has no column besides target and timestamp", remedy)
    return tuple(features)


def _inferred_feature(name: str, column: pd.Series) -> Feature:
    nullable = bool(column.isna().any())
    known = column.dropna()
    if known.empty:
        raise _invalid("features", f"column {name!r} is empty", "name the features and leave it out")
    if pd.api.types.is_datetime64_any_dtype(column.dtype):
        remedy = "name the features and leave it out, or make numbers of it"
        raise _invalid("features", f"column {name!r} holds moments, which no estimator takes", remedy)
    if _are_booleans(known):
        return Feature(name, kind="boolean", nullable=nullable)
    if pd.api.types.is_numeric_dtype(column.dtype):
        return Feature(name, kind="numeric", nullable=nullable)
    if known.map(lambda value: isinstance(value, str)).all():
        if len(known) >= _FEW and known.nunique() > _ID_LIKE * len(known):
            remedy = "name the features and leave it out"
            raise _invalid("features", f"column {name!r} looks like an id or free text, not like a category", remedy)
        return Feature(name, kind="categorical", nullable=nullable)
    raise _invalid("features", f"column {name!r} mixes types", "make it all numbers, all text or all booleans")


def _are_booleans(known: pd.Series) -> bool:
    if pd.api.types.is_bool_dtype(known.dtype):
        return True
    return bool(known.dtype == object and known.map(lambda value: isinstance(value, (bool, np.bool_))).all())


def _check_column(feature: Feature, column: pd.Series) -> bool:
    """Return whether `feature` holds integer categories, once its column is known to fit its declaration."""
    nulls = int(column.isna().sum())
    if nulls and not feature.nullable:
        what = f"feature {feature.name!r} is null in {nulls} of {len(column)} rows and not nullable"
        raise _invalid("features", what, "write nullable=True, or fill the column")
    known = column.dropna()
    if feature.kind == "numeric":
        if not pd.api.types.is_numeric_dtype(known.dtype) or pd.api.types.is_bool_dtype(known.dtype):
            what = f"feature {feature.name!r} is numeric, and its column holds {_held(known)}"
            raise _invalid("features", what, "change its kind or the column")
        if not np.isfinite(known.to_numpy(dtype=np.float64)).all():
            raise _invalid("features", f"feature {feature.name!r} holds infinite values", "make them null or finite")
        return False
    if feature.kind == "boolean":
        if not _are_booleans(known) and not (pd.api.types.is_numeric_dtype(known.dtype) and known.isin([0, 1]).all()):
            what = f"feature {feature.name!r} is boolean, and its column holds {_held(known)}"
            raise _invalid("features", what, "give it true and false (or 1 and 0)")
        return False
    return _check_categories(feature, known)


def _check_categories(feature: Feature, known: pd.Series) -> bool:
    declared_text = bool(feature.categories) and isinstance((feature.categories or ("",))[0], str)
    if pd.api.types.is_numeric_dtype(known.dtype) and not pd.api.types.is_bool_dtype(known.dtype):
        if not np.equal(np.mod(known.to_numpy(dtype=np.float64), 1), 0).all():
            what = f"feature {feature.name!r} is categorical, and its column holds fractions"
            raise _invalid("features", what, "make it numeric, or its categories integers or text")
        if declared_text:
            what = f"feature {feature.name!r} declares text categories, and its column holds integers"
            raise _invalid("features", what, "declare integers, or make the column text")
        return True
    if not known.map(lambda value: isinstance(value, str)).all():
        what = f"feature {feature.name!r} is categorical, and its column holds {_held(known)}"
        raise _invalid("features", what, "give it text or integers only")
    if feature.categories and not declared_text:
        what = f"feature {feature.name!r} declares integer categories, and its column holds text"
        raise _invalid("features", what, "declare text, or make the column integers")
    return False


def _label_kind(spec: ModelSpec, target: pd.Series) -> LabelKind:
    known = target.dropna()
    if known.empty:
        raise _invalid("target", f"the target {spec.target!r} is empty", "name the column that holds the truth")
    numeric = pd.api.types.is_numeric_dtype(known.dtype)
    if spec.task == "regression":
        if not numeric or not np.isfinite(known.to_numpy(dtype=np.float64)).all():
            what = f"the target {spec.target!r} of a regression holds {_held(known)}"
            raise _invalid("target", what, "give it finite numbers, or write task='classification'")
        return "number"
    if known.nunique() < 2:
        what = f"the target {spec.target!r} holds one class only"
        raise _invalid("target", what, "a classification needs two classes or more")
    if _are_booleans(known):
        return "integer"
    if numeric:
        if not np.equal(np.mod(known.to_numpy(dtype=np.float64), 1), 0).all():
            what = f"the target {spec.target!r} of a classification holds fractions"
            raise _invalid("target", what, "make its classes integers or text, or write task='regression'")
        return "integer"
    if not known.map(lambda value: isinstance(value, str)).all():
        what = f"the target {spec.target!r} holds {_held(known)}"
        raise _invalid("target", what, "make its classes all text or all integers")
    return "string"


def _with_classes(schema: Schema, target: pd.Series) -> Schema:
    if schema.task == "regression":
        return schema
    known = sorted(target.dropna().unique())
    classes = tuple(str(c) for c in known) if schema.label == "string" else tuple(int(c) for c in known)
    return Schema.from_json(schema.to_json() | {"classes": classes})


def _held(known: pd.Series) -> str:
    kinds = sorted({type(value).__name__ for value in known.head(1000)})
    return " and ".join(kinds) if len(kinds) <= 2 else ", ".join(kinds)


def _missing(field: str, column: str, spec: ModelSpec, source: pd.DataFrame) -> SpecInvalid:
    there = ", ".join(map(str, source.columns[:12])) + (" …" if len(source.columns) > 12 else "")
    return _invalid(field, f"the source {spec.source!r} has no column {column!r}", f"its columns are {there}")


def _invalid(field: str, what: str, remedy: str) -> SpecInvalid:
    return SpecInvalid(f"{field}: {what}; {remedy}", field=field, remedy=remedy)
