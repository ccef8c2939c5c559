"""What the doctor asks the state: database, its clock, processes, models, artifacts, spool and lake. It reads alone."""

import os
import socket
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from service.commands.finding import Finding, good, remark, wrong
from service.domain.errors import ArtifactInvalid, DatabaseUnavailable, InvalidSetup, LakeUnavailable
from service.settings import Settings

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from service.storage.artifacts import ArtifactStore
    from service.storage.database import Database
    from service.storage.versions import VersionRow

__all__ = ["artifacts", "clock", "database", "lake", "opened", "processes", "spool"]

LIVE_S = 6.0
"""As everywhere: a worker that was silent for so long is gone."""
DRIFT = timedelta(seconds=2)
"""So far may the database's clock and this machine's differ."""
FULL = 0.8
LATE_S = 60.0
"""Spool segments that wait longer than this wait for a committer that is not there, or can't commit."""
PATIENCE_S = 5.0
OLDEST_POSTGRESQL = 130_000
MEASURED_SPAN_S = 1.0
RESTORE = "stop the service, and restore the database from a backup"


def opened(settings: Settings) -> "Database":
    """Return the database of the settings, which nothing has touched yet."""
    from service.storage.database import Database

    return Database(settings.database, patience_s=PATIENCE_S)


def database(settings: Settings, found: "Database") -> Iterator[Finding]:
    """Look whether the database answers and has this release's tables."""
    from sqlalchemy.exc import DatabaseError

    if found.engine.dialect.name == "sqlite" and not Path(str(found.engine.url.database)).exists():
        if found_artifacts := _count(settings.artifacts):
            words = f"{found.address} is gone, and {found_artifacts} artifacts are there"
            yield wrong(
                "database", words, "restore the file from a backup, or name the right one in RETRUE_DATABASE_URL"
            )
        else:
            yield remark("database", f"{found.address} is not there yet", "the first `retrue serve` makes it")
        return
    try:
        found.check_migrated()
        kind, complaint = _kind(found)
    except DatabaseUnavailable as error:
        yield wrong("database", error.detail, "start it, and look at RETRUE_DATABASE_URL (`retrue config`)")
        return
    except InvalidSetup as error:
        yield _out_of_date(error)
        return
    except DatabaseError as error:
        yield wrong("database", f"{found.address} can't be read ({type(error.orig).__name__})", RESTORE)
        return
    if complaint:
        yield wrong("database", f"{kind}: {complaint}", RESTORE)
        return
    yield good("database", f"{kind} at {found.address}, revision {_head()}")


def clock(found: "Database") -> Iterator[Finding]:
    """Compare this machine's clock with the database's, which decides wherever hosts must agree."""
    with found.read() as conn:
        before = datetime.now(UTC)
        there = found.now(conn)
        after = datetime.now(UTC)
        ahead = _newest_beat(conn)
    off = max(before - there, there - after, timedelta(0))
    remedy = "let both hosts keep their time by NTP"
    if off > DRIFT:
        yield wrong("clock", f"this machine's clock and the database's differ by {off.total_seconds():.1f} s", remedy)
    elif ahead is not None and ahead - there > DRIFT:
        words = (
            f"a worker last wrote {(ahead - there).total_seconds():.0f} s from now: the database's clock was set back"
        )
        yield wrong("clock", words, "wait that long, or restart the service; and keep the time by NTP")
    else:
        yield good(
            "clock", f"{there:%Y-%m-%d %H:%M:%S} UTC; the database's differs by less than {DRIFT.total_seconds():.0f} s"
        )


def processes(settings: Settings, found: "Database") -> Iterator[Finding]:
    """Look which processes live: workers by their heartbeat, a leader by its lease, the supervisor here by its pid."""
    from service.control.leader import LEASE
    from service.storage import leases, replicas

    with found.read() as conn:
        living, now = replicas.live(conn, LIVE_S), found.now(conn)
        held = replicas.serving(conn)
        silent = sorted({row.replica_id for row in held} - {replica.id for replica in living})
        lease = leases.holder(conn, LEASE)
    supervisor = _supervisor(settings.home)
    if not living and supervisor is None:
        yield remark("processes", "no service runs on this state", "start one with `retrue serve`")
        return
    here = [replica for replica in living if replica.host == socket.gethostname()]
    words = "1 worker lives" if len(living) == 1 else f"{len(living)} workers live"
    words += f", {len(here)} of them here" if len(here) != len(living) else ""
    if not living:
        yield wrong("workers", f"supervisor {supervisor} runs here, and no worker lives", "look at its log; restart it")
    elif supervisor is not None and len(here) < settings.workers:
        yield wrong(
            "workers", f"{words}, {settings.workers} are set", "look at the service's log: which one dies, and why"
        )
    else:
        yield good("workers", words)
    if silent:
        yield remark("workers", f"{len(silent)} workers left without a word; they are forgotten soon")
    if lease is None or lease.expires_at <= now:
        since = "has ever led" if lease is None else f"leads since {lease.expires_at:%Y-%m-%d %H:%M:%S} UTC"
        yield wrong("controller", f"no controller {since}: nothing is checked or trained", "start `retrue controller`")
    else:
        yield good("controller", f"{lease.owner.rpartition(':')[0]} leads")


def artifacts(settings: Settings, found: "Database") -> Iterator[Finding]:
    """Look whether each champion's file is there, unaltered, and made with the libraries that are here."""
    from service.storage import champions, models, versions
    from service.storage.artifacts import ArtifactStore

    with found.read() as conn:
        broken = [(row.name, row.error) for row in models.list_all(conn) if row.error]
        rows = [versions.get(conn, champion.model, champion.version) for champion in champions.all_current(conn)]
    for name, error in broken:
        yield wrong("model file", f"{name}: {error}", "mend the file; `retrue models check` says when it is good")
    store = ArtifactStore(settings.artifacts)
    bad = [fault for row in rows if (fault := _fault(store, row))]
    yield from (wrong("artifact", words, remedy) for words, remedy in bad)
    if not rows:
        yield remark("artifacts", "no model has a champion yet")
    elif not bad:
        yield good("artifacts", f"{len(rows)} champions: files unaltered, made with the libraries that are here")


def spool(settings: Settings) -> Iterator[Finding]:
    """Look how much waits for the lake, and since when."""
    from service.storage.spool import survey

    if not settings.spool.exists():
        return
    waiting = survey(settings.spool)
    size = f"{waiting.size_bytes / 2**20:.1f} MiB wait for the lake"
    age_s = 0.0 if waiting.since is None else max(time.time() - waiting.since, 0.0)
    remedy = (
        "see whether the committer lives (`retrue serve` or `retrue api` starts it) and what its log says of the lake"
    )
    if waiting.size_bytes > FULL * settings.spool_cap_bytes:
        yield wrong("spool", f"{size}, of {settings.spool_cap_bytes / 2**20:.0f} MiB that may", remedy)
    elif age_s > LATE_S:
        words = f"{size}, the oldest since {age_s:.0f} s"
        running = _supervisor(settings.home) is not None
        yield wrong("spool", words, remedy) if running else remark("spool", words, "the next start takes them over")
    else:
        yield good("spool", size)


def lake(settings: Settings) -> Iterator[Finding]:
    """Open every table of the lake."""
    from service.storage.lake import Lake

    opened_lake = Lake(settings.lake)
    names = opened_lake.models()
    if not names:
        yield remark("lake", f"{settings.lake} holds no table yet")
        return
    began, tables = time.monotonic(), 0
    for name in names:
        for kind in ("predictions", "labels"):
            try:
                tables += opened_lake.version_of(name, kind) is not None
            except LakeUnavailable as error:
                remedy = "mend the rights or the disk; a torn table is mended by the committer when it starts"
                yield wrong("lake", f"{kind} of {name}: {error.detail}", remedy)
                return
    words = f"{tables} tables of {len(names)} models can be read"
    seconds = time.monotonic() - began
    yield good("lake", words + (f" ({seconds:.1f} s)" if seconds > MEASURED_SPAN_S else ""))


def _out_of_date(error: InvalidSetup) -> Finding:
    there = error.facts.get("found")
    if there is None:
        return remark("database", "it has no tables yet", "the first `retrue serve` makes them")
    if str(there) > _head():
        words = f"it is at revision {there}, this release knows {_head()}"
        return wrong("database", words, "install the release that made it, or a newer one")
    words = f"it is at revision {there}, this release needs {_head()}"
    return wrong("database", words, "make a backup; then `retrue serve` or `retrue controller` migrates it")


def _head() -> str:
    from service.storage import migrations

    return migrations.HEAD


def _kind(found: "Database") -> tuple[str, str]:
    """Return the kind of the database with its version, and what is wrong with it."""
    with found.read() as conn:
        if conn.dialect.name == "sqlite":
            version = conn.exec_driver_sql("SELECT sqlite_version()").scalar_one()
            said = conn.exec_driver_sql("PRAGMA quick_check(1)").scalar_one()
            return f"SQLite {version}", "" if said == "ok" else f"the file is damaged ({said})"
        version = conn.exec_driver_sql("SHOW server_version").scalar_one()
        number = int(conn.exec_driver_sql("SHOW server_version_num").scalar_one())
        return f"PostgreSQL {version}", "older than 13" if number < OLDEST_POSTGRESQL else ""


def _newest_beat(conn: "Connection") -> datetime | None:
    from sqlalchemy import func, select

    from service.storage.tables import replicas

    newest: datetime | None = conn.scalar(select(func.max(replicas.c.heartbeat_at)))
    return newest


def _fault(store: "ArtifactStore", row: "VersionRow") -> tuple[str, str] | None:
    name = f"version {row.version} of {row.model}"
    try:
        store.read(row.artifact)
    except ArtifactInvalid as error:
        return f"{name}: {error.detail}", f"restore the file from a backup, or `retrue rollback {row.model}`"
    made_with, here = (row.manifest.get("libraries") or {}).get("scikit-learn"), metadata.version("scikit-learn")
    if made_with != here:
        words = f"{name} was made with scikit-learn {made_with}, here is {here}: it will not load"
        return words, f"install scikit-learn {made_with}, or `retrue retrain {row.model} --force --wait`"
    return None


def _supervisor(home: Path) -> int | None:
    """Return the process that runs the service on this home; its own note says who, and it must be alive."""
    try:
        pid = int((home / "serve.lock").read_text(encoding="utf-8").strip())
    except (OSError, ValueError):
        return None
    try:
        os.kill(pid, 0)
    except PermissionError:
        return pid  # another user's, and alive
    except OSError:
        return None
    return pid


def _count(folder: Path) -> int:
    return sum(1 for _ in folder.iterdir()) if folder.is_dir() else 0
