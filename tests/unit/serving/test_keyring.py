"""The keyring: right keys in, all others told apart, in memory alone."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from service.domain.access import Right, Role, key_of
from service.domain.errors import ExpiredKey, MalformedKey, RevokedKey, WrongKey
from service.serving.keyring import WRITE_S, Keyring
from service.serving.view import seen
from service.storage import keys
from service.storage.database import Database
from tests.migrated import migrated


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = migrated(tmp_path / "retrue.db")
    yield database
    database.close()


class Clock:
    def __init__(self) -> None:
        self.at = 1000.0

    def __call__(self) -> float:
        return self.at


def made(database: Database, *roles: Role, name: str = "one", lasts: timedelta | None = None) -> str:
    with database.write() as conn:
        expires_at = None if lasts is None else database.now(conn) + lasts
        return keys.create(conn, name, roles=roles, expires_at=expires_at, actor="t", reason="t")[1]


def used_at(database: Database, name: str) -> Any:
    with database.read() as conn:
        return next(row.last_used_at for row in keys.list_of(conn) if row.name == name)


def test_a_key_is_found_with_its_rights(database: Database) -> None:
    key, ring = made(database, Role.VIEWER, Role.PREDICT), Keyring()
    assert not ring.has_any
    ring.follow(seen(database).ring)
    assert ring.has_any
    found = ring.find(key.encode())
    assert (found.name, found.rights) == ("one", {Right.PREDICT, Right.DESCRIBE, Right.READ})
    assert ring.by_id(found.id) is found


@pytest.mark.parametrize(
    ("spoiled", "kind"),
    [
        (lambda key: key[:-1], MalformedKey),
        (lambda key: key[:20] + ("a" if key[20] != "a" else "b") + key[21:], MalformedKey),
        (lambda key: key.upper(), MalformedKey),
        (lambda key: key + " ", MalformedKey),
        (lambda key: "ä" * (len(key) // 2), MalformedKey),
        (lambda _key: "", MalformedKey),
        (lambda _key: key_of(bytes(5), bytes(32)), WrongKey),
    ],
)
def test_a_slip_is_told_from_a_wrong_key(database: Database, spoiled: Callable[[str], str], kind: type) -> None:
    key, ring = made(database, Role.ADMIN), Keyring()
    ring.follow(seen(database).ring)
    with pytest.raises(kind):
        ring.find(spoiled(key).encode())


def test_the_id_alone_with_another_secret_opens_nothing(database: Database) -> None:
    key, ring = made(database, Role.ADMIN), Keyring()
    ring.follow(seen(database).ring)
    with database.write() as conn:
        other = keys.create(conn, "two", roles=[Role.ADMIN], expires_at=None, actor="t", reason="t")[0]
    with database.read() as conn:
        row = next(row for row in keys.list_of(conn) if row.name == "one")
    stolen = replace(row, digest=other.digest)
    ring.follow(replace(seen(database).ring, rows=[stolen]))
    with pytest.raises(WrongKey):
        ring.find(key.encode())


def test_a_revoked_key_is_refused_and_whoever_has_it_is_told(database: Database) -> None:
    key, ring = made(database, Role.ADMIN), Keyring()
    with database.write() as conn:
        keys.revoke(conn, "one", actor="t", reason="t")
    ring.follow(seen(database).ring)
    with pytest.raises(RevokedKey):
        ring.find(key.encode())
    assert ring.has_any, "revoking the last key must not open the service"


def test_a_key_expires_while_the_database_is_away(database: Database) -> None:
    clock = Clock()
    key, ring = made(database, Role.ADMIN, lasts=timedelta(minutes=5)), Keyring(monotonic=clock)
    ring.follow(seen(database).ring)
    clock.at += 290
    ring.find(key.encode())
    clock.at += 11
    with pytest.raises(ExpiredKey):
        ring.find(key.encode())


def test_the_last_good_list_is_kept_for_a_start_without_the_database(database: Database, tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    key = made(database, Role.ADMIN)
    Keyring(path).follow(seen(database).ring)
    assert path.stat().st_mode & 0o077 == 0
    assert key[13:] not in path.read_text()
    ring = Keyring(path)
    ring.restore()
    assert ring.find(key.encode()).name == "one"


def test_a_key_that_ended_meanwhile_does_not_come_back_with_the_list(database: Database, tmp_path: Path) -> None:
    path, ring = tmp_path / "keys.json", Keyring(tmp_path / "keys.json")
    key = made(database, Role.ADMIN, lasts=timedelta(days=1))
    shown = seen(database).ring
    late = timedelta(days=2)
    rows = [replace(row, expires_at=row.expires_at and row.expires_at - late) for row in shown.rows]
    ring.follow(replace(shown, at=shown.at - late, rows=rows))
    ring.find(key.encode())
    again = Keyring(path)
    again.restore()
    with pytest.raises(ExpiredKey):
        again.find(key.encode())


@pytest.mark.parametrize("content", [None, b"", b"{", b'{"has_any": 1}'])
def test_without_a_list_nobody_comes_in(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "keys.json"
    if content is not None:
        path.write_bytes(content)
    ring = Keyring(path)
    ring.restore()
    assert ring.has_any
    with pytest.raises(WrongKey):
        ring.find(key_of(bytes(5), bytes(32)).encode())


def test_the_last_use_is_written_in_batches_at_most_once_a_minute(database: Database) -> None:
    clock = Clock()
    first, second = made(database, Role.ADMIN), made(database, Role.ADMIN, name="two")
    ring = Keyring(monotonic=clock)
    ring.follow(seen(database).ring)
    ring.write_uses(database)
    assert used_at(database, "one") is None
    ring.find(first.encode())
    assert used_at(database, "one") is None, "a request waits for no write"
    ring.follow(seen(database).ring)
    ring.write_uses(database)
    once = used_at(database, "one")
    assert once is not None
    ring.find(first.encode())
    ring.find(second.encode())
    clock.at += WRITE_S - 1
    ring.write_uses(database)
    assert (used_at(database, "one"), used_at(database, "two")) == (once, None)
    clock.at += 2
    ring.write_uses(database)
    last = used_at(database, "one")
    assert last > once
    assert used_at(database, "two") is not None
    clock.at += WRITE_S + 1
    ring.write_uses(database)
    assert used_at(database, "one") == last, "nobody used it since"


def test_nothing_of_a_secret_stands_in_what_is_shown_of_a_key(database: Database) -> None:
    key, ring = made(database, Role.ADMIN), Keyring()
    shown = seen(database).ring
    ring.follow(shown)
    found = ring.find(key.encode())
    for text in (repr(shown), repr(found), repr(ring), str(shown.rows)):
        assert key[13:] not in text
        assert found.digest.hex() not in text
