"""Keys and a real service: start, revocation, secrets, the command line."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from service.api.session import token_of
from service.app import NO_KEYS, NOT_KNOWN, _look_for_keys
from service.domain.access import Role
from service.serving.keyring import WRITE_S
from service.settings import load
from service.storage import audit, keys, sessions
from service.storage.database import Database
from tests.launched import PREDICT, ROWS, Launched, launched, prepared, until

pytestmark = pytest.mark.timeout(400)  # processes start slowly on a busy machine

ROOT = Path(__file__).parents[3]


def retrue(home: Path, *words: str, **environ: str) -> "subprocess.CompletedProcess[str]":
    """Run the command on a home."""
    mine = {name: value for name, value in os.environ.items() if not name.startswith("RETRUE_")}
    mine |= {"RETRUE_HOME": str(home), **environ}
    command = [sys.executable, "-m", "service", *words]
    return subprocess.run(command, cwd=ROOT, env=mine, capture_output=True, text=True, timeout=120, check=False)


def make(database: Database, *roles: Role, name: str = "ada", lasts: timedelta | None = None) -> str:
    with database.write() as conn:
        expires_at = None if lasts is None else database.now(conn) + lasts
        return keys.create(conn, name, roles=roles, expires_at=expires_at, actor="test", reason="test")[1]


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def database(home: Path, database_url: str) -> Iterator[Database]:
    home.mkdir()
    url = database_url if database_url.startswith("postgres") else f"sqlite:///{home / 'retrue.db'}"
    database = prepared(home, url)
    yield database
    database.close()


def url_of(database: Database) -> str:
    return database.engine.url.render_as_string(hide_password=False)


# -- start


@pytest.mark.parametrize("role", ["serve", "api"])
@pytest.mark.parametrize("host", ["0.0.0.0", "::"])  # noqa: S104  what must be refused
def test_bound_to_more_than_this_machine_without_a_key_it_refuses_to_start(home: Path, role: str, host: str) -> None:
    done = retrue(home, role, "--host", host, "--port", "1")
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert f"refusing to listen on {host} without any key" in line
    assert "retrue keys create --role admin --name NAME" in line
    assert "RETRUE_HOST" in line


def test_whether_there_are_keys_is_told_from_a_database_that_is_away(database: Database, home: Path) -> None:
    no_file = Path("no-such.env")
    settings = load(environ={"RETRUE_DATABASE_URL": url_of(database)}, env_file=no_file, home=home)
    assert _look_for_keys(settings) == NO_KEYS
    make(database, Role.VIEWER)
    assert _look_for_keys(settings) == 0
    away = load(environ={"RETRUE_DATABASE_URL": "postgresql://a:b@127.0.0.1:1/x"}, env_file=no_file, home=home)
    assert _look_for_keys(away) == NOT_KNOWN
    empty = load(environ={}, env_file=no_file, home=home / "empty")
    assert _look_for_keys(empty) == NO_KEYS


def test_a_service_of_one_machine_starts_open_and_says_so(home: Path) -> None:
    prepared(home, f"sqlite:///{home / 'retrue.db'}").close()
    with launched(home) as service:
        assert service.predict().status_code == 200
        (line,) = until(lambda: service.said("access_open"), what="saying so")
        assert "one person at one machine" in line["why"]


# -- while it runs


def test_a_key_that_is_revoked_is_refused_by_every_worker_within_seconds(database: Database, home: Path) -> None:
    key, other = make(database, Role.PREDICT, Role.VIEWER), make(database, Role.PREDICT, name="bob")
    with launched(home, url=url_of(database), workers=2) as service:

        def told(one: str) -> set[int]:
            # Each on a connection of its own, for whichever worker takes it.
            return {service.predict(headers=bearer(one)).status_code for _ in range(12)}

        def both_know(count: int, times: int) -> bool:
            workers = [line["role"] for line in service.said("keys_changed", keys=count)]
            return min(workers.count("api-0"), workers.count("api-1")) == times

        # One worker is ready before the other, which knows of no change before it has loaded its version.
        until(lambda: len(service.said("worker_started")) == 2, what="both workers' start")
        assert told(key) == {200}
        assert service.predict().status_code == 401
        with database.write() as conn:
            keys.revoke(conn, "ada", actor="test", reason="test")
        until(lambda: both_know(1, 1), within_s=5, what="both workers' knowing")
        assert (told(key), told(other)) == ({401}, {200})
        fresh = make(database, Role.PREDICT, name="ada")
        until(lambda: both_know(2, 2), within_s=5, what="both workers' knowing")
        assert told(fresh) == {200}

        def used() -> Any:
            with database.read() as conn:
                return next(row.last_used_at for row in keys.list_of(conn) if row.name == "bob")

        # Where the first key's use was written down before this one was used, it has to wait its turn.
        until(used, within_s=WRITE_S + 20, what="the last use")


def test_no_secret_stands_in_any_log_error_figure_or_file(database: Database, home: Path) -> None:
    key, viewer = make(database, Role.ADMIN), make(database, Role.VIEWER, name="bob")
    gone, over = make(database, Role.ADMIN, name="gone"), make(database, Role.ADMIN, name="over", lasts=timedelta(0, 1))
    with database.write() as conn:
        keys.revoke(conn, "gone", actor="test", reason="test")
        session = sessions.begin(conn, key[4:12])
    said: list[str] = []
    with launched(home, url=url_of(database), log_level="debug") as service:
        for one in (key, viewer, gone, over, key[:-1], key[:-1] + "0", key.upper()):
            for method, path, body in (
                ("POST", PREDICT, ROWS),
                ("POST", PREDICT, {"instances": [{"f0": one}]}),
                ("POST", PREDICT, {one: one}),
                ("POST", "/v1/models/price/feedback", {"labels": [{"id": one, "label": one}]}),
                ("POST", "/v1/models/price/runs", {"reason": 1, one: one}),
                ("POST", "/v1/models/price/runs", [one]),
                ("PUT", "/v1/models/price/champion", {"version": one}),
                ("POST", "/v1/keys", {"name": one * 2, "roles": [one], "expires_in": one}),
                ("GET", f"/v1/models?key={one}", None),
                ("GET", f"/v1/runs?limit={one}", None),
            ):
                for headers in (bearer(one), {"Cookie": f"retrue_session={one}", "X-CSRF-Token": one}, {"X-Key": one}):
                    more = {"If-Match": one} if method == "PUT" else {}
                    answer = service.request(method, path, json=body, headers=headers | more)
                    assert answer.status_code < 500
                    said.append(answer.text + str(answer.headers))
        signed_in = {"Cookie": f"retrue_session={session}"}
        assert service.request("GET", "/v1/models", headers=signed_in).status_code == 200
        for token, status in (("", 403), (session, 403), (token_of(session), 200)):
            sent = signed_in | {"X-CSRF-Token": token}
            answer = service.request("PUT", "/v1/models/price/pause", json={"reason": "why"}, headers=sent)
            assert answer.status_code == status, answer.text
            said.append(answer.text + str(answer.headers))
        raw = service.connect()
        raw.sendall(f"NO SUCH {key}\r\nAuthorization: Bearer {key}\r\n\r\n".encode())
        said.append(raw.recv(65536).decode())
        raw.close()
        said.append(service.request("GET", "/metrics").text)
        service.end()
    database.close()
    said += [path.read_bytes().decode("latin-1") for path in home.rglob("*") if path.is_file()]
    assert len(said) > 210
    for secret in (*(one[13:60] for one in (key, viewer, gone, over)), session, token_of(session)):
        assert not [text for text in said if secret in text or secret.upper() in text]


def test_started_while_the_database_is_away_it_knows_the_keys_it_knew_last(home: Path) -> None:
    database = prepared(home, f"sqlite:///{home / 'retrue.db'}")
    key = make(database, Role.PREDICT)
    database.close()
    with launched(home) as service:
        assert service.predict(headers=bearer(key)).status_code == 200
        (home / "retrue.db").rename(home / "elsewhere.db")
        until(lambda: service.said("database_away"), what="noticing")
        assert service.predict(headers=bearer(key)).status_code == 200
        os.kill(service.pid("api-0"), 9)
        answer = until(lambda: _after_restart(service, key), what="an answer of the next worker")
        assert answer == 200
        assert service.predict().status_code == 401


def _after_restart(service: Launched, key: str) -> int | None:
    if len(service.said("child_started", child="api-0")) < 2 or not service.is_ready():
        return None
    return service.predict(headers=bearer(key)).status_code


# -- the command line


def test_keys_are_made_listed_and_revoked_on_the_command_line(home: Path) -> None:
    made = retrue(home, "keys", "create", "--role", "operator", "--role", "predict", "--name", "ci", "--expires", "90d")
    key = made.stdout.strip()
    assert made.returncode == 0, made.stderr
    assert key.startswith("rtr_")
    assert key not in made.stderr
    assert "this once" in made.stderr
    listed = retrue(home, "keys", "list", "--json")
    (row,) = json.loads(listed.stdout)
    assert (row["name"], row["roles"], row["id"]) == ("ci", ["predict", "operator"], key[4:12])
    assert key[13:] not in listed.stdout
    again = retrue(home, "keys", "create", "--role", "viewer", "--name", "ci")
    assert (again.returncode, again.stdout) == (1, "")
    assert "there is a key named ci already" in again.stderr
    for bad in (["--role", "root", "--name", "x"], ["--role", "viewer", "--name", "x", "--expires", "soon"]):
        assert retrue(home, "keys", "create", *bad).returncode == 2
    assert retrue(home, "keys", "revoke", "ci").returncode == 0
    assert retrue(home, "keys", "revoke", "nobody").returncode == 2
    verified = retrue(home, "audit", "verify", "--json")
    assert verified.returncode == 0
    assert json.loads(verified.stdout)["rows"] == 2


def test_verify_names_the_row_and_ends_with_1(home: Path) -> None:
    for name in ("a", "b", "c"):
        retrue(home, "keys", "create", "--role", "viewer", "--name", name)
    whole = retrue(home, "audit", "verify")
    head = whole.stdout.splitlines()[1].split()[1]
    assert whole.returncode == 0
    assert retrue(home, "audit", "verify", "--head", head).returncode == 0
    assert retrue(home, "audit", "verify", "--head", f"3:{'0' * 64}").returncode == 1
    assert retrue(home, "audit", "verify", "--head", "nonsense").returncode == 2
    database = Database(f"sqlite:///{home / 'retrue.db'}")
    with database.write() as conn:
        conn.exec_driver_sql("DROP TRIGGER audit_is_not_altered")
        conn.exec_driver_sql("UPDATE audit SET actor = 'eve' WHERE seq = 2")
    database.close()
    broken = retrue(home, "audit", "verify")
    assert broken.returncode == 1
    assert "row 2 was altered" in broken.stdout
    away = retrue(home, "audit", "verify", RETRUE_DATABASE_URL="postgresql://a:b@127.0.0.1:1/x")
    assert away.returncode == 3


def test_the_command_line_works_with_a_key_and_says_what_a_bad_one_is(database: Database, home: Path) -> None:
    admin, viewer = make(database, Role.ADMIN), make(database, Role.VIEWER, name="bob")
    with launched(home, url=url_of(database)) as service:
        host, port = service.address
        at = {"RETRUE_URL": f"http://{host}:{port}"}
        # On a busy machine the database may be late for the first.
        until(lambda: retrue(home, "status", "--key", viewer, **at).returncode == 0, what="an answer")
        assert retrue(home, "status", RETRUE_API_KEY=viewer, **at).returncode == 0
        without = retrue(home, "status", **at)
        assert (without.returncode, "send a key" in without.stderr) == (1, True)
        refused = retrue(home, "retrain", "price", RETRUE_API_KEY=viewer, **at)
        assert (refused.returncode, "the role operator or admin may" in refused.stderr) == (1, True)
        bad = retrue(home, "status", "--key", admin[:-1], **at)
        assert (bad.returncode, "mistyped" in bad.stderr) == (1, True)
        for done in (without, refused, bad, retrue(home, "status", "--help", RETRUE_API_KEY=admin)):
            assert admin[13:50] not in done.stdout + done.stderr
        assert retrue(home, "switch", "price", "pause", RETRUE_API_KEY=admin, **at).returncode == 0
        made = retrue(home, "keys", "create", "--role", "viewer", "--name", "far", RETRUE_API_KEY=admin, **at)
        assert made.stdout.startswith("rtr_")
        shown = retrue(home, "audit", "--json", RETRUE_API_KEY=admin, **at)
        entry = json.loads(shown.stdout)[1]
        assert (entry["action"], entry["actor"], entry["origin"]["key"]) == ("switch_set", "ada", admin[4:12])
        assert retrue(home, "keys", "revoke", "far", RETRUE_API_KEY=admin, **at).returncode == 0
    with database.read() as conn:
        assert audit.verify(conn) is None
