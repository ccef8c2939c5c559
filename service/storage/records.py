"""What the spool holds: batches of answered rows and of labels, and their form as framed records.

A record is magic, length and crc32 of its payload; the payload is a length, a msgpack header, and raw arrays. It needs
no schema from elsewhere: the header names the columns and their kinds.
"""

import math
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
import numpy as np

__all__ = ["MAGIC", "Dropped", "LabelBatch", "LabelKind", "PredictionBatch", "encode", "scan"]

LabelKind = Literal["string", "integer", "number"]
NumericKind = Literal["numeric", "boolean", "integer"]

MAGIC = b"RTR1"
_FRAME = struct.Struct("<4sII")
_LENGTH = struct.Struct("<I")


class PredictionBatch(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Rows that one bundle answered together. A Struct: one is made for every batch, and a dataclass takes its time."""

    model: str
    version: int
    generation: int
    answered_at_us: int
    """Wall clock, microseconds since 1970."""
    ids: np.ndarray
    """Raw UUIDv7s, uint8, shape (n, 16)."""
    event_time_us: np.ndarray
    """Microseconds since 1970, int64, shape (n,)."""
    numeric_names: Sequence[str]
    numeric_kinds: Sequence[NumericKind]
    """Of each numeric column: `numeric`, `boolean` (0, 1), or `integer` (an integer category)."""
    numeric: np.ndarray
    """float64, shape (n, k); null is NaN."""
    text: dict[str, list[str | None]] = msgspec.field(default_factory=dict)
    """Columns of string categories."""
    output: np.ndarray | list[str]
    """float64 or int64 of shape (n,), or strings."""
    probabilities: np.ndarray | None = None
    """float64, shape (n, c)."""
    classes: Sequence[str] | Sequence[int] = ()
    signals: dict[str, int] = msgspec.field(default_factory=dict)
    """Counts of what was odd about the rows (unseen categories, values out of range)."""

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, kw_only=True)
class LabelBatch:
    """Labels as they were accepted."""

    model: str
    kind: LabelKind
    """Type of the model's labels: `Schema.label`."""
    ids: list[str]
    """Canonical texts."""
    labels: list[Any]
    observed_at_us: list[int]
    received_at_us: int

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Dropped:
    """Bytes of a segment that are no record."""

    size_bytes: int
    is_tail: bool
    """Whether it is only a record cut short at the end: its writer died before it could answer."""


def encode(batch: PredictionBatch | LabelBatch) -> list[Any]:
    """Return the record as buffers to be written one after the other."""
    header, arrays = _of_predictions(batch) if isinstance(batch, PredictionBatch) else _of_labels(batch)
    head = _ENCODER.encode(header)
    # Joined, though that copies: most batches have a few rows, and there each buffer of its own costs more than that.
    payload = b"".join([_LENGTH.pack(len(head)), head, *[array.data for array in arrays]])
    return [_FRAME.pack(MAGIC, len(payload), zlib.crc32(payload)), payload]


def scan(data: bytes) -> Iterator[PredictionBatch | LabelBatch | Dropped]:
    """Yield the records of a segment, and what lies between them that is none.

    After damage it goes on at the next place where a whole record stands, so that one bad byte costs one record.
    """
    position, bad_from = 0, None
    while position < len(data):
        payload = _payload(data, position)
        batch = None if payload is None else _decode(payload)
        if batch is None:
            bad_from = position if bad_from is None else bad_from
            following = data.find(MAGIC, position + 1)
            position = len(data) if following < 0 else following
            continue
        if bad_from is not None:
            yield Dropped(position - bad_from, is_tail=False)
            bad_from = None
        yield batch
        position += _FRAME.size + len(payload or b"")
    if bad_from is not None:
        yield Dropped(len(data) - bad_from, is_tail=_is_cut_short(data, bad_from))


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder()


def _of_predictions(batch: PredictionBatch) -> tuple[dict[str, Any], list[np.ndarray]]:
    output, n = batch.output, len(batch.ids)
    header: dict[str, Any] = {
        "k": "p",
        "model": batch.model,
        "version": batch.version,
        "generation": batch.generation,
        "at": batch.answered_at_us,
        "n": n,
        "names": batch.numeric_names,
        "kinds": batch.numeric_kinds,
        "text": batch.text,
        "classes": batch.classes,
        "c": 0 if batch.probabilities is None else batch.probabilities.shape[1],
        "signals": batch.signals,
    }
    arrays: list[np.ndarray] = [
        np.ascontiguousarray(batch.ids, np.uint8),
        np.ascontiguousarray(batch.event_time_us, np.int64),
        np.ascontiguousarray(batch.numeric, np.float64),
    ]
    if isinstance(output, np.ndarray) and output.dtype.kind in "fiub":
        is_integer = output.dtype.kind != "f"
        header["output"] = "i" if is_integer else "f"
        arrays.append(np.ascontiguousarray(output, np.int64 if is_integer else np.float64))
    else:
        header["output"] = output if isinstance(output, list) else output.tolist()
    if batch.probabilities is not None:
        arrays.append(np.ascontiguousarray(batch.probabilities, np.float64))
    return header, [array for array in arrays if array.size]


def _of_labels(batch: LabelBatch) -> tuple[dict[str, Any], list[np.ndarray]]:
    header = {
        "k": "l",
        "model": batch.model,
        "kind": batch.kind,
        "ids": batch.ids,
        "labels": batch.labels,
        "observed": batch.observed_at_us,
        "received": batch.received_at_us,
    }
    return header, []


def _payload(data: bytes, position: int) -> bytes | None:
    start = position + _FRAME.size
    if start > len(data):
        return None
    magic, size, crc = _FRAME.unpack_from(data, position)
    payload = data[start : start + size]
    return payload if magic == MAGIC and len(payload) == size and zlib.crc32(payload) == crc else None


def _is_cut_short(data: bytes, position: int) -> bool:
    left = len(data) - position
    if left < _FRAME.size:
        return MAGIC.startswith(data[position : position + len(MAGIC)][: len(MAGIC)])
    magic, size, _ = _FRAME.unpack_from(data, position)
    return magic == MAGIC and left < _FRAME.size + int(size)


def _decode(payload: bytes) -> PredictionBatch | LabelBatch | None:
    try:
        (size,) = _LENGTH.unpack_from(payload)
        header = _DECODER.decode(memoryview(payload)[_LENGTH.size : _LENGTH.size + size])
        if header["k"] == "l":
            return _labels(header)
        return _predictions(header, payload, _LENGTH.size + size)
    except (msgspec.DecodeError, KeyError, TypeError, ValueError, struct.error):
        return None  # a whole frame with a content that is not ours: set aside like any damage


def _labels(header: dict[str, Any]) -> LabelBatch:
    return LabelBatch(
        model=header["model"],
        kind=header["kind"],
        ids=header["ids"],
        labels=header["labels"],
        observed_at_us=header["observed"],
        received_at_us=header["received"],
    )


def _predictions(header: dict[str, Any], payload: bytes, start: int) -> PredictionBatch:
    n, k, c = header["n"], len(header["names"]), header["c"]
    place = start

    def take(kind: Any, shape: tuple[int, ...]) -> np.ndarray:
        nonlocal place
        array = np.frombuffer(payload, kind, count=math.prod(shape), offset=place).reshape(shape)
        place += array.nbytes
        return array

    ids, event_time = take(np.uint8, (n, 16)), take(np.int64, (n,))
    numeric = take(np.float64, (n, k))
    output = header["output"]
    if isinstance(output, str):
        output = take(np.int64 if output == "i" else np.float64, (n,))
    return PredictionBatch(
        model=header["model"],
        version=header["version"],
        generation=header["generation"],
        answered_at_us=header["at"],
        ids=ids,
        event_time_us=event_time,
        numeric_names=header["names"],
        numeric_kinds=header["kinds"],
        numeric=numeric,
        text=header["text"],
        output=output,
        probabilities=take(np.float64, (n, c)) if c else None,
        classes=header["classes"],
        signals=header["signals"],
    )
