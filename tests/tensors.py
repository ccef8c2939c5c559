"""Open Inference Protocol bodies, put together by hand: rows as tensors, requests as bytes, answers as plain values."""

import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray

from tests.served import FLIP

__all__ = ["LENGTH", "answers", "as_binary", "as_json", "columns", "datatype", "matrix", "raw"]

LENGTH = "Inference-Header-Content-Length"
DATATYPES = {
    "bool": "BOOL", "int8": "INT8", "int16": "INT16", "int32": "INT32", "int64": "INT64", "uint8": "UINT8",
    "uint16": "UINT16", "uint32": "UINT32", "uint64": "UINT64", "float16": "FP16", "float32": "FP32",
    "float64": "FP64", "object": "BYTES",
}  # fmt: skip
KINDS = {name: kind for kind, name in DATATYPES.items()}


def columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, NDArray[Any]]:
    """Return rows of `FLIP` as one array a feature."""
    kinds = {"a": "float64", "b": "float64", "n": "float64", "on": "bool", "zone": "int64"}
    return {name: np.array([row[name] for row in rows], dtype=kind) for name, kind in kinds.items()}


def matrix(rows: Sequence[Mapping[str, Any]], kind: str = "float64") -> dict[str, NDArray[Any]]:
    """Return rows as one array of all features."""
    return {"x": np.array([[row[name] for name in FLIP.names] for row in rows], dtype=np.float64).astype(kind)}


def datatype(values: NDArray[Any]) -> str:
    """Return an array's datatype."""
    return DATATYPES[values.dtype.name]


def raw(values: NDArray[Any]) -> bytes:
    """Return an array as binary data."""
    if values.dtype != np.object_:
        return values.astype(values.dtype.newbyteorder("<")).tobytes()
    texts = [text if isinstance(text, bytes) else str(text).encode() for text in values.reshape(-1)]
    return b"".join(struct.pack("<I", len(text)) + text for text in texts)


def as_json(tensors: Mapping[str, NDArray[Any]], *, nested: bool = False, **frame: Any) -> dict[str, Any]:
    """Return a request without binary data; NaN becomes null."""
    inputs = []
    for name, values in tensors.items():
        data = values if nested else values.reshape(-1)
        plain = data.astype(object)
        if values.dtype.kind == "f":
            plain[np.isnan(data)] = None
        inputs.append({"name": name, "shape": list(values.shape), "datatype": datatype(values), "data": plain.tolist()})
    return {"inputs": inputs, **frame}


def as_binary(tensors: Mapping[str, NDArray[Any]], **frame: Any) -> tuple[bytes, dict[str, str]]:
    """Return body and headers of a request with binary data."""
    blobs = [raw(values) for values in tensors.values()]
    inputs = [
        {
            "name": name,
            "shape": list(values.shape),
            "datatype": datatype(values),
            "parameters": {"binary_data_size": len(blob)},
        }
        for (name, values), blob in zip(tensors.items(), blobs, strict=True)
    ]
    head = json.dumps({"inputs": inputs, **frame}).encode()
    return head + b"".join(blobs), {LENGTH: str(len(head))}


def answers(response: httpx.Response) -> dict[str, Any]:
    """Return a response's outputs by name, as flat lists, whatever form they came in."""
    assert response.status_code == 200, response.text
    length = response.headers.get(LENGTH)
    head, rest = (response.content, b"") if length is None else _cut(response.content, int(length))
    found: dict[str, Any] = {}
    for output in json.loads(head)["outputs"]:
        size = output.get("parameters", {}).get("binary_data_size")
        if size is None:
            found[output["name"]] = output["data"]
        else:
            blob, rest = _cut(rest, size)
            found[output["name"]] = _values(blob, output["datatype"])
        assert len(found[output["name"]]) == np.prod(output["shape"])
    assert rest == b""
    return found


def _values(blob: bytes, name: str) -> list[Any]:
    if name != "BYTES":
        return list(np.frombuffer(blob, dtype=KINDS[name]).tolist())
    texts = []
    while blob:
        text, blob = _cut(blob[4:], struct.unpack("<I", blob[:4])[0])
        texts.append(text.decode())
    return texts


def _cut(content: bytes, at: int) -> tuple[bytes, bytes]:
    return content[:at], content[at:]
