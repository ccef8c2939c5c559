"""Going back by hand: further back each time, and never by accident to what was taken back."""

from typing import Literal

import pytest

from service.control.rollback import roll_back
from service.domain.errors import NotAllowedNow
from service.storage import champions, models, probations, versions
from service.storage.champions import Champion
from service.storage.database import Database
from tests.unit.control.conftest import MODEL, a_version


def crowned(database: Database, version: int, kind: Literal["promote", "rollback"] = "promote") -> None:
    with database.write() as conn:
        if versions.find(conn, MODEL, version) is None:
            versions.insert(conn, a_version(version))
        now = champions.current(conn, MODEL)
        champions.swap(
            conn, MODEL, version=version, expected_generation=now.generation if now else 0, actor="ada", reason="r",
            kind=kind, run_id=None, event_time=None, at=database.now(conn),
        )  # fmt: skip


def back(database: Database, to: int | None = None) -> Champion:
    with database.write() as conn:
        return roll_back(conn, MODEL, to=to, actor="ada", reason="customers complain")


@pytest.fixture
def third(database: Database) -> Database:
    """Return a database in which the third version answers."""
    for version in (1, 2, 3):
        crowned(database, version)
    return database


def test_who_goes_back_twice_comes_further_back_and_not_to_and_fro(third: Database) -> None:
    assert [back(third).version, back(third).version] == [2, 1]


def test_what_was_taken_back_answers_again_only_if_it_is_named(third: Database) -> None:
    back(third)
    back(third)
    with pytest.raises(NotAllowedNow, match="only version 2 is left to go back to, and ada took it back: customers"):
        back(third)
    with third.read() as conn:
        assert [swap.version for swap in champions.history(conn, MODEL)] == [1, 2, 3, 2, 1]
        assert probations.rollback_targets(conn, MODEL) == [2, 3]
    assert back(third, to=3).version == 3


def test_undoing_a_rollback_leaves_nothing_against_the_version_that_it_leaves(third: Database) -> None:
    back(third)
    back(third, to=3)
    with third.read() as conn:
        assert champions.taken_back(conn, MODEL) == {}
    assert back(third).version == 2


def test_a_version_that_was_promoted_again_is_as_good_as_any(third: Database) -> None:
    back(third)
    crowned(third, 3)
    crowned(third, 4)
    with third.read() as conn:
        assert champions.taken_back(conn, MODEL) == {}
    assert back(third).version == 3


def test_a_promotion_of_an_old_version_that_is_taken_back_counts_against_that_version(third: Database) -> None:
    crowned(third, 1)
    assert back(third, to=3).version == 3
    with third.read() as conn:
        assert list(champions.taken_back(conn, MODEL)) == [1]
        assert "hold" in models.switches(conn, MODEL)
    assert back(third).version == 2
