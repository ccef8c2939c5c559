"""The typed client: values with types, errors with kinds, and a second try only where it can do no harm."""

import inspect
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from service import client
from service.client import (
    Accepted,
    BadInput,
    ClientError,
    InTheWay,
    NotNow,
    NotThere,
    Predicted,
    Refused,
    Retrue,
    RunReport,
    StillRunning,
    TooOften,
    TooSlow,
    Unreachable,
)
from service.client.transport import Transport
from service.domain.run import RunState
from service.domain.spec import Feature, Schema
from tests.commanded import Wire
from tests.served import crown, instance, pack, register
from tests.unit.api.conftest import Api, running
from tests.unit.api.test_control import move

DOCUMENT = Path(__file__).parents[3] / "docs" / "cli.md"
ANSWER = {"model": "m", "version": 1, "generation": 1, "predictions": [1], "ids": ["x"]}
LABELLED = {"model": "m", "accepted": 1, "refused": 0, "errors": []}
RUN: dict[str, Any] = {
    "id": "r", "model": "m", "state": "queued", "trigger": "manual", "reason": "w", "attempt": 1,
    "requested_at": "2026-01-01T00:00:00Z",
}  # fmt: skip


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    with running(tmp_path) as made:
        yield made


@pytest.fixture
def retrue(api: Api) -> Iterator[Retrue]:
    with Retrue("http://retrue", http=Wire(api.client)) as made:
        yield made


class Flaky(httpx.BaseTransport):
    """Fails some times, then answers."""

    def __init__(self, failures: int, failure: httpx.Response | type[Exception], answer: Any) -> None:
        self.left, self.failure, self.answer = failures, failure, answer
        self.seen: list[httpx.Request] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.seen.append(request)
        self.left -= 1
        if self.left < 0:
            return httpx.Response(200, json=self.answer)
        if isinstance(self.failure, httpx.Response):
            return httpx.Response(self.failure.status_code, headers=self.failure.headers, json={"detail": "busy"})
        raise self.failure("it broke")


BUSY = httpx.Response(503, headers={"Retry-After": "2"})
SAFE: dict[str, tuple[Callable[[Retrue], Any], Any]] = {
    "models": (lambda r: r.models(), {"models": []}),
    "explanation": (lambda r: r.explanation("c"), {}),
    "dry_run": (lambda r: r.dry_run("m", {}), {}),
    "feedback": (lambda r: r.feedback("m", [{"id": "x", "label": 1}]), LABELLED),
    "retrain": (lambda r: r.retrain("m", reason="w"), RUN),
    "cancel": (lambda r: r.cancel("r", reason="w"), RUN),
    "clear_switch": (lambda r: r.clear_switch("m", "pin", reason="w"), {}),
}
UNSAFE: dict[str, Callable[[Retrue], Any]] = {
    "predict": lambda r: r.predict("m", [{}]),
    "promote": lambda r: r.promote("m", 1, generation=1, reason="w"),
    "rollback": lambda r: r.rollback("m", reason="w"),
    "approve": lambda r: r.approve("r", reason="w"),
    "reject": lambda r: r.reject("r", reason="w"),
    "start_check": lambda r: r.start_check("m"),
    "set_switch": lambda r: r.set_switch("m", "pin", reason="w"),
    "accept": lambda r: r.accept("m", reason="w"),
    "create_key": lambda r: r.create_key("n", roles=["viewer"], reason="w"),
}


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return what the client slept."""
    slept: list[float] = []
    monkeypatch.setattr("service.client.retrue.Transport", partial(Transport, sleep=slept.append))
    return slept


@pytest.mark.parametrize("failure", [BUSY, httpx.ReadError, httpx.ReadTimeout, httpx.ConnectError])
@pytest.mark.parametrize("name", sorted(SAFE))
def test_what_can_do_no_harm_twice_is_tried_again(name: str, failure: Any, pauses: list[float]) -> None:
    ask, answer = SAFE[name]
    http = Flaky(2, failure, answer)
    with Retrue("http://retrue", http=http) as retrue:
        ask(retrue)
    assert len(http.seen) == 3
    assert pauses == ([2.0, 2.0] if failure is BUSY else [0.1, 0.2])
    assert len({request.headers.get("idempotency-key") for request in http.seen}) == 1


@pytest.mark.parametrize("failure", [BUSY, httpx.ReadError, httpx.ReadTimeout])
@pytest.mark.parametrize("name", sorted(UNSAFE))
def test_what_may_have_arrived_is_never_sent_twice(name: str, failure: Any, pauses: list[float]) -> None:
    http = Flaky(1, failure, ANSWER)
    with Retrue("http://retrue", http=http) as retrue, pytest.raises(ClientError):
        UNSAFE[name](retrue)
    assert (len(http.seen), pauses) == (1, [])


def test_every_method_that_changes_something_is_known_to_be_safe_or_not() -> None:
    methods = {name: inspect.getsource(method) for name, method in vars(Retrue).items() if inspect.isfunction(method)}
    changing = {name for name, text in methods.items() if "self._wire.change(" in text and not name.startswith("_")}
    assert {"predict", "retrain"} < changing
    assert changing - {"revoke_key"} <= SAFE.keys() | UNSAFE.keys()


@pytest.mark.usefixtures("pauses")
def test_a_retrain_has_a_fresh_idempotency_key_each_time_unless_one_is_given() -> None:
    http = Flaky(0, BUSY, RUN)
    with Retrue("http://retrue", http=http) as retrue:
        retrue.retrain("m", reason="w")
        retrue.retrain("m", reason="w")
        retrue.retrain("m", reason="w", key="mine")
    keys = [request.headers["idempotency-key"] for request in http.seen]
    assert len(set(keys)) == 3
    assert keys[2] == "mine"


@pytest.mark.parametrize(("status", "kind"), [(503, NotNow), (429, TooOften)])
def test_a_pause_that_is_too_long_is_the_callers_to_take(status: int, kind: type[Refused], pauses: list[float]) -> None:
    http = Flaky(1, httpx.Response(status, headers={"Retry-After": "60"}), {"models": []})
    with Retrue("http://retrue", http=http) as retrue, pytest.raises(kind) as caught:
        retrue.models()
    assert (pauses, caught.value.retry_after_s) == ([], 60.0)


@pytest.mark.usefixtures("pauses")
def test_a_refusal_is_not_asked_again() -> None:
    http = Flaky(1, httpx.Response(404), {"models": []})
    with Retrue("http://retrue", http=http) as retrue, pytest.raises(NotThere):
        retrue.models()
    assert len(http.seen) == 1


@pytest.mark.usefixtures("pauses")
def test_nobody_and_nobody_in_time_are_told_apart_and_no_password_is_told() -> None:
    for failure, kind in ((httpx.ReadTimeout, TooSlow), (httpx.ConnectError, Unreachable)):
        with Retrue("http://me:hunter2@retrue:81", http=Flaky(9, failure, {})) as retrue:
            with pytest.raises(Unreachable) as caught:
                retrue.models()
            assert type(caught.value) is kind
            assert "http://retrue:81" in str(caught.value)
            assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../runs", "a\\b"])
def test_a_name_never_leads_to_another_address(name: str) -> None:
    with Retrue("http://retrue", http=Flaky(0, BUSY, {})) as retrue:
        for ask in (retrue.model, retrue.run, retrue.versions, retrue.prediction, partial(retrue.cancel, reason="w")):
            with pytest.raises(ValueError, match="no name or id"):
                ask(name)


@pytest.mark.usefixtures("pauses")
def test_strange_names_are_quoted() -> None:
    http = Flaky(0, BUSY, {})
    with Retrue("http://retrue/below/", http=http) as retrue:
        retrue.model("a?b#c d%2F")
    assert http.seen[0].url.raw_path == b"/below/v1/models/a%3Fb%23c%20d%252F"


def test_predictions_and_labels_have_types(retrue: Retrue) -> None:
    answer = retrue.predict("flip", [instance(), instance(a=9)])
    assert isinstance(answer, Predicted)
    assert (answer.model, answer.version, answer.generation, answer.recorded) == ("flip", 1, 1, True)
    assert answer.classes == ["DOWN", "UP"]
    assert len(answer.ids) == len(answer.predictions) == len(answer.probabilities or ()) == 2
    accepted = retrue.feedback("flip", [{"id": answer.ids[0], "label": "UP"}, {"id": answer.ids[1], "label": 7}])
    assert isinstance(accepted, Accepted)
    assert (accepted.accepted, accepted.refused, accepted.errors[0]["item"]) == (1, 1, 1)
    assert accepted.document["model"] == "flip"


def test_a_bad_row_is_bad_input_that_names_the_field(retrue: Retrue) -> None:
    with pytest.raises(BadInput) as caught:
        retrue.predict("flip", [instance(a="x"), instance(zone=None)])
    assert (caught.value.status, caught.value.code) == (422, "invalid-rows")
    assert [(fault["row"], fault["field"]) for fault in caught.value.errors] == [(0, "a"), (1, "zone")]


def test_a_run_is_waited_for_until_it_ends_or_waits(api: Api, retrue: Retrue) -> None:
    run = retrue.retrain("flip", reason="why")
    with pytest.raises(InTheWay) as caught:
        retrue.retrain("flip", reason="why")
    assert caught.value.problem["run"] == run["id"]
    with pytest.raises(StillRunning, match="goes on"):
        retrue.wait_for_run(run["id"], deadline_s=0.0, poll_s=0.0)
    states = iter([RunState.PREPARING, RunState.SKIPPED])
    seen: list[str] = []

    def look(report: RunReport) -> None:
        seen.append(report.state)
        if not report.is_over:
            move(api, run["id"], next(states))

    report = retrue.wait_for_run(run["id"], poll_s=0.0, seen=look)
    assert (report.state, report.is_over, report.is_waiting, report.is_promoted) == ("skipped", True, False, False)
    assert seen == ["queued", "preparing", "skipped"]
    assert (report.model, report.trigger, report.reason, report.attempt) == ("flip", "manual", "why", 1)
    assert retrue.has_changed


@pytest.mark.usefixtures("pauses")
@pytest.mark.parametrize("failure", [BUSY, httpx.ConnectError])
def test_a_wait_outlives_a_restart_of_the_service_and_no_longer(failure: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Restarting(Flaky):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            if not self.seen:
                self.seen.append(request)
                return httpx.Response(200, json=RUN)
            return super().handle_request(request)

    ended = RUN | {"state": "skipped"}
    with Retrue("http://retrue", http=Restarting(7, failure, ended)) as retrue:
        assert retrue.wait_for_run("r", poll_s=0.0).state == "skipped"
    with Retrue("http://retrue", http=Flaky(7, failure, ended)) as retrue, pytest.raises((Unreachable, NotNow)):
        retrue.wait_for_run("r", poll_s=0.0)  # there never was a service
    monkeypatch.setattr("service.client.retrue.LOST_S", 0.0)
    with Retrue("http://retrue", http=Restarting(7, failure, ended)) as retrue, pytest.raises((Unreachable, NotNow)):
        retrue.wait_for_run("r", poll_s=0.0)


def test_a_gate_is_read_into_clauses() -> None:
    clause = {"name": "floor", "outcome": "pass", "value": 0.7, "threshold": 0.5, "n": 9, "reason": "enough"}
    report = RunReport.of(RUN | {"state": "probation", "gate": {"clauses": [clause | {"later": 1}]}, "version": 2})
    assert (report.clauses[0].name, report.clauses[0].value, report.is_promoted) == ("floor", 0.7, True)
    assert report.is_waiting


@pytest.fixture
def electricity(api: Api) -> Wire:
    """Return the way to an application that serves the model of the document's example."""
    schema = Schema(
        model="electricity", task="classification", timestamp="at", label="string", classes=("DOWN", "UP"),
        features=(Feature("period"), Feature("nswprice")),
    )  # fmt: skip
    register(api.database, schema)
    X = np.array([[0.1, 0.1], [0.9, 0.9]])
    estimator = LogisticRegression().fit(X, ["DOWN", "UP"])
    rows = [{"period": step / 8, "nswprice": 0.5} for step in range(8)]
    crown(api.database, pack(api.store, schema, estimator, rows=rows))
    api.worker.replica.look()
    return Wire(api.client)


def test_the_documents_example_runs(
    api: Api, electricity: Wire, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), flags=re.DOTALL)

    def end_the_run(request: httpx.Request) -> None:
        run_id = request.url.path.rpartition("/")[2]
        if request.method == "GET" and "/runs/" in request.url.path:
            move(api, run_id, RunState.PREPARING, RunState.SKIPPED)

    electricity.before = end_the_run
    monkeypatch.setattr(client, "Retrue", partial(Retrue, http=electricity))
    exec(compile(example, str(DOCUMENT), "exec"), {})  # noqa: S102  our own document
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("1 [")
    assert lines[1] == "1 []"
    assert "period" in lines[2]
    assert lines[3] == "skipped None []"
