"""From a request's tensors to a block, by one version's schema: a tensor a feature, or one tensor for all of them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from service.domain.errors import InvalidRequest, InvalidRows
from service.domain.spec import Feature, Schema
from service.serving.block import Block, Layout
from service.serving.decode import Moment, micros
from service.serving.examine import LISTED, MOMENT, Fault, misnamed, moment_of, odd_faults, refuse, shown
from service.serving.tensors import TEXT, Parameters, Request, Tensor

__all__ = ["Table"]

FORMS = frozenset({"np", "pd"})
"""What a request's `content_type` may say: one tensor for all features, or one a feature."""
_EXACT = 2**53
_FIRST, _LAST = (micros(moment.replace(tzinfo=UTC)) for moment in (datetime.min, datetime.max))  # noqa: DTZ901
_NULL = "must not be null (NaN stands for null)"
_INEXACT = "is held by no 64-bit float exactly: send it as FP64 if it may be rounded"


@dataclass(frozen=True, slots=True)
class Wrong:
    """Values that break the schema for one reason: a mask of shape (n_rows, n_names)."""

    mask: NDArray[np.bool_]
    names: Sequence[str]
    code: str
    detail: str


class Table:
    """Validates tensors by a schema.

    Parameters
    ----------
    schema
        The version's schema.
    """

    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        self._layout = layout = Layout(schema)
        self._features = {feature.name: feature for feature in schema.features}
        self._nullable = np.array([feature.nullable for feature in layout.numeric], dtype=np.bool_)
        self._truths = [place for place, kind in enumerate(layout.kinds) if kind == "boolean"]
        self._integers = [place for place, kind in enumerate(layout.kinds) if kind == "integer"]
        self.inputs: list[dict[str, Any]] = [
            {"name": feature.name, "datatype": self._datatype(feature), "shape": [-1, 1]} for feature in schema.features
        ]
        """As a model's metadata names them."""

    def block(self, request: Request) -> Block:
        """Return the request's rows.

        Raises
        ------
        InvalidRequest
            If a tensor is missing, unknown, or cannot hold the feature it is for.
        InvalidRows
            If rows break the schema; ``facts["errors"]`` names the fields.
        """
        tensors = {tensor.name: tensor for tensor in request.inputs}
        if len(tensors) < len(request.inputs):
            msg = "two inputs have the same name"
            raise InvalidRequest(msg)
        lengths = {tensor.rows for tensor in request.inputs}
        if len(lengths) > 1:
            msg = f"the inputs must have equally many rows; they have {min(lengths)} to {max(lengths)}"
            raise InvalidRequest(msg)
        moments = tensors.pop(self._schema.timestamp, None)
        with np.errstate(invalid="ignore", over="ignore"):
            if self._is_matrix(tensors, _form(request.parameters)):
                (tensor,) = tensors.values()
                numeric, text, wrong = self._of_matrix(tensor)
            else:
                numeric, text, wrong = self._of_columns(tensors)
            wrong += self._broken(numeric)
        times, late = (None, []) if moments is None else self._times(moments)
        if wrong or late:
            raise _refusal([*wrong, *late])
        block = Block(numeric, text, times)
        if self._layout.refusing and (faults := odd_faults(self._layout, block)):
            raise refuse(faults)
        return block

    def _datatype(self, feature: Feature) -> str:
        if self._schema.is_text(feature):
            return TEXT
        if feature.kind == "boolean":
            return "BOOL"
        # Only a float has a value that can stand for null.
        return "INT64" if feature.kind == "categorical" and not feature.nullable else "FP64"

    def _is_matrix(self, tensors: dict[str, Tensor], form: str | None) -> bool:
        if form == "pd" or len(tensors) != 1:
            return False
        (tensor,) = tensors.values()
        width = len(self._features)
        if tensor.width == width and (width > 1 or tensor.name not in self._features):
            return True
        if tensor.name in self._features:
            return False
        msg = (
            f"input {shown(tensor.name)!r} is no feature, so it must hold all of them: shape [n, {width}], in the "
            "order of the model's metadata"
        )
        raise InvalidRequest(msg)

    def _of_matrix(self, tensor: Tensor) -> tuple[NDArray[np.float64], dict[str, list[str | None]], list[Wrong]]:
        for feature in self._schema.features:
            self._check(feature, tensor, "; send one tensor for each feature")
        width, values = len(self._features), tensor.values
        if isinstance(values, list):
            columns = {name: values[place::width] for place, name in enumerate(self._features)}
            return np.empty((tensor.rows, 0)), columns, self._nulls(columns)
        names = self._layout.names
        # A copy in any case: estimators may ask for writable memory, and the body's is not.
        numeric = values.reshape(tensor.rows, width).astype(np.float64)
        inexact = _inexact(values)
        return numeric, {}, [] if inexact is None else [Wrong(inexact.reshape(-1, width), names, "inexact", _INEXACT)]

    def _of_columns(
        self, tensors: dict[str, Tensor]
    ) -> tuple[NDArray[np.float64], dict[str, list[str | None]], list[Wrong]]:
        self._check_names(tensors)
        rows = next(iter(tensors.values())).rows
        numeric = np.empty((rows, len(self._layout.numeric)), dtype=np.float64)
        wrong: list[Wrong] = []
        for place, feature in enumerate(self._layout.numeric):
            tensor = tensors[feature.name]
            self._check(feature, tensor)
            numeric[:, place] = tensor.values
            inexact = _inexact(tensor.values)
            if inexact is not None:
                wrong.append(Wrong(inexact.reshape(-1, 1), (feature.name,), "inexact", _INEXACT))
        text: dict[str, list[str | None]] = {}
        for feature in self._layout.text:
            tensor = tensors[feature.name]
            self._check(feature, tensor)
            text[feature.name] = list(tensor.values)
        return numeric, text, wrong + self._nulls(text)

    def _check_names(self, tensors: dict[str, Tensor]) -> None:
        words = misnamed(tensors, tuple(self._features), self._schema.timestamp, what="inputs")
        if words is not None:
            raise InvalidRequest(words)
        wide = next((tensor for tensor in tensors.values() if tensor.width not in {None, 1}), None)
        if wide is not None:
            msg = f"input {wide.name!r} is one feature: its shape must be [n] or [n, 1]"
            raise InvalidRequest(msg)

    def _check(self, feature: Feature, tensor: Tensor, hint: str = "") -> None:
        """Refuse a tensor whose datatype can't hold the feature at all."""
        if self._schema.is_text(feature):
            words = None if tensor.datatype == TEXT else f"holds strings, which come as {TEXT}"
        elif tensor.datatype == TEXT:
            words = f"holds no strings: send it as {self._datatype(feature)}"
        elif tensor.datatype == "BOOL" and feature.kind != "boolean":
            words = f"holds numbers: send it as {self._datatype(feature)}"
        else:
            words = None
        if words is not None:
            msg = f"feature {feature.name!r} {words}{hint}"
            raise InvalidRequest(msg)

    def _nulls(self, text: dict[str, list[str | None]]) -> list[Wrong]:
        return [
            Wrong(np.array([[value is None] for value in values]), (name,), "null", "must not be null")
            for name, values in text.items()
            if not self._features[name].nullable and None in values
        ]

    def _broken(self, numeric: NDArray[np.float64]) -> list[Wrong]:
        """Return what a number must not be: infinite; null, or neither 0 nor 1, or no integer, where it matters."""
        names, found = self._layout.names, []
        finite = np.isfinite(numeric)
        if not finite.all():
            nulls = np.isnan(numeric)
            found.append(Wrong(~finite & ~nulls, names, "not_finite", "must be finite"))
            found.append(Wrong(nulls & ~self._nullable, names, "null", _NULL))
        if self._truths:
            truths = numeric[:, self._truths]
            mask = (truths != 0) & (truths != 1) & finite[:, self._truths]
            found.append(Wrong(mask, [names[place] for place in self._truths], "type", "must be true or false, 1 or 0"))
        if self._integers:
            integers = numeric[:, self._integers]
            mask = ((integers != np.floor(integers)) | (np.abs(integers) > _EXACT)) & finite[:, self._integers]
            found.append(Wrong(mask, [names[place] for place in self._integers], "type", "must be an integer"))
        return [wrong for wrong in found if wrong.mask.any()]

    def _times(self, tensor: Tensor) -> tuple[NDArray[np.int64] | None, list[Wrong]]:
        name = self._schema.timestamp
        if tensor.width not in {None, 1}:
            msg = f"input {name!r} is the event time: its shape must be [n] or [n, 1]"
            raise InvalidRequest(msg)
        if tensor.datatype == "INT64":
            since = np.asarray(tensor.values, dtype=np.int64)
            mask = (since < _FIRST) | (since > _LAST)
            words = "must be microseconds since 1970"
            return since.copy(), [Wrong(mask.reshape(-1, 1), (name,), "type", words)] if mask.any() else []
        if tensor.datatype != TEXT:
            msg = f"input {name!r} is the event time: send it as {TEXT} (RFC 3339) or INT64 (microseconds since 1970)"
            raise InvalidRequest(msg)
        try:
            moments: Sequence[datetime | None] = msgspec.convert(tensor.values, list[Moment])
        except (msgspec.ValidationError, OverflowError):
            moments = [moment_of(value) for value in tensor.values]
        if None in moments:
            mask = np.array([[moment is None] for moment in moments])
            return None, [Wrong(mask, (name,), "type", MOMENT)]
        return np.array([micros(moment) for moment in moments if moment is not None], dtype=np.int64), []


def _form(parameters: Parameters) -> str | None:
    form = parameters.get("content_type")
    if form is None or form in FORMS:
        return None if form is None else str(form)
    msg = "the request's content_type must be pd or np, or be left out"
    raise InvalidRequest(msg)


def _inexact(values: Any) -> NDArray[np.bool_] | None:
    """Return where an integer of 64 bits is no float64; None: nowhere."""
    if not (isinstance(values, np.ndarray) and values.dtype.kind in "iu" and values.dtype.itemsize == 8):
        return None
    if int(values.min()) >= -_EXACT and int(values.max()) <= _EXACT:
        return None
    floats = values.astype(np.float64)
    end = 2.0 ** (63 if values.dtype.kind == "i" else 64)  # what was rounded up to it no longer is such an integer
    fits = floats < end
    mask: NDArray[np.bool_] = ~fits | (np.where(fits, floats, 0).astype(values.dtype) != values)
    return mask if mask.any() else None


def _refusal(wrong: Iterable[Wrong]) -> InvalidRows:
    """Return the error; only what is listed is looked at one by one, for there may be millions."""
    faults: list[Fault] = []
    total, bad = 0, None
    for one in wrong:
        total += int(one.mask.sum())
        rows = one.mask.any(axis=1)
        bad = rows if bad is None else bad | rows
        first = np.flatnonzero(rows)[:LISTED]
        faults += [
            Fault(int(first[row]), one.names[place], one.code, one.detail)
            for row, place in np.argwhere(one.mask[first])[:LISTED].tolist()
        ]
    faults.sort(key=lambda fault: (fault.row, fault.field))
    return refuse(faults[:LISTED], rows=0 if bad is None else int(bad.sum()), total=total)
