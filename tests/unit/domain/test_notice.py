"""Notices: the event's form, its signature, the pauses between tries."""

import base64
import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from service.domain.notice import RUN_KINDS, Kind, body_of, endpoints_of, pause_after, secrets_of, signatures
from service.domain.run import TERMINAL, RunState

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def test_an_event_has_what_cloudevents_asks_for_and_the_same_bytes_each_time() -> None:
    def told(data: dict[str, object]) -> bytes:
        return body_of(notice_id="n1", kind=Kind.RUN_FAILED, source="urn:mine", subject="/v1/runs/r1", at=AT, data=data)

    body = told({"run": "r1", "detail": "ä"})
    assert body == told({"detail": "ä", "run": "r1"})
    assert json.loads(body) == {
        "specversion": "1.0",
        "id": "n1",
        "source": "urn:mine",
        "type": "retrue.run.failed",
        "subject": "/v1/runs/r1",
        "time": "2026-01-02T03:04:05Z",
        "datacontenttype": "application/json",
        "data": {"run": "r1", "detail": "ä"},
    }


def test_every_end_of_a_run_is_told_and_of_the_other_states_only_that_a_person_is_wanted() -> None:
    assert set(RUN_KINDS) == TERMINAL | {RunState.AWAITING_APPROVAL}
    assert len(set(RUN_KINDS.values())) == len(RUN_KINDS)


def test_the_signature_is_that_of_standard_webhooks() -> None:
    # The example that the specification's own libraries are tested with.
    (key,) = secrets_of("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    found = signatures(
        [key], notice_id="msg_p5jXN8AQM9LWM0D4loKWxJek", timestamp=1614265330, body=b'{"test": 2432232314}'
    )
    assert found == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_a_secret_on_its_way_out_still_signs() -> None:
    words = " ".join(f"whsec_{base64.b64encode(bytes([number]) * 32).decode()}" for number in (1, 2))
    both = signatures(secrets_of(words), notice_id="n", timestamp=1, body=b"{}").split(" ")
    alone = [signatures([key], notice_id="n", timestamp=1, body=b"{}") for key in secrets_of(words)]
    assert both == alone
    assert len(set(both)) == 2


@pytest.mark.parametrize("text", ["hunter2", "whsec_", "whsec_AAAA", "whsec_!!!!", "A" * 44, f"whsec_{'A' * 100}"])
def test_what_is_no_secret_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="whsec_"):
        secrets_of(text)


def test_an_endpoints_name_shows_its_host_and_nothing_that_opens_anything() -> None:
    one, other = endpoints_of("https://me:hunter2@Hooks.example:8443/T0/token?key=secret, https://[::1]/x")
    assert one.name.startswith("https://hooks.example:8443#")
    assert other.name.startswith("https://[::1]#")
    assert one.url == "https://me:hunter2@Hooks.example:8443/T0/token?key=secret"
    for word in ("hunter2", "token", "secret", "T0"):
        assert word not in one.name


def test_two_addresses_of_one_host_are_two_endpoints_and_the_same_address_twice_is_one() -> None:
    names = [endpoint.name for endpoint in endpoints_of("http://h/a http://h/b http://h/a")]
    assert len(names) == len(set(names)) == 2


@pytest.mark.parametrize("text", ["hooks.example/x", "ftp://h/x", "http://", "file:///etc/passwd"])
def test_what_is_no_web_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="http"):
        endpoints_of(text)


def test_pauses_grow_to_hours_and_no_further_and_an_endpoints_own_wish_is_kept_within_that() -> None:
    first = timedelta(seconds=5)
    pauses = [pause_after(tries, first=first) for tries in range(1, 40)]
    assert pauses[:4] == [timedelta(seconds=seconds) for seconds in (5, 15, 45, 135)]
    assert pauses == sorted(pauses)
    assert pauses[-1] == timedelta(hours=6)
    assert pause_after(1, first=first, asked=timedelta(minutes=2)) == timedelta(minutes=2)
    assert pause_after(1, first=first, asked=timedelta(seconds=1)) == first
    assert pause_after(1, first=first, asked=timedelta(days=9)) == timedelta(hours=6)


def test_the_document_for_receivers_names_every_kind_and_no_other() -> None:
    text = (Path(__file__).parents[3] / "docs" / "webhooks.md").read_text(encoding="utf-8")
    assert set(re.findall(r"`(retrue\.\w+\.\w+)`", text)) == {kind.type for kind in Kind}
