"""OpenAPI: the routes' own description, and for each model the real shape of its rows and answers."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from service.api import inference_words
from service.api.routes import ROUTES
from service.domain.access import Right
from service.domain.spec import Feature, Schema
from service.serving.slot import Slots

__all__ = ["install"]

PROBLEM = {
    "type": "object",
    "required": ["type", "title", "status", "detail", "code"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "code": {"type": "string"},
        "errors": {"type": "array", "items": {"type": "object"}},
    },
}
STATUSES = {
    "400": "The body is not what the protocol asks for.",
    "401": "There is no key, or it is wrong, expired or revoked.",
    "403": "The key's roles do not include this.",
    "404": "There is no such thing.",
    "405": "This address does not take that method; Allow names those it takes.",
    "408": "The body did not arrive in time.",
    "413": "The body is too large.",
    "415": "The body is compressed otherwise than by gzip or deflate.",
    "422": "Rows break the model's schema; errors names every field of every row.",
    "429": "The key has used up its rate: try again after Retry-After seconds.",
    "500": "Something went wrong inside.",
    "503": "Try again after Retry-After seconds.",
}
GENERAL = {status: words for status, words in STATUSES.items() if status != "422"}
"""What holds for every route."""
HEADERS = {
    "401": ("WWW-Authenticate", "string"),
    "405": ("Allow", "string"),
    "415": ("Accept-Encoding", "string"),
    "429": ("Retry-After", "integer"),
    "503": ("Retry-After", "integer"),
}
REFUSED = ("400", "401", "403", "404", "405", "408", "409", "412", "413", "415", "422", "428", "429", "500", "503")
KEYED: dict[str, Any] = {"security": [{"key": []}]}
SCHEMES = {
    "key": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "rtr_<id>_<secret>",
        "description": "Needed once a key was made. x-right names what the key's roles must include.",
    }
}
IDS = {"type": "array", "items": {"type": "string", "format": "uuid"}}
MOMENT = {"type": "string", "format": "date-time"}


def install(app: FastAPI, slots: Slots) -> None:
    """Make `app` describe the models that it serves now."""
    base: dict[str, Any] = {}

    def described() -> dict[str, Any]:
        if not base:
            base.update(get_openapi(title=app.title, version=app.version, summary=app.summary, routes=app.routes))
            _with_problems(base)
            inference_words.describe(base)
        paths = dict(base["paths"])
        bundles = {name: bundle for name, bundle in slots.bundles().items() if bundle is not None}
        for name, bundle in bundles.items():
            paths[f"/v1/models/{name}/predict"] = {"post": _predict(bundle.schema)}
            paths[f"/v1/models/{name}/feedback"] = {"post": _feedback(bundle.schema)}
        return {**base, "paths": dict(sorted(paths.items()))}

    app.openapi = described  # type: ignore[method-assign]  # FastAPI's documented way to extend it


def _with_problems(document: dict[str, Any]) -> None:
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    schemas["Problem"] = PROBLEM
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    document["components"]["securitySchemes"] = SCHEMES
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            if right := _right(path, method):
                operation.update(KEYED | {"x-right": right})
            for status in REFUSED:
                if status == "422" or status not in operation["responses"]:
                    operation["responses"][status] = _problem(status, GENERAL.get(status, "The request is refused."))


def _right(path: str, method: str) -> str | None:
    declared = ROUTES.get(path) or ROUTES.get(path.replace("{switch}", "{switch:switch}")) or {}
    right = declared.get(method.upper())
    return None if right is None else right.value


def _problem(status: str, description: str) -> dict[str, Any]:
    reference = {"$ref": "#/components/schemas/Problem"}
    told: dict[str, Any] = {
        "description": description,
        "content": {"application/problem+json": {"schema": reference}},
    }
    if status in HEADERS:
        name, kind = HEADERS[status]
        told["headers"] = {name: {"schema": {"type": kind}}}
    return told


def _operation(summary: str, tag: str, body: dict[str, Any], status: str, answer: dict[str, Any]) -> dict[str, Any]:
    return {
        **KEYED,
        "x-right": Right.PREDICT.value,
        "tags": [tag],
        "summary": summary,
        "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
        "responses": {
            status: {"description": "Answered.", "content": {"application/json": {"schema": answer}}},
            **{code: _problem(code, words) for code, words in STATUSES.items()},
        },
    }


def _predict(schema: Schema) -> dict[str, Any]:
    properties = {feature.name: _value(schema, feature) for feature in schema.features}
    row = _object({**properties, schema.timestamp: MOMENT}, required=list(schema.names))
    plain = {
        "type": "array",
        "minItems": len(schema.features),
        "maxItems": len(schema.features),
        "prefixItems": list(properties.values()),
    }
    split = _object(
        {
            "columns": {"const": list(schema.names), "description": "In any order; the event time may be among them."},
            "data": {"type": "array", "minItems": 1, "items": plain},
            "index": {"type": "array"},
        },
        required=["columns", "data"],
    )
    columns = {name: {"type": "array", "minItems": 1, "items": value} for name, value in properties.items()}
    by_column = _object({**columns, schema.timestamp: {"type": "array", "items": MOMENT}}, required=list(schema.names))
    instances = [{"type": "array", "minItems": 1, "items": item} for item in (row, plain)]
    body = {
        "oneOf": [
            *(_object({"instances": form}, required=["instances"]) for form in instances),
            _object({"columns": by_column}, required=["columns"]),
            _object({"dataframe_split": split}, required=["dataframe_split"]),
        ]
    }
    output = _label(schema)
    answer = {
        "model": {"const": schema.model},
        "version": {"type": "integer"},
        "generation": {"type": "integer"},
        "predictions": {"type": "array", "items": output},
        "ids": IDS,
    }
    if schema.classes:
        answer["classes"] = {"type": "array", "items": output}
        answer["probabilities"] = {
            "type": "array",
            "description": "One list a row, in the order of classes; absent where the model has none.",
            "items": {"type": "array", "items": {"type": "number"}},
        }
    answer["recorded"] = {
        "const": False,
        "description": "Stands there only if the rows could not be written down, which the model's spec allows: then "
        "ids is empty.",
    }
    required = ["model", "version", "generation", "predictions", "ids"]
    summary = f"Answer rows with the champion of {schema.model}; each answer has an id for its feedback"
    return _operation(summary, schema.model, body, "200", _object(answer, required=required))


def _feedback(schema: Schema) -> dict[str, Any]:
    item = _object(
        {"id": {"type": "string", "format": "uuid"}, "label": _label(schema), "observed_at": MOMENT},
        required=["id", "label"],
    )
    body = _object({"labels": {"type": "array", "minItems": 1, "items": item}}, required=["labels"])
    answer = {
        "model": {"const": schema.model},
        "accepted": {"type": "integer"},
        "refused": {"type": "integer"},
        "errors": {"type": "array", "items": {"type": "object"}},
    }
    summary = (
        f"Send the truth for earlier answers of {schema.model}: good items are accepted, bad ones named; the same "
        "label twice is one, a later one corrects"
    )
    return _operation(summary, schema.model, body, "202", _object(answer, required=list(answer)))


def _object(properties: dict[str, Any], *, required: list[str]) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": False, "properties": properties, "required": required}


def _value(schema: Schema, feature: Feature) -> dict[str, Any]:
    if feature.kind == "categorical":
        value: dict[str, Any] = {"type": "string" if schema.is_text(feature) else "integer"}
        if feature.categories is not None:
            value["enum" if feature.refuse else "examples"] = list(feature.categories)
    else:
        value = {"type": "number" if feature.kind == "numeric" else "boolean"}
    for bound, name in ((feature.low, "minimum"), (feature.high, "maximum")):
        if bound is not None and feature.refuse:
            value[name] = bound
        elif bound is not None:
            value[f"x-expected-{name}"] = bound
    return {"anyOf": [value, {"type": "null"}]} if feature.nullable else value


def _label(schema: Schema) -> dict[str, Any]:
    return {"type": schema.label}
