"""Who was refused stands in the log: why and from where, never the key, and never in a flood."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service.api.strangers import MANY, PAUSE_S, Strangers
from service.domain.access import Role
from service.domain.errors import ExpiredKey, InvalidRows, NoKey, TooManyRequests, WrongKey
from tests.keyed import Keyed, keyed
from tests.migrated import migrated
from tests.served import instance

PREDICT = "/v1/models/flip/predict"
ROW = {"instances": [instance()]}


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Keyed]:
    database = migrated(tmp_path / "retrue.db")
    with keyed(tmp_path, database) as made:
        yield made
    database.close()


@pytest.fixture(autouse=True)
def _level(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)


def told(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [record.facts for record in caplog.records if record.getMessage() == "access_refused"]  # type: ignore[attr-defined]


def scope(address: str) -> dict[str, Any]:
    return {"type": "http", "client": (address, 1)}


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/v1/models"), ("POST", PREDICT), ("POST", "/v2/models/flip/infer")]
)
def test_each_way_a_key_can_be_bad_is_logged_with_the_callers_address_and_without_the_key(
    method: str, path: str, home: Keyed, caplog: pytest.LogCaptureFixture
) -> None:
    old, gone, weak = home.key(Role.ADMIN, name="old"), home.key(Role.ADMIN, name="gone"), home.key(Role.VIEWER)
    strange = old[:-8] + "00000000"
    home.expire("old")
    home.revoke("gone")
    caplog.clear()
    for key in (old, gone, strange):
        assert home.ask(method, path, key, json=ROW).status_code == 401
    found = told(caplog)
    assert [facts["why"] for facts in found] == ["expired-key", "revoked-key", "malformed-key"]
    assert [facts.get("key") for facts in found] == [old[4:12], gone[4:12], None]
    assert {facts["address"] for facts in found} == {"127.0.0.1"}
    if path == PREDICT:
        assert home.ask(method, path, weak, json=ROW).status_code == 403
        assert (told(caplog)[-1]["why"], told(caplog)[-1]["needs"]) == ("not-permitted", "predict")
    text = " ".join(str(record.__dict__) for record in caplog.records)
    for key in (old, gone, strange):
        assert key[13:50] not in text


def test_a_missing_right_is_logged_with_who_lacks_it(home: Keyed, caplog: pytest.LogCaptureFixture) -> None:
    assert home.ask("POST", "/v1/models/flip/runs", home.key(Role.VIEWER, name="vic"), json={}).status_code == 403
    (facts,) = told(caplog)
    assert (facts["why"], facts["actor"]) == ("not-permitted", "vic")


def test_a_browser_without_a_key_is_no_news(home: Keyed, caplog: pytest.LogCaptureFixture) -> None:
    home.key(Role.ADMIN)
    assert home.ask("GET", "/v1/models").status_code == 401
    assert told(caplog) == []


def test_one_line_a_minute_for_each_address_and_reason_and_the_next_counts_the_rest(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = Clock()
    strangers = Strangers(monotonic=clock)
    for _ in range(100):
        strangers.note(WrongKey("x"), scope("10.0.0.1"))
    strangers.note(ExpiredKey("x", key="abc"), scope("10.0.0.1"))
    strangers.note(WrongKey("x"), scope("10.0.0.2"))
    for other in (NoKey("x"), TooManyRequests("x", retry_after_s=1), InvalidRows("x")):
        strangers.note(other, scope("10.0.0.3"))
    assert told(caplog) == [
        {"why": "wrong-key", "address": "10.0.0.1"},
        {"why": "expired-key", "address": "10.0.0.1", "key": "abc"},
        {"why": "wrong-key", "address": "10.0.0.2"},
    ]
    caplog.clear()
    clock.now = PAUSE_S
    strangers.note(WrongKey("x"), scope("10.0.0.1"))
    assert told(caplog) == [{"why": "wrong-key", "address": "10.0.0.1", "untold": 99}]


def test_many_addresses_fill_neither_the_memory_nor_the_log(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    strangers = Strangers(monotonic=clock)
    for number in range(MANY * 10):
        strangers.note(WrongKey("x"), scope(f"10.0.{number // 256}.{number % 256}"))
    assert len(told(caplog)) == MANY + 1
    assert told(caplog)[-1]["address"] == "others"
    assert len(strangers._told) == MANY + 1
    caplog.clear()
    clock.now = PAUSE_S
    strangers.note(WrongKey("x"), scope("10.9.9.9"))
    assert told(caplog) == [{"why": "wrong-key", "address": "10.9.9.9"}]
