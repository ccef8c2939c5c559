"""The real command, in processes of its own, against a service that was launched."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service.domain.run import RunState
from service.storage import runs
from tests.launched import ROOT, Launched, launched, prepared, until

TIMEOUT_S = 300


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launched]:
    home = tmp_path_factory.mktemp("service") / "home"
    home.mkdir()
    prepared(home, f"sqlite:///{home / 'retrue.db'}").close()
    with launched(home) as running:
        yield running


def environ(service: Launched) -> dict[str, str]:
    host, port = service.address
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("RETRUE_", "_RETRUE_"))}
    return clean | {
        "RETRUE_URL": f"http://{host}:{port}", "RETRUE_HOME": str(service.home), "RETRUE_PORT": str(port),
        "RETRUE_MODELS_FOLDER": str(service.home / "models"), "PYTHONPATH": str(ROOT),
    }  # fmt: skip


def retrue(service: Launched, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "service", *words],
        env=environ(service), cwd=service.home, input=stdin, capture_output=True, text=True, timeout=TIMEOUT_S,
        check=False,
    )  # fmt: skip


def document(service: Launched, *words: str, stdin: str = "") -> Any:
    done = retrue(service, *words, "--json", stdin=stdin)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return json.loads(done.stdout)


@pytest.mark.timeout(900)
def test_the_real_command_asks_a_real_service(service: Launched) -> None:
    (model,) = document(service, "status")
    assert (model["name"], model["champion"]["version"]) == ("price", 1)
    assert {"switches", "last_run", "last_check", "serving", "suggestion", "probation"} <= model.keys()
    assert [row["version"] for row in document(service, "versions", "price")] == [1]

    rows = "f0,f1,f2,f3,f4,f5,f6,f7\n" + "1,2,3,4,5,6,7,8\n" * 3
    predicted = document(service, "predict", "price", "--batch", "2", stdin=rows)
    assert predicted.keys() == {"model", "rows", "predictions"}
    assert [row.keys() for row in predicted["predictions"]] == [
        {"row", "prediction", "id", "version", "generation"}
    ] * 3  # fmt: skip
    truths = "id,label\n" + "".join(f"{row['id']},1.5\n" for row in predicted["predictions"])
    assert document(service, "label", "price", stdin=truths)["accepted"] == 3

    run = document(service, "retrain", "price", "--reason", "test")
    assert (run["state"], run["reason"]) == ("queued", "test")
    shown = retrue(service, "runs")
    assert (shown.returncode, run["id"] in shown.stdout) == (0, True)
    assert document(service, "cancel", run["id"])["state"] == "cancelled"
    assert document(service, "runs", run["id"])["events"][-1]["after"] == "cancelled"
    assert document(service, "pin", "price")["name"] == "pin"
    refused = retrue(service, "rollback", "price")
    assert (refused.returncode, refused.stderr.count("\n"), refused.stdout) == (1, 1, "")
    assert document(service, "unpin", "price")["value"] is False

    examined = retrue(service, "doctor", "--json")
    found = {one["name"]: one["health"] for one in json.loads(examined.stdout)["findings"]}
    assert (found["port"], found["workers"], found["database"], found["service"]) == ("ok",) * 4, examined.stdout
    assert (examined.returncode, found["controller"]) == (1, "wrong"), "only the API runs here"


@pytest.fixture
def heeds_ctrl_c() -> Iterator[None]:
    """Let children heed Ctrl-C even where the tests run in the background, and with that ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heeds_ctrl_c")
@pytest.mark.timeout(600)
def test_ctrl_c_ends_the_wait_and_the_run_goes_on(service: Launched) -> None:
    waiting = subprocess.Popen(
        [sys.executable, "-m", "service", "retrain", "price", "--wait"],
        env=environ(service), cwd=service.home, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert waiting.stdout is not None
    assert "queued" in waiting.stdout.readline()
    waiting.send_signal(signal.SIGINT)
    _, said = waiting.communicate(timeout=TIMEOUT_S)
    assert (waiting.returncode, said.count("\n")) == (130, 1), said
    run = document(service, "runs", "--limit", "1")[0]
    assert run["state"] == "queued"
    assert f"retrue runs {run['id']} --watch" in said
    assert document(service, "cancel", run["id"])["state"] == "cancelled"


@pytest.mark.timeout(600)
def test_watching_writes_each_change_at_once_as_a_line_of_json(service: Launched) -> None:
    from service.storage.database import Database

    run_id = document(service, "retrain", "price", "--force")["id"]
    database = Database(f"sqlite:///{service.home / 'retrue.db'}")
    states = []
    with subprocess.Popen(
        [sys.executable, "-m", "service", "runs", "price", "--watch", "--json"],
        env=environ(service), cwd=service.home, stdout=subprocess.PIPE, text=True,
    ) as watching:  # fmt: skip
        assert watching.stdout is not None
        for state in (RunState.PREPARING, RunState.SKIPPED, None):
            line = json.loads(watching.stdout.readline())
            states.append(line["state"])
            assert line["id"] == run_id
            if state is not None:
                with database.write() as conn:
                    runs.transition(conn, run_id, state, actor="t", reason="t", at=database.now(conn))
        assert watching.wait(TIMEOUT_S) == 0
    assert states == ["queued", "preparing", "skipped"]
    database.close()


@pytest.mark.timeout(600)
def test_a_shell_is_offered_the_services_models(service: Launched) -> None:
    asked = {"_RETRUE_COMPLETE": "complete_bash", "COMP_WORDS": "retrue status ", "COMP_CWORD": "2"}

    def offered() -> list[str]:
        done = subprocess.run(
            [sys.executable, "-m", "service"],
            env=environ(service) | asked, cwd=service.home, capture_output=True, text=True, timeout=TIMEOUT_S,
            check=False,
        )  # fmt: skip
        assert done.stderr == ""
        return done.stdout.split()

    # On a crowded machine the service may need longer than the second that completion waits.
    assert until(offered, within_s=300, what="an offer") == ["price"]


def test_a_verb_that_needs_no_settings_stumbles_over_none(service: Launched, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "service", "version", "--json"],
        env=environ(service) | {"RETRUE_PROT": "1"}, cwd=tmp_path, capture_output=True, text=True, timeout=TIMEOUT_S,
        check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
