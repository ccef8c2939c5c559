"""The parts of a prediction, each by itself, in µs: run as ``python bench/micro.py [-k decode]``.

What a part costs in a loop of its own is the least it can cost: between others it finds the processor's caches full of
them, and takes two or three times as long.
"""

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest
import uvloop
from prometheus_client import CollectorRegistry
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Scope

from service.api.access import Gate
from service.api.application import Parts, create
from service.api.predict import _content
from service.domain.access import Role, digest_of, key_of
from service.domain.errors import InvalidRows
from service.domain.spec import Feature, Schema
from service.domain.version import VersionState
from service.learning.compiled import compiled
from service.learning.package import golden_frame, package, with_compiled
from service.learning.predictor import Predictor
from service.serving.batcher import Answered, Batcher
from service.serving.block import Block, join
from service.serving.bundle import Bundle, load
from service.serving.keyring import Keyring, Ring
from service.serving.limits import Limits
from service.serving.recorder import Recorder, mint
from service.serving.worker import Worker
from service.storage.artifacts import ArtifactStore
from service.storage.database import Database
from service.storage.keys import KeyRow
from service.storage.records import PredictionBatch, encode
from service.storage.spool import SpoolWriter
from service.storage.versions import VersionRow
from service.telemetry import Telemetry

ROOT = Path(__file__).resolve().parents[1]
FEATURES = tuple(f"f{place}" for place in range(8))
KINDS: dict[str, Callable[[], Any]] = {
    "linear": lambda: make_pipeline(StandardScaler(), LogisticRegression()),
    "boosting": lambda: HistGradientBoostingClassifier(max_iter=100, random_state=0),
    "forest": lambda: RandomForestClassifier(100, random_state=0),
}
ENGINES = ("onnx", "scikit-learn")
FORMS = ("objects", "lists", "columns")
SIZES = (1, 64, 1000)
AT_ONCE = 16
HUNDRED = 100
"""What runs in an event loop is done so often in one round: to enter the loop costs more than it does."""
AT = 1_767_225_600_000_000
ROUND_S = 0.05
"""Each round lasts about so long; the table tells the least and the median of twenty."""

Measure = Callable[[Callable[[], Any]], None]


@pytest.fixture
def measure(benchmark: Any) -> Measure:
    """Return what times a call: so many calls a round that the clock does not matter."""

    def timed(call: Callable[[], Any]) -> None:
        call()
        began = time.perf_counter()
        call()
        taken = max(time.perf_counter() - began, 1e-7)
        benchmark.pedantic(call, iterations=max(int(ROUND_S / taken), 1), rounds=20, warmup_rounds=1)

    return timed


@pytest.fixture(scope="session")
def home() -> Iterator[Path]:
    """Yield a folder below this one's ``.cache``."""
    cache_folder = ROOT / ".cache"
    cache_folder.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="micro-", dir=cache_folder) as name:
        yield Path(name)


@pytest.fixture(scope="session")
def loaded(home: Path) -> Callable[[str, str], Bundle]:
    """Return what gives a bundle by kind and engine, each made once."""
    store = ArtifactStore(home / "artifacts")

    @cache
    def made(kind: str, engine: str) -> Bundle:
        bundle = load(store, _version(store, kind, engine), generation=1)
        if bundle.engine != engine:
            pytest.skip(bundle.fallback or "retrue[onnx] is not installed here")
        return bundle

    return made


@pytest.fixture
def bundle(loaded: Callable[[str, str], Bundle]) -> Bundle:
    """Return the linear model, by scikit-learn."""
    return loaded("linear", "scikit-learn")


@pytest.fixture
def recorder(home: Path) -> Iterator[Recorder]:
    """Yield a recorder on a real spool."""
    one = Recorder(_spool(home), clock_us=lambda: time.time_ns() // 1000)
    yield one
    one.close()


@pytest.mark.parametrize("rows", SIZES)
@pytest.mark.parametrize("form", FORMS)
def test_decode(measure: Measure, bundle: Bundle, form: str, rows: int) -> None:
    """From a body to a block, everything right."""
    body = _body(form, rows)
    measure(lambda: bundle.decoder.decode(body, max_rows=rows))


@pytest.mark.parametrize("rows", SIZES)
def test_examine_bad_rows(measure: Measure, bundle: Bundle, rows: int) -> None:
    """A body in which every row has one wrong field, up to the refusal that names them."""
    plain = msgspec.json.decode(_body("objects", rows))
    for row in plain["instances"]:
        row["f3"] = "much"
    body = msgspec.json.encode(plain)

    def refused() -> None:
        try:
            bundle.decoder.decode(body, max_rows=rows)
        except InvalidRows:
            return
        msg = "wrong rows were taken"
        raise AssertionError(msg)

    measure(refused)


@pytest.mark.parametrize("rows", SIZES)
def test_look_for_odd_values(measure: Measure, bundle: Bundle, rows: int) -> None:
    """Which values lie outside their bounds: for the metrics, on every block."""
    block = _block(bundle, rows)
    measure(lambda: bundle.layout.signals(block))


def test_join(measure: Measure, bundle: Bundle) -> None:
    """Sixteen requests of one row become one block."""
    blocks = [_block(bundle, 1) for _ in range(AT_ONCE)]
    measure(lambda: join(blocks))


@pytest.mark.parametrize("jobs", [1, AT_ONCE])
def test_hand_over_to_the_batcher_a_hundred_times(
    measure: Measure, bundle: Bundle, recorder: Recorder, jobs: int
) -> None:
    """Submit requests of one row, answer them, unrecorded, wake whoever waits; with an estimator that costs nothing."""
    loop = uvloop.new_event_loop()
    still = replace(bundle, estimator=_Still(), classes=(), output_mode="predict")
    block = _block(bundle, 1)

    async def ask(batcher: Batcher) -> None:
        for _ in range(HUNDRED):
            await asyncio.gather(*(batcher.submit(still, block, is_recorded=False) for _ in range(jobs)))

    async def opened() -> Batcher:
        threads = ThreadPoolExecutor(1)
        telemetry = Telemetry(CollectorRegistry())
        return Batcher("m", recorder=recorder, executor=threads, limits=Limits(), telemetry=telemetry)

    batcher = loop.run_until_complete(opened())
    measure(lambda: loop.run_until_complete(ask(batcher)))
    loop.close()


@pytest.mark.parametrize("rows", SIZES)
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", KINDS)
def test_predict(measure: Measure, loaded: Callable[[str, str], Bundle], kind: str, engine: str, rows: int) -> None:
    """One block answered."""
    bundle = loaded(kind, engine)
    block = _block(bundle, rows)
    measure(lambda: bundle.answer(block))


@pytest.mark.parametrize("rows", SIZES)
def test_mint(measure: Measure, rows: int) -> None:
    """Ids for a batch."""
    measure(lambda: mint(rows, AT))


@pytest.mark.parametrize("rows", SIZES)
def test_encode_a_record(measure: Measure, bundle: Bundle, rows: int) -> None:
    """A batch as the spool's bytes."""
    taken = _Taken()
    block = _block(bundle, rows)
    Recorder(taken, clock_us=lambda: AT).record(bundle, block, bundle.answer(block))  # type: ignore[arg-type]
    batch = taken.batches[0]
    measure(lambda: encode(batch))


@pytest.mark.parametrize("rows", SIZES)
def test_record(measure: Measure, bundle: Bundle, recorder: Recorder, rows: int) -> None:
    """Ids, odd values, one append to the spool: all of a batch's recording."""
    block = _block(bundle, rows)
    answers = bundle.answer(block)
    measure(lambda: recorder.record(bundle, block, answers))


@pytest.mark.parametrize("what", ["counter", "histogram", "tally of a counter", "tally of a histogram"])
def test_count(measure: Measure, what: str) -> None:
    """One event counted, in multi-process mode."""
    telemetry = Telemetry(CollectorRegistry())
    counter, histogram = (
        telemetry.requests.labels("m", "predict", "ok"),
        telemetry.request_seconds.labels("m", "predict"),
    )
    calls: dict[str, Callable[[], Any]] = {
        "counter": counter.inc,
        "histogram": lambda: histogram.observe(0.003),
        "tally of a counter": telemetry.counting(counter).inc,
        "tally of a histogram": (lambda tally: lambda: tally.observe(0.003))(telemetry.timing(histogram)),
    }
    measure(calls[what])


@pytest.mark.parametrize("held", [0, 10, 1000])
def test_let_a_request_in(measure: Measure, held: int) -> None:
    """The key of one request, with so many known; 0: open, where no key is asked for."""
    keyring = Keyring()
    gate, scope = Gate(keyring), _scope(100)
    scope["headers"] += _keys(keyring, held)[-1:]
    measure(lambda: gate.admit(scope))


@pytest.mark.parametrize("rows", SIZES)
def test_encode_an_answer(measure: Measure, bundle: Bundle, rows: int) -> None:
    """The response's content."""
    found = bundle.answer(_block(bundle, rows))
    probabilities = None if found.probabilities is None else found.probabilities.tolist()
    answered = Answered(bundle, found.outputs.tolist(), probabilities, mint(rows, AT)[1])
    measure(lambda: _content(answered))


@pytest.mark.parametrize("at_once", [1, AT_ONCE])
@pytest.mark.parametrize("app", ["bare Starlette echo", "Retrue", "Retrue with a key"])
def test_whole_way_a_hundred_times(
    measure: Measure, home: Path, loaded: Callable[[str, str], Bundle], app: str, at_once: int
) -> None:
    """Requests of one row through the application, without HTTP: the compiled linear model, everything on."""
    loop = uvloop.new_event_loop()
    body, headers = _body("objects", 1), []
    if app != "bare Starlette echo":
        worker = loop.run_until_complete(_worker(home, loaded("linear", "onnx")))
        target: ASGIApp = create(Parts(worker=worker, database=None, telemetry=worker.telemetry, home=home))  # type: ignore[arg-type]
        headers = _keys(worker.replica.keyring, 10 if app.endswith("key") else 0)[-1:]
    else:
        target = Starlette(routes=[Route("/v1/models/{model}/predict", _echo, methods=["POST"])])
    message = {"type": "http.request", "body": body, "more_body": False}
    statuses = set()

    async def receive() -> Message:
        return message

    async def send(said: Message) -> None:
        statuses.add(said.get("status", 200))

    async def ask() -> None:
        for _ in range(HUNDRED):
            asked: list[Awaitable[None]] = [target(_scope(len(body), *headers), receive, send) for _ in range(at_once)]
            await asyncio.gather(*asked)

    measure(lambda: loop.run_until_complete(ask()))
    loop.close()
    if statuses != {200}:
        msg = f"answered with {statuses}"
        raise AssertionError(msg)


class _Taken:
    """A spool that keeps batches to itself."""

    def __init__(self) -> None:
        self.batches: list[PredictionBatch] = []

    def append_predictions(self, batch: PredictionBatch) -> None:
        self.batches.append(batch)


class _Still:
    """An estimator that costs nothing."""

    def predict(self, X: Any) -> Any:
        return X[:, 0]


async def _echo(request: Request) -> Response:
    rows = msgspec.json.decode(await request.body())["instances"]
    return Response(msgspec.json.encode({"predictions": [1] * len(rows)}), media_type="application/json")


async def _worker(home: Path, bundle: Bundle) -> Worker:
    database = Database(f"sqlite:///{home / 'micro.db'}")
    telemetry = Telemetry(CollectorRegistry())
    worker = Worker(database, ArtifactStore(home / "artifacts"), spool=_spool(home), telemetry=telemetry)
    worker.slots.bind(bundle)
    return worker


def _keys(keyring: Keyring, held: int) -> list[tuple[bytes, bytes]]:
    """Let `keyring` know so many keys; return the header that sends each."""
    at = datetime(2026, 1, 1, tzinfo=UTC)
    texts = [key_of(place.to_bytes(5, "big"), place.to_bytes(32, "big")) for place in range(held)]
    rows = [
        KeyRow(
            id=text[4:12], name=text[4:12], roles=(Role.PREDICT,), digest=digest_of(text.encode()).hex(),
            created_at=at, created_by="bench", expires_at=None, revoked_at=None, last_used_at=None,
        )
        for text in texts
    ]  # fmt: skip
    keyring.follow(Ring(at, bool(rows), rows))
    return [(b"authorization", f"Bearer {text}".encode()) for text in texts]


def _scope(length: int, *headers: tuple[bytes, bytes]) -> Scope:
    return {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http",
        "path": "/v1/models/linear/predict", "raw_path": b"/v1/models/linear/predict", "query_string": b"",
        "root_path": "", "server": ("127.0.0.1", 80), "client": ("127.0.0.1", 9), "state": {},
        "headers": [(b"host", b"localhost"), (b"content-length", b"%d" % length), *headers],
    }  # fmt: skip


def _spool(home: Path) -> SpoolWriter:
    return SpoolWriter(home / "spool", max_bytes=4 << 20, max_age_s=0.15, cap_bytes=1 << 40, sync=False)


def _rows(n: int) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(n, len(FEATURES))).round(4)


def _body(form: str, n: int) -> bytes:
    rows = _rows(n).tolist()
    if form == "columns":
        return msgspec.json.encode({"columns": dict(zip(FEATURES, map(list, zip(*rows, strict=True)), strict=True))})
    objects = [dict(zip(FEATURES, row, strict=True)) for row in rows]
    return msgspec.json.encode({"instances": rows if form == "lists" else objects})


def _block(bundle: Bundle, n: int) -> Block:
    return bundle.decoder.decode(_body("lists", n), max_rows=n)


def _version(store: ArtifactStore, kind: str, engine: str) -> VersionRow:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(2000, len(FEATURES)))
    y = (X @ rng.normal(size=len(FEATURES)) + rng.normal(size=len(X)) > 0).astype(int)
    schema = Schema(
        model=kind, task="classification", timestamp="at", features=tuple(map(Feature, FEATURES)), label="integer",
        classes=(0, 1),
    )  # fmt: skip
    predictor = Predictor(estimator=KINDS[kind]().fit(X, y), schema=schema, output_mode="argmax")
    frame = pd.DataFrame(X, columns=list(FEATURES))
    packed = package(predictor, frame)
    store.put(packed.artifact)
    if engine == "onnx":
        golden = golden_frame(packed, predictor)
        verdict = compiled(predictor, golden=golden, holdout=frame, budget_s=120, clock=time.monotonic)
        packed = with_compiled(packed, verdict)
        if verdict.content is not None:
            store.put(verdict.content)
    at = pd.Timestamp("2026-01-01", tz="UTC").to_pydatetime()
    return VersionRow(
        model=kind, version=1, state=VersionState.APPROVED, run_id=None, parent=None, artifact=packed.sha256,
        manifest=packed.manifest, lineage={}, metrics={}, reference={}, learned_until=at, created_at=at,
    )  # fmt: skip


def main() -> int:
    """Run this file by pytest, in a process that counts as the service's workers do."""
    with tempfile.TemporaryDirectory() as metrics:
        one = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PROMETHEUS_MULTIPROC_DIR": metrics}
        words = [
            "-q", "-p", "no:cacheprovider", "-p", "no:faker", "-p", "no:schemathesis", "-o", "addopts=",
            "--import-mode=importlib", "--benchmark-columns=min,median,stddev,rounds", "--benchmark-sort=fullname",
            "--benchmark-disable-gc", "--benchmark-timer=time.perf_counter",
        ]  # fmt: skip
        command = [sys.executable, "-m", "pytest", str(Path(__file__).resolve()), *words, *sys.argv[1:]]
        return subprocess.run(command, cwd=ROOT, env={**os.environ, **one}, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
