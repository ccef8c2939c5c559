"""The audit's chain: the database refuses to change it, and what was changed all the same is named."""

import hashlib
import json
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from sqlalchemy import Connection, delete, insert, select, text, update
from sqlalchemy.exc import DBAPIError

from service.storage import audit
from service.storage.database import Database
from service.storage.migrations.upgrade import configuration
from service.storage.tables import audit as rows
from service.storage.tables import audit_head

TRIGGERS = {
    "sqlite": "SELECT name, tbl_name FROM sqlite_master WHERE type = 'trigger'",
    "postgresql": "SELECT tgname, relname FROM pg_trigger t JOIN pg_class c ON c.oid = tgrelid WHERE NOT tgisinternal",
}


def write(conn: Connection, number: int, at: datetime, **more: Any) -> None:
    facts = {"number": number, "share": 0.1, "huge": 1e20, "none": None, "odd": float("nan"), "text": "ä"}
    audit.append(
        conn, actor="ada", action="test", model=None, subject=None, reason=str(number), at=at, facts=facts, **more
    )


@pytest.fixture
def written(database: Database, at: datetime) -> Database:
    """Return a database with six rows in its audit, two of them from outside."""
    for number in range(1, 7):
        origin = {"via": "http", "address": "10.0.0.7", "key": "abcdefgh"} if number in {3, 4} else None
        with database.write(origin=origin) as conn:
            write(conn, number, at)
    return database


def without_guard(conn: Connection) -> None:
    """Drop the triggers, as somebody with all rights could."""
    for name, table in conn.execute(text(TRIGGERS[conn.dialect.name])).all():
        conn.execute(text(f"DROP TRIGGER {name}" + ("" if conn.dialect.name == "sqlite" else f" ON {table}")))


def broken(conn: Connection, **anchors: Any) -> list[int]:
    return [finding.seq for finding in audit.examine(conn, **anchors).findings]


REFUSED = {
    "update": update(rows).where(rows.c.seq == 2).values(reason="other"),
    "delete": delete(rows).where(rows.c.seq == 2),
    "delete all": delete(rows),
    "head back": update(audit_head).values(seq=1),
    "head away": delete(audit_head),
}


@pytest.mark.parametrize("statement", list(REFUSED))
def test_the_database_refuses_to_change_what_was_written(written: Database, statement: str) -> None:
    with pytest.raises(DBAPIError, match="append-only"), written.write() as conn:
        conn.execute(REFUSED[statement])
    with written.read() as conn:
        assert audit.examine(conn).rows == 6
        assert audit.verify(conn) is None


def test_nor_does_it_replace_or_empty(written: Database) -> None:
    is_sqlite = written.engine.dialect.name == "sqlite"
    columns = "seq, at, actor, action, reason, facts, digest"
    replaced = f"INSERT OR REPLACE INTO audit ({columns}) SELECT 2, at, 'eve', action, reason, facts, digest FROM audit"  # noqa: S608
    for statement in [replaced] if is_sqlite else ["TRUNCATE audit", "TRUNCATE audit_head"]:
        with pytest.raises(DBAPIError, match="append-only"), written.write() as conn:
            conn.execute(text(statement))
    with written.write() as conn:
        if is_sqlite:
            conn.execute(text("INSERT OR REPLACE INTO audit_head (id, seq, digest) VALUES (1, 1, 'x')"))
    with written.read() as conn:
        assert audit.verify(conn) is None


def altered(conn: Connection, **values: Any) -> None:
    conn.execute(update(rows).where(rows.c.seq == 3).values(**values))


def moved(conn: Connection) -> None:
    for seq, to in ((3, 99), (4, 3), (99, 4)):
        conn.execute(update(rows).where(rows.c.seq == seq).values(seq=to))


def contents_swapped(conn: Connection) -> None:
    """Let two rows change places, but for their numbers and digests."""
    third, fourth = conn.execute(select(rows).where(rows.c.seq.in_([3, 4])).order_by(rows.c.seq)).mappings().all()
    for seq, row in ((3, fourth), (4, third)):
        values = {name: value for name, value in row.items() if name not in {"seq", "digest"}}
        conn.execute(update(rows).where(rows.c.seq == seq).values(**values))


DAMAGES: dict[str, tuple[Any, list[int]]] = {
    "reason": (lambda conn: altered(conn, reason="other"), [3]),
    "actor": (lambda conn: altered(conn, actor="eve"), [3]),
    "facts": (lambda conn: altered(conn, facts={}), [3]),
    "origin": (lambda conn: altered(conn, origin={"via": "console"}), [3]),
    "origin taken away": (lambda conn: altered(conn, origin=None), [3]),
    "moment": (lambda conn: altered(conn, at=datetime(2020, 1, 1, tzinfo=UTC)), [3]),
    "removed": (lambda conn: conn.execute(delete(rows).where(rows.c.seq == 3)), [3]),
    "two removed": (lambda conn: conn.execute(delete(rows).where(rows.c.seq.in_([3, 4]))), [3]),
    "first removed": (lambda conn: conn.execute(delete(rows).where(rows.c.seq == 1)), [1]),
    "last removed": (lambda conn: conn.execute(delete(rows).where(rows.c.seq == 6)), [6]),
    "all removed": (lambda conn: conn.execute(delete(rows)), [1]),
    "moved": (moved, [3, 4]),
    "contents swapped": (contents_swapped, [3, 4]),
    "two altered": (lambda conn: conn.execute(update(rows).where(rows.c.seq.in_([2, 5])).values(reason="x")), [2, 5]),
}


@pytest.mark.parametrize("damage", list(DAMAGES))
def test_verify_names_just_the_rows_that_were_altered_removed_or_moved(written: Database, damage: str) -> None:
    spoil, named = DAMAGES[damage]
    with written.write() as conn:
        assert broken(conn) == []
        without_guard(conn)
        spoil(conn)
        assert broken(conn) == named
        assert audit.verify(conn) == named[0]


def test_a_row_that_was_put_in_is_named(written: Database, at: datetime) -> None:
    with written.write() as conn:
        without_guard(conn)
        forged = {"seq": 7, "at": at, "actor": "eve", "action": "x", "reason": "r", "facts": {}, "digest": "0" * 64}
        conn.execute(insert(rows).values(**forged))
        assert broken(conn)[0] == 7


def test_a_chain_that_was_rewritten_as_a_whole_is_found_by_a_head_that_was_written_down(
    written: Database, at: datetime
) -> None:
    with written.write() as conn:
        seq, digest = audit.examine(conn).head.split(":")
        anchors = {int(seq): digest}
        write(conn, 7, at)
        assert broken(conn, anchors=anchors) == []
        without_guard(conn)
        conn.execute(delete(rows))
        conn.execute(delete(audit_head))
        for number in range(1, 8):
            write(conn, 0 if number == 2 else number, at)
        assert broken(conn) == []
        assert broken(conn, anchors=anchors) == [6]
        conn.execute(delete(rows))
        conn.execute(delete(audit_head))
        assert broken(conn, anchors=anchors) == [6]


def test_rows_of_before_the_migration_are_in_the_chain_and_go_on(database_url: str, at: datetime) -> None:
    database = Database(database_url)
    if database.engine.dialect.name == "sqlite":
        Path(str(database.engine.url.database)).touch()
    with database.write() as conn:
        command.upgrade(configuration(conn), "0004")
        for number in (1, 2, 3):
            _write_as_before(conn, number, at)
    database.migrate()
    with database.write(origin={"via": "http"}) as conn:
        write(conn, 4, at)
        assert broken(conn) == []
        without_guard(conn)
        conn.execute(update(rows).where(rows.c.seq == 2).values(actor="eve"))
        assert broken(conn) == [2]
    database.close()


def _write_as_before(conn: Connection, number: int, at: datetime) -> None:
    """Write a row as the releases before did: there was no origin."""
    values: dict[str, Any] = {"seq": number, "at": at, "actor": "old", "action": "x", "model": None, "subject": None}
    values |= {"reason": "r", "facts": {"n": number}}
    before = conn.scalar(text("SELECT digest FROM audit_head WHERE id = 1")) or "0" * 64
    content = {**values, "at": at.isoformat(timespec="microseconds"), "facts": {"n": float(number)}}
    plain = json.dumps(content, sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(f"{before}{plain}".encode()).hexdigest()
    conn.execute(insert(rows).values(**values, digest=digest))
    conn.execute(delete(audit_head))
    conn.execute(insert(audit_head).values(id=1, seq=number, digest=digest))


def test_two_writers_at_once_do_not_fork_the_chain(database: Database, at: datetime) -> None:
    together, failures = threading.Barrier(4), []

    def work(name: str) -> None:
        together.wait(30)
        try:
            for number in range(25):
                with database.write(origin={"via": name}) as conn:
                    write(conn, number, at)
        except Exception as error:  # noqa: BLE001  told below
            failures.append(error)

    threads = [threading.Thread(target=work, args=(f"writer {number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    with database.read() as conn:
        examined = audit.examine(conn)
        assert (examined.rows, examined.findings) == (100, [])
        mixed = {row.origin["via"] for row in audit.list_of(conn, limit=100) if row.origin}
    assert len(mixed) == 4
