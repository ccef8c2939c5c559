"""Open Inference Protocol v2 requests: a body, JSON alone or JSON and binary tensors behind it, becomes named tensors.

What is wrong with a request as a whole is said here, before a model's schema is looked at. Numbers come out of the body
with no look at each by itself.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from service.domain.errors import InvalidRequest
from service.serving.decode import too_many
from service.serving.examine import parse_json, shown

__all__ = ["DATATYPES", "TEXT", "Asked", "Extent", "Parameters", "Request", "Tensor", "read"]

TEXT = "BYTES"
DATATYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    **{
        f"{sign}INT{8 * size}": np.dtype(f"<{sign.lower() or 'i'}{size}") for sign in ("", "U") for size in (1, 2, 4, 8)
    },
    **{f"FP{8 * size}": np.dtype(f"<f{size}") for size in (2, 4, 8)},
}
"""What numbers may come as; `TEXT` stands beside them."""
CONTENT_TYPES = frozenset({"np", "pd", "str", "datetime"})
"""What one tensor's `content_type` may say: nothing that its datatype and the schema did not say already."""
Parameters = dict[str, bool | int | float | str | None]
_LENGTH = struct.Struct("<I")
_JSON_KINDS: dict[str, Any] = {"BOOL": bool | None, TEXT: str | None} | {
    name: float | None if kind.kind == "f" else int for name, kind in DATATYPES.items() if name != "BOOL"
}
_LISTED = {name: (list[kind], list[list[kind]]) for name, kind in _JSON_KINDS.items()}  # type: ignore[valid-type]
_DECODERS = {name: tuple(msgspec.json.Decoder(kind) for kind in kinds) for name, kinds in _LISTED.items()}


class Head(msgspec.Struct, gc=False):
    """What an input says of itself."""

    name: str
    shape: list[int]
    datatype: str
    parameters: Parameters | None = None


class RawInput(Head, gc=False):
    """An input whose data is still JSON."""

    data: msgspec.Raw = msgspec.Raw()


class PlainInput(Head):
    """An input of a body that only Python's own reader takes, as when NaN stands in it."""

    data: Any = msgspec.UNSET


class Asked(msgspec.Struct, gc=False):
    """An output that is asked for."""

    name: str
    parameters: Parameters | None = None


class Frame(msgspec.Struct):
    """A request around its inputs."""

    id: str | None = None
    parameters: Parameters | None = None
    outputs: list[Asked] | None = None


class RawFrame(Frame, kw_only=True):
    """As it mostly comes."""

    inputs: list[RawInput]


class PlainFrame(Frame, kw_only=True):
    """As Python's own reader gives it."""

    inputs: list[PlainInput]


_REQUEST = msgspec.json.Decoder(RawFrame)


@dataclass(frozen=True, slots=True)
class Tensor:
    """One input.

    Attributes
    ----------
    width
        Values of a row; None where the shape is [n].
    values
        Row by row. Numbers are an array (with NaN where JSON had null), text is a list.
    """

    name: str
    datatype: str
    rows: int
    width: int | None
    values: NDArray[Any] | list[str | None]


@dataclass(frozen=True, slots=True)
class Request:
    """All that one request says."""

    id: str | None
    parameters: Parameters
    inputs: list[Tensor]
    outputs: list[Asked]


@dataclass(frozen=True, slots=True)
class Extent:
    """How large the tensors of a request may be."""

    rows: int
    features: int


def read(body: bytes, *, head_bytes: int | None, extent: Extent) -> Request:
    """Return the request in `body`.

    Parameters
    ----------
    head_bytes
        How much of the body is JSON, if the request says so: then binary tensors follow.
    extent
        What is more is refused before it is looked at.

    Raises
    ------
    InvalidRequest, BodyTooLarge
        If the body is not what the protocol asks for, or holds too many rows.
    """
    head, blobs = _parts(body, head_bytes)
    try:
        frame: RawFrame | PlainFrame = _REQUEST.decode(head)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        frame = _plain(bytes(head))
    if frame.id is not None and not _is_text(frame.id):
        raise _wrong("id holds half of a character")
    given: Sequence[RawInput | PlainInput] = frame.inputs
    if len(given) > extent.features + 1:
        raise _wrong(
            f"{len(given)} inputs are more than the model has features ({extent.features}), event time included"
        )
    inputs, place = [], 0
    for one in given:
        tensor, place = _tensor(one, blobs, place, extent)
        inputs.append(tensor)
    if blobs is not None and place != len(blobs):
        raise _wrong(f"{len(blobs) - place} bytes of binary data are left over: the inputs name only {place}")
    return Request(frame.id, frame.parameters or {}, inputs, frame.outputs or [])


def _parts(body: bytes, head_bytes: int | None) -> tuple[bytes | memoryview, memoryview | None]:
    if head_bytes is None:
        return body, None
    if head_bytes > len(body):
        raise _wrong(f"Inference-Header-Content-Length is {head_bytes}, but the body has only {len(body)} bytes")
    if not head_bytes:
        raise _wrong("Inference-Header-Content-Length is 0: a body without a JSON head is not taken here")
    view = memoryview(body)
    return view[:head_bytes], view[head_bytes:]


def _plain(head: bytes) -> PlainFrame:
    plain = parse_json(head)
    try:
        return msgspec.convert(plain, PlainFrame)
    except (msgspec.ValidationError, RecursionError, OverflowError) as error:
        raise _wrong(f"the request is not what the protocol asks for: {error}") from None


def _tensor(one: RawInput | PlainInput, blobs: memoryview | None, place: int, extent: Extent) -> tuple[Tensor, int]:
    name, parameters = shown(one.name), one.parameters or {}
    if one.datatype not in _JSON_KINDS:
        raise _wrong(f"input {name!r}: its datatype is none of {', '.join(_JSON_KINDS)}")
    rows, width = _shape(name, one.shape, extent)
    if "shared_memory_region" in parameters:
        raise _wrong(f"input {name!r}: shared memory is not taken here; send its data")
    if parameters.get("content_type", "np") not in CONTENT_TYPES:
        raise _wrong(f"input {name!r}: its content_type is none of {', '.join(sorted(CONTENT_TYPES))}")
    count = rows * (1 if width is None else width)
    size = parameters.get("binary_data_size")
    has_data = len(one.data) > 0 if isinstance(one, RawInput) else one.data is not msgspec.UNSET
    if size is None:
        if not has_data:
            raise _wrong(f"input {name!r} has no data")
        values = _of_json(name, one, count, width)
        return Tensor(one.name, one.datatype, rows, width, values), place
    if has_data:
        raise _wrong(f"input {name!r} has both data and binary_data_size")
    if isinstance(size, bool) or not isinstance(size, int) or size < 0:
        raise _wrong(f"input {name!r}: binary_data_size must be a number of bytes")
    if blobs is None:
        raise _wrong(f"input {name!r} is binary: then the header Inference-Header-Content-Length must be sent")
    if size > len(blobs) - place:
        raise _wrong(f"input {name!r} has {size} bytes, but only {len(blobs) - place} are left of the body")
    blob = blobs[place : place + size]
    return Tensor(one.name, one.datatype, rows, width, _of_blob(name, one.datatype, blob, count)), place + size


def _shape(name: str, shape: Sequence[int], extent: Extent) -> tuple[int, int | None]:
    if len(shape) not in {1, 2} or min(shape) < 0:
        raise _wrong(f"input {name!r}: its shape must be [n] or [n, k]")
    rows, width = shape[0], shape[1] if len(shape) == 2 else None
    if width not in {None, 1, extent.features}:
        raise _wrong(
            f"input {name!r}: its shape must be [n, {extent.features}] for all features at once, and [n] or [n, 1] for "
            "one of them"
        )
    if not rows:
        raise _wrong(f"input {name!r} has no rows: send at least one")
    if rows > extent.rows:
        raise too_many(rows, extent.rows)
    return rows, width


def _of_blob(name: str, datatype: str, blob: memoryview, count: int) -> NDArray[Any] | list[str | None]:
    if datatype == TEXT:
        return _texts(name, bytes(blob), count)
    kind = DATATYPES[datatype]
    if len(blob) != count * kind.itemsize:
        wanted = count * kind.itemsize
        raise _wrong(f"input {name!r} has {len(blob)} bytes; its shape and datatype ask for {wanted}")
    if datatype == "BOOL":
        bits = np.frombuffer(blob, dtype=np.uint8)
        if bits.max() > 1:  # as a truth value such a byte would not be equal to true
            raise _wrong(f"input {name!r}: a byte of a BOOL tensor must be 0 or 1")
    return np.frombuffer(blob, dtype=kind)


def _texts(name: str, blob: bytes, count: int) -> list[str | None]:
    values: list[str | None] = []
    at, end = 0, len(blob)
    try:
        for _ in range(count):
            (size,) = _LENGTH.unpack_from(blob, at)
            at += _LENGTH.size
            if size > end - at:
                raise _wrong(f"input {name!r}: an element is longer than what is left of the tensor")
            values.append(blob[at : at + size].decode())
            at += size
    except struct.error:
        raise _wrong(f"input {name!r} holds {len(values)} elements; its shape asks for {count}") from None
    except UnicodeDecodeError:
        raise _wrong(f"input {name!r}: element {len(values)} is not UTF-8") from None
    if at != end:
        raise _wrong(f"input {name!r} holds more than the {count} elements of its shape")
    return values


def _of_json(name: str, one: RawInput | PlainInput, count: int, width: int | None) -> NDArray[Any] | list[str | None]:
    is_nested = _is_nested(one)
    try:
        if isinstance(one, RawInput):
            values: list[Any] = _DECODERS[one.datatype][is_nested].decode(one.data)
        else:
            values = msgspec.convert(one.data, _LISTED[one.datatype][is_nested])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, OverflowError) as error:
        raise _wrong(f"input {name!r}: its data is no list of {one.datatype}: {error}") from None
    if is_nested:
        if set(map(len, values)) != {width}:
            raise _wrong(f"input {name!r}: its data is not nested as its shape says")
        values = list(chain.from_iterable(values))
    if len(values) != count:
        raise _wrong(f"input {name!r} has {len(values)} values; its shape asks for {count}")
    if one.datatype != TEXT:
        return _numbers(name, one.datatype, values)
    if not _is_text("".join(filter(None, values))):
        raise _wrong(f"input {name!r} holds half of a character")
    return values


def _is_nested(one: RawInput | PlainInput) -> bool:
    if isinstance(one, RawInput):
        return b"".join(bytes(memoryview(one.data)[:16]).split()).startswith(b"[[")
    return isinstance(one.data, list) and bool(one.data) and isinstance(one.data[0], list)


def _numbers(name: str, datatype: str, values: list[Any]) -> NDArray[Any]:
    kind = DATATYPES[datatype]
    if kind.kind in "iu":
        try:
            return np.array(values, dtype=kind)
        except OverflowError:
            raise _wrong(f"input {name!r}: a value does not fit {datatype}") from None
    # As written, not rounded to the datatype: what the digits say is what /v1 would take.
    numbers = np.array(values, dtype=np.float64)
    if datatype in {"FP16", "FP32"} and (np.isfinite(numbers) & (np.abs(numbers) > np.finfo(kind).max)).any():
        raise _wrong(f"input {name!r}: a value does not fit {datatype}")
    return numbers


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _wrong(words: str) -> InvalidRequest:
    return InvalidRequest(words)
