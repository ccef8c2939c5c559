"""What the Open Inference Protocol tells beside answers: who lives, who is ready, which tensors a model takes."""

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, FastAPI
from fastapi import Path as InPath
from pydantic import BaseModel
from starlette.requests import Request

from service.api.infer import the_champion
from service.domain.errors import InvalidRequest, NoChampion
from service.serving.bundle import Bundle
from service.serving.examine import parse_json
from service.serving.outputs import outputs
from service.serving.worker import Worker

__all__ = ["EXTENSIONS", "router"]

EXTENSIONS = ["binary_tensor_data", "parameters"]
PLATFORMS = {"scikit-learn": "sklearn_joblib", "onnx": "onnxruntime_onnx"}
WAITING = "no champion yet: its first version is still to be trained, or did not load"

Version = Annotated[str, InPath(description="The champion's number: no other version answers.")]


class Server(BaseModel):
    """The service."""

    name: str
    version: str
    extensions: list[str]


class Live(BaseModel):
    """The process lives."""

    live: bool


class Ready(BaseModel):
    """Predictions are answered."""

    ready: bool


class ModelReady(Ready):
    """One model's predictions are answered."""

    name: str


class TensorWords(BaseModel):
    """A tensor; -1 stands for the number of rows."""

    name: str
    datatype: str
    shape: list[int]


class ModelWords(BaseModel):
    """A model as its champion takes and gives it."""

    name: str
    versions: list[str]
    """The champion's number alone."""
    platform: str
    inputs: list[TensorWords]
    """One a feature, in the order in which one tensor [n, features] holds them all."""
    outputs: list[TensorWords]
    parameters: dict[str, str | int]
    """Generation, name of the input that may hold the event time, and the classes as JSON text."""


class Indexed(BaseModel):
    """A model in the index."""

    name: str
    version: str | None = None
    state: str
    reason: str


INDEX: dict[str, Any] = {
    "requestBody": {
        "required": False,
        "content": {
            "application/json": {
                "schema": {"type": "object", "properties": {"ready": {"type": "boolean"}}},
            }
        },
    }
}


def router(worker: Worker, app: FastAPI) -> APIRouter:
    """Return the routes; they read what the worker holds, and no database."""
    api = APIRouter(prefix="/v2", tags=["open inference protocol"])
    _add_health(api, worker)
    _add_models(api, worker)

    @api.get("", summary="Name, version, and what of the protocol's extensions is here")
    @api.get("/", include_in_schema=False)
    async def server() -> Server:
        return Server(name="retrue", version=app.version, extensions=EXTENSIONS)

    @api.post(
        "/repository/index",
        summary="All models; with ready only those that answer",
        openapi_extra=INDEX,
        response_model_exclude_none=True,
    )
    async def index(request: Request) -> list[Indexed]:
        is_ready_only = _wants_ready(await request.body())
        found = [_indexed(name, bundle) for name, bundle in sorted(worker.slots.bundles().items())]
        return [one for one in found if one.state == "READY" or not is_ready_only]

    return api


def _add_health(api: APIRouter, worker: Worker) -> None:
    @api.get("/health/live", summary="Whether the process lives")
    async def live() -> Live:
        return Live(live=True)

    @api.get("/health/ready", summary="Whether predictions are answered, as /readyz finds")
    async def ready() -> Ready:
        await worker.probe()
        return Ready(ready=True)

    async def model_ready(model: str, version: str | None = None) -> ModelReady:
        bundle = the_champion(worker.slots.take(model), version)
        if not await worker.answers(bundle):
            msg = "the model does not answer now"
            raise NoChampion(msg, model=model, retry_after_s=1)
        return ModelReady(name=model, ready=True)

    @api.get("/models/{model}/ready", summary="Whether the model answers: asks it for a prediction")
    async def champion_ready(model: str) -> ModelReady:
        return await model_ready(model)

    @api.get("/models/{model}/versions/{version}/ready", summary="Whether that version is champion, and answers")
    async def version_ready(model: str, version: Version) -> ModelReady:
        return await model_ready(model, version)


def _add_models(api: APIRouter, worker: Worker) -> None:
    @api.get("/models/{model}", summary="The tensors that the model takes and gives")
    async def champion(model: str) -> ModelWords:
        return _words(worker.slots.take(model))

    @api.get("/models/{model}/versions/{version}", summary="The same, if that version is champion")
    async def one_version(model: str, version: Version) -> ModelWords:
        return _words(the_champion(worker.slots.take(model), version))


def _words(bundle: Bundle) -> ModelWords:
    parameters: dict[str, str | int] = {
        "generation": bundle.generation,
        "event_time_input": bundle.schema.timestamp,
    }
    if bundle.classes:
        parameters["classes"] = msgspec.json.encode(bundle.classes).decode()
    return ModelWords(
        name=bundle.model,
        versions=[str(bundle.version)],
        platform=PLATFORMS[bundle.engine],
        inputs=[TensorWords(**one) for one in bundle.table.inputs],
        outputs=[TensorWords(**one) for one in outputs(bundle)],
        parameters=parameters,
    )


def _indexed(name: str, bundle: Bundle | None) -> Indexed:
    if bundle is None:
        return Indexed(name=name, state="UNAVAILABLE", reason=WAITING)
    return Indexed(name=name, version=str(bundle.version), state="READY", reason="")


def _wants_ready(body: bytes) -> bool:
    if not body.strip():  # as the protocol's own client sends it
        return False
    plain = parse_json(body)
    if isinstance(plain, dict) and plain.keys() <= {"ready"}:
        wanted = plain.get("ready", False)
        if isinstance(wanted, bool):
            return wanted
    msg = 'the body must be empty or {"ready": true or false}'
    raise InvalidRequest(msg)
