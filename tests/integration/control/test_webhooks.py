"""Webhooks on the wire: signed, at least once, under one id; sent by the leader alone; nobody waits for an endpoint."""

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from service.control.leader import Leader, Term
from service.control.outbox import Outbox, Webhooks
from service.domain.notice import DeliveryState, endpoints_of, secrets_of, signatures
from service.domain.run import RunState, Trigger
from service.storage import models, outbox, runs
from service.storage.database import Database
from service.storage.outbox import Delivery
from tests.keyed import keyed
from tests.migrated import migrated
from tests.receiver import Receiver, receiver
from tests.unit.control.conftest import AT, MODEL, spec_json

pytestmark = pytest.mark.timeout(300)

ROOT = Path(__file__).parents[3]
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
QUICK = timedelta(milliseconds=50)
# A sender in a process of its own that dies after the endpoint has answered and before that is written down.
DIES_BEFORE_THE_MARK = """
import os, signal, sys, time
from datetime import timedelta
from service.control.leader import Leader
from service.control.outbox import Outbox, Webhooks
from service.domain.notice import endpoints_of, secrets_of
from service.storage import outbox
from service.storage.database import Database

outbox.mark = lambda *words, **facts: os.kill(os.getpid(), signal.SIGKILL)
leader = Leader(Database(sys.argv[1]), ttl_s=2)
term = leader.step()
webhooks = Webhooks(endpoints=endpoints_of(sys.argv[2]), keys=secrets_of(sys.argv[3]))
post = Outbox(webhooks, term=lambda: leader.term, counted=print)
post.look(term, {})
post.start()
time.sleep(120)
"""


def until(seen: Callable[[], Any], *, within_s: float = 60) -> Any:
    ends = time.monotonic() + within_s
    while time.monotonic() < ends:
        if found := seen():
            return found
        time.sleep(0.02)
    pytest.fail(f"it did not happen within {within_s} s")


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = migrated(tmp_path / "retrue.db")
    with database.write() as conn:
        models.register(conn, MODEL, spec_json=spec_json(), file="models/shop.py", at=AT)
    yield database
    database.close()


@pytest.fixture
def hook() -> Iterator[Receiver]:
    with receiver() as one:
        yield one


def change(database: Database) -> runs.Run:
    """Let a run end."""
    with database.write() as conn:
        at = database.now(conn)
        run = runs.create(conn, MODEL, trigger=Trigger.MANUAL, actor="ada", reason="r", at=at)
        return runs.transition(conn, run.id, RunState.EXPIRED, actor="ada", reason="r", at=at, code="expired")


def listed(database: Database, state: DeliveryState | None = None) -> list[Delivery]:
    with database.read() as conn:
        return outbox.list_of(conn, state=state)


class Sending:
    """The leader's outbox, with its looks made by the test."""

    def __init__(self, database: Database, urls: str, **webhooks: Any) -> None:
        self.database = database
        self.leader = Leader(database, ttl_s=600)
        self.term: Term | None = self.leader.step()
        self.counts: Counter[str] = Counter()
        values = {"tries": 4, "first_pause": QUICK, "timeout_s": 20, **webhooks}
        self.webhooks = Webhooks(endpoints=endpoints_of(urls), keys=secrets_of(SECRET), **values)
        self.asked = 0
        self.outbox = Outbox(self.webhooks, term=self.led, counted=lambda outcome: self.counts.update([outcome]))

    def led(self) -> Term | None:
        self.asked += 1
        return self.term

    def look(self) -> None:
        assert self.term is not None
        self.outbox.look(self.term, {})


@contextmanager
def sending(database: Database, urls: str, **webhooks: Any) -> Iterator[Sending]:
    one = Sending(database, urls, **webhooks)
    one.outbox.start()
    yield one
    one.outbox.stop()


def test_an_event_goes_out_signed_as_structured_cloudevents_on_either_database(
    database_url: str, hook: Receiver
) -> None:
    database = Database(database_url)
    database.migrate()
    with database.write() as conn:
        models.register(conn, MODEL, spec_json=spec_json(), file="models/shop.py", at=AT)
    run = change(database)
    with sending(database, hook.url) as sender:
        sender.look()
        until(lambda: listed(database, DeliveryState.DELIVERED))
    (got,) = hook.got
    event = json.loads(got.body)
    assert got.path == "/hook/hunter2"
    assert got.headers["content-type"] == "application/cloudevents+json"
    assert (event["specversion"], event["type"]) == ("1.0", "retrue.run.expired")
    assert (event["subject"], event["data"]["run"]) == (f"/v1/runs/{run.id}", run.id)
    assert got.headers["webhook-id"] == event["id"]
    stamp = int(got.headers["webhook-timestamp"])
    assert abs(stamp - time.time()) < 120
    assert got.headers["webhook-signature"] == signatures(
        secrets_of(SECRET), notice_id=event["id"], timestamp=stamp, body=got.body
    )
    assert sender.counts == {"delivered": 1}
    database.close()


def test_what_fails_is_tried_again_with_growing_pauses_under_the_same_id_until_it_is_taken(
    database: Database, hook: Receiver
) -> None:
    hook.answer = lambda _got: (503 if len(hook.got) < 3 else 200, {})
    change(database)
    pauses: list[float] = []
    with sending(database, hook.url) as sender:
        sender.look()

        def pause() -> bool:
            (one,) = listed(database)
            if one.state is DeliveryState.WAITING and one.tried_at is not None and len(pauses) < one.tries:
                pauses.append((one.next_at - one.tried_at).total_seconds())
            return one.state is DeliveryState.DELIVERED

        until(pause)
    assert len({got.body for got in hook.got}) == len({got.headers["webhook-id"] for got in hook.got}) == 1
    assert len(hook.got) == 3
    assert sender.counts == {"failed": 2, "delivered": 1}
    # A look may come too late for one of them, but none is another than it should be.
    assert set(pauses) <= {0.05, 0.15}


def test_what_is_never_taken_is_dead_after_so_many_tries_and_a_person_can_have_it_sent_again(
    database: Database, hook: Receiver, tmp_path: Path
) -> None:
    hook.answer = lambda _got: (500, {})
    with keyed(tmp_path / "api", database) as api, sending(database, hook.url) as sender:
        with database.write() as conn:
            outbox.spread(conn, [], at=database.now(conn))  # the champion that the application began with
        change(database)
        sender.look()
        until(lambda: listed(database, DeliveryState.DEAD))
        answer = api.client.get("/v1/webhooks/deliveries", params={"state": "dead"})
        (dead,) = answer.json()["deliveries"]
        assert (dead["tries"], dead["status"], dead["error"]) == (4, 500, "it answered 500")
        assert (dead["type"], dead["model"], dead["next_at"]) == ("retrue.run.expired", MODEL, None)
        assert "hunter2" not in answer.text
        scrape = api.client.get("/metrics").text
        assert 'retrue_webhook_deliveries{state="dead"} 1.0' in scrape
        assert 'retrue_webhook_deliveries{state="waiting"} 0.0' in scrape
        hook.answer = lambda _got: (200, {})
        again = api.client.post(f"/v1/webhooks/deliveries/{dead['id']}/resend", json={"reason": "it is back"})
        assert (again.status_code, again.json()["state"], again.json()["tries"]) == (202, "waiting", 0)
        until(lambda: listed(database, DeliveryState.DELIVERED))
        assert api.client.get("/v1/webhooks/deliveries", params={"state": "dead"}).json() == {"deliveries": []}
        assert api.client.post("/v1/webhooks/deliveries/nobody/resend").status_code == 404
        assert api.client.get("/v1/webhooks/deliveries", params={"state": "odd"}).status_code == 422
        assert api.client.get("/v1/audit").json()["audit"][0]["action"] == "delivery_resent"
    assert len(hook.got) == 5
    assert {got.headers["webhook-id"] for got in hook.got} == {dead["event"]}
    assert sender.counts == {"failed": 3, "dead": 1, "delivered": 1}


def test_an_endpoint_that_says_gone_is_believed_at_once_and_its_wish_to_wait_is_kept(
    database: Database, hook: Receiver
) -> None:
    hook.answer = lambda _got: (429, {"retry-after": "3600"}) if len(hook.got) == 1 else (410, {})
    change(database)
    with sending(database, hook.url) as sender:
        sender.look()
        until(lambda: listed(database)[0].tries == 1)
        (asked,) = listed(database)
        assert asked.tried_at is not None
        assert asked.next_at - asked.tried_at == timedelta(hours=1)
        change(database)
        sender.look()
        (dead,) = until(lambda: listed(database, DeliveryState.DEAD))
    assert (dead.status, dead.tries) == (410, 1)


def test_an_endpoint_that_hangs_delays_neither_the_look_nor_another_endpoint_and_is_cut_off(
    database: Database, hook: Receiver
) -> None:
    hook.hangs = threading.Event()
    change(database)
    with receiver() as other, sending(database, f"{hook.url} {other.url}", timeout_s=1.0) as sender:
        sender.look()
        until(lambda: hook.got)
        began = time.monotonic()
        sender.look()
        assert time.monotonic() - began < 0.9  # it asks the database alone
        until(lambda: other.got)
        (slow,) = until(lambda: [one for one in listed(database) if one.error])
    assert (slow.status, slow.error) == (None, "no answer in 1 s")


def test_an_endpoint_that_lets_its_answer_trickle_is_cut_off_too(database: Database) -> None:
    trickling = subprocess.Popen([sys.executable, "-c", TRICKLES], stdout=subprocess.PIPE, text=True)
    try:
        assert trickling.stdout is not None
        port = trickling.stdout.readline().strip()
        change(database)
        with sending(database, f"http://127.0.0.1:{port}/", timeout_s=1.0) as sender:
            sender.look()
            until(lambda: listed(database)[0].error == "no answer in 1 s")
    finally:
        trickling.kill()
        trickling.communicate()


# A byte of the head every 0.2 s: each alone is in time.
TRICKLES = """
import socket, time
with socket.create_server(("127.0.0.1", 0)) as server:
    print(server.getsockname()[1], flush=True)
    while True:
        line, _ = server.accept()
        try:
            for byte in b"HTTP/1.1 200 OK\\r\\nx-filler: " + b"a" * 300:
                line.sendall(bytes([byte]))
                time.sleep(0.2)
        except OSError:
            pass
"""


def test_nobody_is_told_by_a_controller_that_does_not_lead(database: Database, hook: Receiver) -> None:
    change(database)
    with sending(database, hook.url) as sender:
        leading, sender.term = sender.term, None
        with database.write() as conn:
            outbox.spread(conn, [endpoint.name for endpoint in sender.webhooks.endpoints], at=database.now(conn))
        change(database)
        asked = sender.asked
        until(lambda: sender.asked > asked + 2)  # its thread has looked for work, twice at least
        assert hook.got == []
        sender.term = leading
        until(lambda: listed(database, DeliveryState.DELIVERED))


def test_a_leader_that_lost_its_lease_can_not_mark_and_the_next_one_sends_again(
    database: Database, hook: Receiver
) -> None:
    hook.hangs = threading.Event()
    change(database)
    with sending(database, hook.url) as old:
        old.look()
        until(lambda: hook.got)
        old.leader.resign()
        with sending(database, hook.url) as new:
            assert new.term is not None
            assert old.term is not None
            assert new.term.token > old.term.token
            hook.hangs.set()
            until(lambda: listed(database, DeliveryState.DELIVERED))
    assert old.counts == {}
    assert new.counts == {"delivered": 1}
    assert len({got.headers["webhook-id"] for got in hook.got}) == 1


def test_who_is_killed_between_the_send_and_the_mark_sends_it_again_under_the_same_id(
    database: Database, hook: Receiver
) -> None:
    change(database)
    url = database.engine.url.render_as_string(hide_password=False)
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    child = subprocess.Popen([sys.executable, "-c", DIES_BEFORE_THE_MARK, url, hook.url, SECRET], env=environ)
    assert child.wait(120) == -signal.SIGKILL
    (first,) = hook.got
    assert [one.state for one in listed(database)] == [DeliveryState.WAITING]

    def leads() -> Term | None:
        return Leader(database, ttl_s=600).step()

    term = until(leads)
    next_one = Sending(database, hook.url)
    next_one.term = term
    next_one.outbox.start()
    until(lambda: listed(database, DeliveryState.DELIVERED))
    next_one.outbox.stop()
    again = hook.got[-1]
    assert len(hook.got) == 2
    assert (again.body, again.headers["webhook-id"]) == (first.body, first.headers["webhook-id"])


def test_no_secret_and_no_address_stands_in_what_is_logged_of_a_webhook(
    database: Database, hook: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    hook.answer = lambda _got: (500, {})
    closed = "http://127.0.0.1:1/hook/hunter2"
    change(database)
    with caplog.at_level(logging.DEBUG, "service"), sending(database, f"{hook.url} {closed}", tries=1) as sender:
        sender.look()
        until(lambda: len(listed(database, DeliveryState.DEAD)) == 2)
    told = [str(getattr(record, "facts", "")) + record.getMessage() for record in caplog.records]
    assert sum("webhook_given_up" in line for line in told) == 2
    assert [line for line in told if "hunter2" in line or SECRET in line] == []
    assert {one.error for one in listed(database)} == {"it answered 500", "ConnectError"}
    assert [one for one in listed(database) if "hunter2" in one.endpoint + str(one.error)] == []
