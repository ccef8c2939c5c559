"""Open Inference Protocol v2 answers: which outputs there are, which are asked for, and how they are written."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import msgspec
import numpy as np

from service.domain.errors import InvalidRequest
from service.domain.spec import Schema
from service.serving.batcher import Answered
from service.serving.bundle import Bundle
from service.serving.examine import shown
from service.serving.tensors import DATATYPES, TEXT, Parameters, Request
from service.storage.ids import QuotedIds

__all__ = ["Chosen", "Content", "choose", "outputs", "write"]

LABELS = {"string": TEXT, "integer": "INT64", "number": "FP64"}
_encode = msgspec.json.Encoder().encode
_LENGTH = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class Chosen:
    """One output as it is asked for."""

    name: str
    is_binary: bool


@dataclass(frozen=True, slots=True)
class Content:
    """An answer's bytes."""

    body: bytes
    head_bytes: int | None
    """How much of it is JSON, if binary tensors follow."""


def outputs(bundle: Bundle) -> list[dict[str, Any]]:
    """Return the outputs of a version, as its metadata names them."""
    found: list[dict[str, Any]] = [
        {"name": "predictions", "datatype": LABELS[bundle.schema.label], "shape": [-1]},
        {"name": "ids", "datatype": TEXT, "shape": [-1]},
    ]
    if bundle.has_probabilities:
        shape = [-1, len(bundle.classes)]
        found.insert(1, {"name": "probabilities", "datatype": "FP64", "shape": shape})
    return found


def choose(request: Request, bundle: Bundle) -> list[Chosen]:
    """Return the outputs that the request wants, in its order; all of them if it names none.

    Raises
    ------
    InvalidRequest
        If it names one twice, or one that the version has not, or wants one in a way that is not there.
    """
    names = ["predictions", "probabilities", "ids"] if bundle.has_probabilities else ["predictions", "ids"]
    is_binary = _flag(request.parameters, "binary_data_output", default=False)
    if not request.outputs:
        return [Chosen(name, is_binary) for name in names]
    chosen = []
    for asked in request.outputs:
        if asked.name not in names:
            msg = f"output {shown(asked.name)!r} is none of {', '.join(names)}"
            raise InvalidRequest(msg)
        parameters = asked.parameters or {}
        strange = parameters.keys() & {"classification", "shared_memory_region"}
        if strange:
            msg = f"output {asked.name!r}: {min(strange)} is not done here"
            raise InvalidRequest(msg)
        chosen.append(Chosen(asked.name, _flag(parameters, "binary_data", default=is_binary)))
    if len({one.name for one in chosen}) < len(chosen):
        msg = "an output is asked for twice"
        raise InvalidRequest(msg)
    return chosen


def write(answered: Answered, request_id: str | None, chosen: Sequence[Chosen]) -> Content:
    """Return the answer; bundle, rows and outputs are those of one request."""
    bundle = answered.bundle
    parameters: dict[str, Any] = {"version": bundle.version, "generation": bundle.generation}
    if bundle.classes:
        parameters["classes"] = _encode(bundle.classes).decode()
    if not answered.ids:
        parameters["recorded"] = False
    blobs: list[bytes] = []
    tensors = []
    for one in chosen:
        tensor = _described(answered, one.name)
        if one.is_binary:
            blobs.append(_binary(answered, one.name, tensor["datatype"]))
            tensor["parameters"] = {"binary_data_size": len(blobs[-1])}
        else:
            tensor["data"] = _plain(answered, one.name)
        tensors.append(tensor)
    answer: dict[str, Any] = {"model_name": bundle.model, "model_version": str(bundle.version)}
    if request_id is not None:
        answer["id"] = request_id
    head = _encode({**answer, "parameters": parameters, "outputs": tensors})
    return Content(b"".join([head, *blobs]), len(head)) if blobs else Content(head, None)


def _described(answered: Answered, name: str) -> dict[str, Any]:
    schema: Schema = answered.bundle.schema
    rows = len(answered.outputs)
    if name == "predictions":
        return {"name": name, "datatype": LABELS[schema.label], "shape": [rows]}
    if name == "probabilities":
        return {"name": name, "datatype": "FP64", "shape": [rows, len(answered.bundle.classes)]}
    return {"name": name, "datatype": TEXT, "shape": [len(answered.ids)]}


def _plain(answered: Answered, name: str) -> Any:
    if name == "predictions":
        return answered.outputs
    if name == "probabilities":
        return list(chain.from_iterable(answered.probabilities or ()))
    ids = answered.ids
    return msgspec.Raw(ids.json()) if isinstance(ids, QuotedIds) and ids else list(ids)


def _binary(answered: Answered, name: str, datatype: str) -> bytes:
    if name == "ids":
        ids = answered.ids
        return ids.prefixed() if isinstance(ids, QuotedIds) else b"".join(map(_Prefixed().__getitem__, ids))
    values = answered.outputs if name == "predictions" else answered.probabilities
    if datatype == TEXT:
        return b"".join(map(_Prefixed().__getitem__, answered.outputs))  # few classes, many rows
    return np.array(values, dtype=DATATYPES[datatype]).tobytes()


class _Prefixed(dict[str, bytes]):
    """Texts with their length before them, each made once."""

    def __missing__(self, text: str) -> bytes:
        raw = text.encode()
        self[text] = made = _LENGTH.pack(len(raw)) + raw
        return made


def _flag(parameters: Parameters, name: str, *, default: bool) -> bool:
    value = parameters.get(name, default)
    if isinstance(value, bool):
        return value
    msg = f"{name} must be true or false"
    raise InvalidRequest(msg)
