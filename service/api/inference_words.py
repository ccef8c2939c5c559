"""The Open Inference Protocol's part of the OpenAPI document: its errors, and the routes that FastAPI does not know."""

from typing import Any

from service.api.problems import MEDIA_TYPE
from service.api.protocol import PREFIX
from service.domain.access import Right
from service.serving.tensors import DATATYPES, TEXT

__all__ = ["describe"]

JSON, BINARY = "application/json", "application/octet-stream"
NOT_HERE = ("409", "412", "422", "428")
"""Statuses that nothing under the prefix answers with: a request that is not as it should be gets 400."""
SCALAR = {"type": ["string", "number", "boolean", "null"]}
PARAMETERS = {"type": "object", "additionalProperties": SCALAR}
DATATYPE = {"type": "string", "enum": [*DATATYPES, TEXT]}
SHAPE = {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1, "maxItems": 2}
DATA = {
    "type": "array",
    "description": "Row by row, flat or nested as the shape says; null where a value is unknown.",
    "items": {"anyOf": [SCALAR, {"type": "array", "items": SCALAR}]},
}
SCHEMAS: dict[str, Any] = {
    "InferenceError": {
        "type": "object",
        "required": ["error"],
        "additionalProperties": False,
        "properties": {"error": {"type": "string"}},
    },
    "InferenceInput": {
        "type": "object",
        "required": ["name", "shape", "datatype"],
        "properties": {
            "name": {"type": "string"},
            "shape": SHAPE,
            "datatype": DATATYPE,
            "parameters": PARAMETERS,
            "data": DATA,
        },
    },
    "InferenceOutput": {
        "type": "object",
        "required": ["name", "shape", "datatype"],
        "properties": {
            "name": {"enum": ["predictions", "probabilities", "ids"]},
            "shape": SHAPE,
            "datatype": DATATYPE,
            "parameters": PARAMETERS,
            "data": {"type": "array", "items": SCALAR},
        },
    },
}
REQUEST: dict[str, Any] = {
    "type": "object",
    "required": ["inputs"],
    "properties": {
        "id": {"type": "string"},
        "parameters": PARAMETERS,
        "inputs": {"type": "array", "items": {"$ref": "#/components/schemas/InferenceInput"}},
        "outputs": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["name"],
                "properties": {"name": {"type": "string"}, "parameters": PARAMETERS},
            },
        },
    },
}
ANSWER: dict[str, Any] = {
    "type": "object",
    "required": ["model_name", "model_version", "parameters", "outputs"],
    "properties": {
        "model_name": {"type": "string"},
        "model_version": {"type": "string"},
        "id": {"type": "string"},
        "parameters": PARAMETERS,
        "outputs": {"type": "array", "items": {"$ref": "#/components/schemas/InferenceOutput"}},
    },
}
BYTES = {"type": "string", "format": "binary"}
HOW = (
    "One tensor a feature, [n] or [n, 1], or one tensor [n, features] in the order of the model's metadata; the event "
    "time may come as one more. Binary tensors stand behind the JSON, whose length the header "
    "Inference-Header-Content-Length tells. The answers' ids, which feedback asks for, are the output `ids`; the "
    "parameters of the answer name version, generation and the classes in the order of the probabilities."
)
INFER: dict[str, Any] = {
    "security": [{"key": []}],
    "x-right": Right.PREDICT.value,
    "tags": ["open inference protocol"],
    "description": HOW,
    "requestBody": {"required": True, "content": {JSON: {"schema": REQUEST}, BINARY: {"schema": BYTES}}},
}
REFUSALS = {
    "400": "The request is not what the protocol or the model's schema asks for.",
    "401": "There is no key, or it is wrong, expired or revoked.",
    "403": "The key's roles do not include this.",
    "404": "There is no such model, or that version is not its champion.",
    "405": "This address does not take that method; Allow names those it takes.",
    "408": "The body did not arrive in time.",
    "413": "The body is too large, or holds too many rows.",
    "415": "The body is compressed otherwise than by gzip or deflate.",
    "429": "The key has used up its rate: try again after Retry-After seconds.",
    "500": "Something went wrong inside.",
    "503": "Try again after Retry-After seconds.",
}
HEADERS = {
    "401": ("WWW-Authenticate", "string"),
    "405": ("Allow", "string"),
    "415": ("Accept-Encoding", "string"),
    "429": ("Retry-After", "integer"),
    "503": ("Retry-After", "integer"),
}
ROUTES = {
    "/v2/models/{model}/infer": "Answer rows with the champion",
    "/v2/models/{model}/versions/{version}/infer": "The same, if that version is champion",
}


def describe(document: dict[str, Any]) -> None:
    """Add the routes to an OpenAPI document, and tell errors under the prefix in the protocol's form."""
    document["components"]["schemas"].update(SCHEMAS)
    for path, methods in document["paths"].items():
        if path.startswith(PREFIX):
            for operation in methods.values():
                operation["responses"] = _responses(operation["responses"])
    for path, summary in ROUTES.items():
        names = [part[1:-1] for part in path.split("/") if part.startswith("{")]
        parameters = [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names]
        answered = {JSON: {"schema": ANSWER}, BINARY: {"schema": BYTES}}
        responses = {"200": {"description": "Answered.", "content": answered}} | {
            status: _error(words, status) for status, words in REFUSALS.items()
        }
        document["paths"][path] = {
            "post": {**INFER, "summary": summary, "parameters": parameters, "responses": responses}
        }


def _responses(told: dict[str, Any]) -> dict[str, Any]:
    return {
        status: _error(response["description"], status) if MEDIA_TYPE in response.get("content", {}) else response
        for status, response in told.items()
        if status not in NOT_HERE
    }


def _error(words: str, status: str) -> dict[str, Any]:
    told: dict[str, Any] = {
        "description": words,
        "content": {JSON: {"schema": {"$ref": "#/components/schemas/InferenceError"}}},
    }
    if status in HEADERS:
        name, kind = HEADERS[status]
        told["headers"] = {name: {"schema": {"type": kind}}}
    return told
