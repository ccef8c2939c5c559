"""The doctor: every damage is found, named, and has a remedy; what is well is left in peace."""

import os
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from sqlalchemy import text, update

from service.control.leader import LEASE
from service.domain.errors import LakeUnavailable
from service.storage import champions, leases, models, replicas, tables
from service.storage.artifacts import ArtifactStore
from service.storage.database import Database
from tests.commanded import Command, Nobody, Ran
from tests.migrated import migrated
from tests.served import FLIP, crown, flip, pack, register


class Patient(NamedTuple):
    """A home with one champion, and the doctor."""

    home: Path
    database: Database
    retrue: Command
    monkeypatch: pytest.MonkeyPatch

    def examine(self, *words: str) -> Ran:
        return self.retrue("doctor", *words, "--json")


@pytest.fixture
def patient(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Patient]:
    home = tmp_path / "home"
    database = migrated(home / "retrue.db")
    for folder in ("lake", "spool"):
        (home / folder).mkdir()
    register(database, FLIP)
    crown(database, pack(ArtifactStore(home / "artifacts"), FLIP, flip()))
    command = Command(Nobody(), tmp_path / "folder", monkeypatch=monkeypatch, capsys=capsys)
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        monkeypatch.setenv("RETRUE_PORT", str(probe.getsockname()[1]))
    monkeypatch.setenv("RETRUE_HOME", str(home))
    usage = shutil.disk_usage(home)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=50 << 30))
    yield Patient(home, database, command, monkeypatch)
    database.close()


def findings(ran: Ran, health: str) -> dict[str, str]:
    return {
        one["name"]: f"{one['words']} -> {one['remedy']}" for one in ran.json["findings"] if one["health"] == health
    }


def test_a_healthy_home_without_a_service_is_well(patient: Patient) -> None:
    ran = patient.examine()
    assert (ran.code, ran.err, ran.json["ok"]) == (0, "", True), ran.out
    well = {"settings", "home", "disk", "packages", "port", "database", "clock", "artifacts", "spool"}
    assert findings(ran, "ok").keys() >= well
    assert "retrue serve" in findings(ran, "note")["processes"]
    shown = patient.retrue("doctor")
    assert shown.code == 0
    assert next(line.split()[:2] for line in shown.out.splitlines() if line.startswith("ok")) == ["ok", "settings"]


def test_a_home_that_is_not_there_yet_is_no_fault_and_is_not_made(patient: Patient, tmp_path: Path) -> None:
    ran = patient.examine("--home", str(tmp_path / "new"))
    assert ran.code == 0, ran.out
    assert findings(ran, "note").keys() >= {"home", "database", "lake"}
    assert not (tmp_path / "new").exists()


def test_the_doctor_changes_nothing(patient: Patient) -> None:
    def contents() -> dict[str, bytes]:
        found = (
            path for path in patient.home.rglob("*") if path.is_file() and path.suffix not in {".db-wal", ".db-shm"}
        )
        return {str(path): path.read_bytes() for path in found}

    patient.database.close()
    before = contents()
    patient.examine()
    assert contents() == before


def alter_artifact(patient: Patient) -> None:
    (path,) = (patient.home / "artifacts").iterdir()
    path.chmod(0o644)
    path.write_bytes(b"x")


def remove_artifact(patient: Patient) -> None:
    shutil.rmtree(patient.home / "artifacts")


def other_library(patient: Patient) -> None:
    row = pack(ArtifactStore(patient.home / "artifacts"), FLIP, flip(1), number=2)
    crown(patient.database, replace(row, manifest=row.manifest | {"libraries": {"scikit-learn": "0.1"}}))


def broken_file(patient: Patient) -> None:
    with patient.database.write() as conn:
        conn.execute(update(tables.models).values(error="models/flip.py: no such column"))


def revise(revision: str) -> Callable[[Patient], None]:
    def change(patient: Patient) -> None:
        with patient.database.write() as conn:
            conn.execute(text("UPDATE alembic_version SET version_num = :now"), {"now": revision})

    return change


def damage_database(patient: Patient) -> None:
    patient.database.close()
    path = patient.home / "retrue.db"
    for extra in ("-wal", "-shm"):
        Path(f"{path}{extra}").unlink(missing_ok=True)
    content = bytearray(path.read_bytes())
    content[8192:] = bytes(len(content) - 8192)
    path.write_bytes(content)


def remove_database(patient: Patient) -> None:
    patient.database.close()
    for path in patient.home.glob("retrue.db*"):
        path.unlink()


def no_server(patient: Patient) -> None:
    patient.monkeypatch.setenv("RETRUE_DATABASE_URL", "postgresql://me:hunter2@127.0.0.1:9/x")


def open_to_all(patient: Patient) -> None:
    patient.home.chmod(0o777)


def a_file_as_home(patient: Patient) -> None:
    patient.monkeypatch.setenv("RETRUE_HOME", str(patient.home / "retrue.db"))


def no_rights(patient: Patient) -> None:
    may = os.access
    patient.monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "lake" and may(path, mode))


def full_disk(patient: Patient) -> None:
    usage = shutil.disk_usage(patient.home)
    patient.monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=100 << 20))


def old_package(patient: Patient) -> None:
    patient.monkeypatch.setattr(
        metadata, "requires", lambda _: ["httpx<0.2,>=0.1", "typer>=0.1", "none>=1; extra == 'x'"]
    )


def lost_package(patient: Patient) -> None:
    patient.monkeypatch.setattr(metadata, "requires", lambda _: ["no-such-package>=1"])


def clock_off(patient: Patient) -> None:
    right = Database.now
    patient.monkeypatch.setattr(Database, "now", staticmethod(lambda conn: right(conn) + timedelta(seconds=30)))


def clock_set_back(patient: Patient) -> None:
    with patient.database.write() as conn:
        replica = replicas.hello(conn, "r", host=socket.gethostname(), pid=1, worker=0)
        later = replica.heartbeat_at + timedelta(hours=1)
        conn.execute(update(tables.replicas).values(heartbeat_at=later))
        leases.acquire(conn, LEASE, "host:1:x", 60)


def no_leader(patient: Patient) -> None:
    with patient.database.write() as conn:
        replicas.hello(conn, "r", host=socket.gethostname(), pid=1, worker=0)


def no_worker(patient: Patient) -> None:
    (patient.home / "serve.lock").write_text(str(os.getpid()))


def too_few_workers(patient: Patient) -> None:
    patient.monkeypatch.setenv("RETRUE_WORKERS", "3")
    no_worker(patient)
    no_leader(patient)


def no_committer(patient: Patient) -> None:
    no_worker(patient)
    stream = patient.home / "spool" / "a-stream"
    stream.mkdir()
    segment = stream / "00000001.ready"
    segment.write_bytes(b"x")
    os.utime(segment, (0, 0))


def full_spool(patient: Patient) -> None:
    patient.monkeypatch.setenv("RETRUE_SPOOL_CAP_BYTES", str(1 << 20))
    stream = patient.home / "spool" / "a-stream"
    stream.mkdir()
    (stream / "00000001.ready").write_bytes(bytes(1 << 20))


def lake_away(patient: Patient) -> None:
    (patient.home / "lake" / "predictions" / "flip").mkdir(parents=True)

    def away(*_: Any) -> None:
        msg = "the lake can't be read"
        raise LakeUnavailable(msg)

    patient.monkeypatch.setattr("service.storage.lake.Lake.version_of", away)


def strange_setting(patient: Patient) -> None:
    patient.monkeypatch.setenv("RETRUE_PROT", "80")


def faint(patient: Patient) -> None:
    def fall(_: Any) -> None:
        msg = "out of order"
        raise RuntimeError(msg)

    patient.monkeypatch.setattr("service.commands.machine.disk", fall)


def not_a_service(patient: Patient) -> None:
    patient.monkeypatch.setenv("RETRUE_URL", "http://elsewhere")


@pytest.mark.parametrize(
    ("damage", "name", "said", "remedy"),
    [
        (alter_artifact, "artifact", "was altered", "backup"),
        (remove_artifact, "artifact", "is missing", "retrue rollback flip"),
        (other_library, "artifact", "was made with scikit-learn 0.1", "retrain flip --force"),
        (broken_file, "model file", "no such column", "retrue models check"),
        (revise("0001"), "database", "at revision 0001, this release needs", "backup"),
        (revise("9999"), "database", "at revision 9999, this release knows", "newer"),
        (damage_database, "database", "", "backup"),
        (remove_database, "database", "is gone", "backup"),
        (no_server, "database", "does not answer", "RETRUE_DATABASE_URL"),
        (open_to_all, "home", "everybody on this machine may write", "chmod o-w"),
        (a_file_as_home, "home", "is a file", "RETRUE_HOME"),
        (no_rights, "home", "can't be read and written", "chown"),
        (full_disk, "disk", "0.1 GiB free", "Retention"),
        (old_package, "packages", "is installed, <0.2,>=0.1 is asked for", "requirements.lock"),
        (lost_package, "packages", "no-such-package is not installed", "requirements.lock"),
        (clock_off, "clock", "differ by", "NTP"),
        (clock_set_back, "clock", "set back", "NTP"),
        (no_leader, "controller", "no controller", "retrue controller"),
        (no_worker, "workers", "no worker lives", "restart"),
        (too_few_workers, "workers", "1 worker lives, 3 are set", "log"),
        (no_committer, "spool", "the oldest since", "committer"),
        (full_spool, "spool", "of 1 MiB that may", "committer"),
        (lake_away, "lake", "can't be read", "mend"),
        (strange_setting, "settings", "did you mean RETRUE_PORT?", "retrue config"),
        (faint, "disk", "can't be examined: RuntimeError out of order", "mend"),
        (not_a_service, "service", "no Retrue service answers at http://elsewhere", "--url"),
    ],
)
def test_each_damage_is_found_with_a_remedy_and_exit_1(
    damage: Callable[[Patient], None], name: str, said: str, remedy: str, patient: Patient
) -> None:
    damage(patient)
    ran = patient.examine()
    found = findings(ran, "wrong")
    assert (ran.code, ran.json["ok"], ran.err) == (1, False, "")
    assert name in found, ran.out
    words, _, what_to_do = found[name].partition(" -> ")
    assert said in words
    assert remedy in what_to_do
    assert "hunter2" not in ran.out


def test_another_program_on_the_port_is_told_from_a_free_one(patient: Patient) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        patient.monkeypatch.setenv("RETRUE_PORT", str(other.getsockname()[1]))
        patient.monkeypatch.setattr("service.commands.machine.ANSWER_S", 0.2)
        ran = patient.examine()
    assert ran.code == 1
    assert "RETRUE_PORT" in findings(ran, "wrong")["port"]


def test_a_service_that_runs_well_is_well(patient: Patient) -> None:
    no_worker(patient)
    with patient.database.write() as conn:
        replicas.hello(conn, "r", host=socket.gethostname(), pid=1, worker=0)
        leases.acquire(conn, LEASE, "host:1:x", 60)
        assert champions.all_current(conn)
        assert models.list_all(conn)
    ran = patient.examine()
    assert (ran.code, findings(ran, "wrong")) == (0, {}), ran.out
    assert findings(ran, "ok")["controller"] == "host:1 leads -> "
