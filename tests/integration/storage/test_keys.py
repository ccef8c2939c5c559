"""Keys and sessions in the database."""

import threading
from datetime import timedelta

import pytest

from service.domain.access import Role, digest_of, is_well_formed
from service.domain.errors import InvalidRequest, NotAllowedNow, UnknownKey
from service.storage import audit, keys, sessions
from service.storage.database import Database
from service.storage.keys import KeyRow


def make(database: Database, name: str, *roles: Role, lasts: timedelta | None = None) -> tuple[KeyRow, str]:
    with database.write(origin={"via": "command line"}) as conn:
        expires_at = None if lasts is None else database.now(conn) + lasts
        return keys.create(conn, name, roles=roles, expires_at=expires_at, actor="root", reason="why")


def listed(database: Database) -> list[KeyRow]:
    with database.read() as conn:
        return keys.list_of(conn)


def test_a_key_is_stored_by_its_digest_alone_and_audited(database: Database) -> None:
    row, text = make(database, "ci", Role.VIEWER, Role.PREDICT, Role.VIEWER, lasts=timedelta(days=90))
    assert is_well_formed(text)
    assert listed(database) == [row]
    assert row.roles == (Role.PREDICT, Role.VIEWER)
    assert row.digest == digest_of(text.encode()).hex()
    with database.read() as conn:
        (told,) = audit.list_of(conn)
    assert (told.action, told.actor, told.subject, told.origin) == (
        "key_created", "root", row.id, {"via": "command line"},
    )  # fmt: skip
    assert text[13:] not in str(told)
    assert row.digest not in str(told)


def test_no_two_keys_are_alike(database: Database) -> None:
    made = [make(database, f"key {number}", Role.VIEWER) for number in range(20)]
    assert len({text for _, text in made}) == len({row.id for row, _ in made}) == 20


def test_a_name_is_free_again_once_its_key_is_revoked(database: Database) -> None:
    first, _ = make(database, "ci", Role.VIEWER)
    with pytest.raises(NotAllowedNow, match="ci already"):
        make(database, "ci", Role.ADMIN)
    with database.write() as conn:
        assert keys.revoke(conn, "ci", actor="root", reason="why").revoked_at is not None
    second, _ = make(database, "ci", Role.ADMIN)
    assert {row.id for row in listed(database)} == {first.id, second.id}


def test_revoking_twice_is_once_and_nobodys_key_can_not_be_revoked(database: Database) -> None:
    row, _ = make(database, "ci", Role.VIEWER)
    for _ in range(2):
        with database.write() as conn:
            keys.revoke(conn, row.id, actor="root", reason="why")
    with database.read() as conn:
        assert [entry.action for entry in audit.list_of(conn)] == ["key_revoked", "key_created"]
    with pytest.raises(UnknownKey), database.write() as conn:
        keys.revoke(conn, "ci", actor="root", reason="why")


@pytest.mark.parametrize("name", ["", " ci", "ci ", "c\ni", "controller", "operator", "x" * 65])
def test_a_name_that_would_confuse_the_audit_is_refused(database: Database, name: str) -> None:
    with pytest.raises(InvalidRequest):
        make(database, name, Role.VIEWER)
    assert listed(database) == []


def test_a_key_without_a_role_or_with_no_time_left_is_refused(database: Database) -> None:
    with pytest.raises(InvalidRequest, match="role"):
        make(database, "ci")
    with pytest.raises(InvalidRequest, match="expired"):
        make(database, "ci", Role.VIEWER, lasts=timedelta(seconds=-1))


def test_workers_follow_valid_keys_and_those_revoked_lately(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    with database.read() as conn:
        assert not keys.exist(conn)
    make(database, "a", Role.VIEWER)
    make(database, "b", Role.VIEWER)
    with database.write() as conn:
        keys.revoke(conn, "b", actor="root", reason="why")
    with database.read() as conn:
        assert {row.name for row in keys.followed(conn)} == {"a", "b"}
        monkeypatch.setattr(keys, "REMEMBERED", timedelta(seconds=-1))
        assert {row.name for row in keys.followed(conn)} == {"a"}
        assert keys.exist(conn)


def test_whether_keys_were_made_is_known_of_a_database_without_tables(database_url: str) -> None:
    database = Database(database_url)
    assert not keys.were_made_in(database)
    database.migrate()
    assert not keys.were_made_in(database)
    make(database, "ci", Role.VIEWER)
    with database.write() as conn:
        keys.revoke(conn, "ci", actor="root", reason="why")
    assert keys.were_made_in(database), "one that was revoked counts too"
    database.close()


def test_two_admins_who_make_one_name_at_once_get_one_key(database: Database) -> None:
    together, made = threading.Barrier(2), []

    def work() -> None:
        together.wait(30)
        try:
            made.append(make(database, "ci", Role.VIEWER)[0].id)
        except NotAllowedNow:
            made.append("")

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(made) == 2
    assert [row.id for row in listed(database)] == [key_id for key_id in made if key_id]
    with database.read() as conn:
        assert audit.verify(conn) is None


def test_a_session_is_stored_by_a_digest_and_swept_once_it_is_over(database: Database) -> None:
    row, _ = make(database, "ada", Role.VIEWER)
    with database.write() as conn:
        over, token = sessions.begin(conn, row.id, lasts=timedelta(0)), sessions.begin(conn, row.id)
        assert sessions.find(conn, token) == row.id
        assert sessions.find(conn, over) is None
        assert sessions.find(conn, token + "x") is None
        stored = str(conn.exec_driver_sql("SELECT * FROM sessions").all())
        assert token not in stored
        assert stored.count(row.id) == 1
        sessions.close(conn, token)
        sessions.close(conn, token)
        assert sessions.find(conn, token) is None
