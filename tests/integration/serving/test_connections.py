"""Clients that are slow, deaf, endless or half gone, over raw connections to a real worker process."""

import json
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.storage.artifacts import ArtifactStore
from tests.estimators import Moody, Slow
from tests.launched import PREDICT, ROWS, Launched, launched, prepared, until
from tests.served import PRICE, crown, named, pack, register

pytestmark = pytest.mark.timeout(400)  # processes start slowly on a busy machine

DEADLINE_S = 1.5
BODY_LIMIT = 1 << 20


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launched]:
    home = tmp_path_factory.mktemp("home")
    database = prepared(home, f"sqlite:///{home / 'retrue.db'}")
    store = ArtifactStore(home / "artifacts")
    for name, estimator in (("slow", Slow(0.1)), ("moody", Moody(0.005)), ("rash", Moody(0.0))):
        schema = named(PRICE, name)
        register(database, schema)
        crown(database, pack(store, schema, estimator))
    database.close()
    with launched(home, request_deadline_s=DEADLINE_S, body_limit_bytes=BODY_LIMIT, queue_rows=60) as one:
        yield one


Connect = Callable[[], socket.socket]


@pytest.fixture
def connect(service: Launched) -> Iterator[Connect]:
    """Yield what opens plain connections, which are closed afterwards."""
    with ExitStack() as lines:
        yield lambda: lines.enter_context(service.connect())


def asked(body: bytes, *headers: str, path: str = PREDICT) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def answers(line: socket.socket, n: int = 1) -> list[tuple[int, dict[str, str], bytes]]:
    """Read `n` responses with a length."""
    found: list[tuple[int, dict[str, str], bytes]] = []
    buffer = b""
    while len(found) < n:
        while b"\r\n\r\n" not in buffer:
            part = line.recv(65536)
            if not part:
                return found
            buffer += part
        head, _, buffer = buffer.partition(b"\r\n\r\n")
        first, *rest = head.decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (one.partition(": ") for one in rest)}
        length = int(headers["content-length"])
        while len(buffer) < length:
            part = line.recv(65536)
            if not part:
                return found
            buffer += part
        found.append((int(first.split()[1]), headers, buffer[:length]))
        buffer = buffer[length:]
    return found


def is_closed(line: socket.socket) -> bool:
    try:
        return line.recv(65536) == b""
    except ConnectionError:
        return True


def refused(line: socket.socket) -> tuple[int, dict[str, Any]]:
    ((status, headers, content),) = answers(line)
    assert headers["content-type"] == "application/problem+json"
    return status, json.loads(content)


def rss_mib(service: Launched) -> float:
    pages = int(Path(f"/proc/{service.pid('api-0')}/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def test_a_body_that_comes_byte_by_byte_is_refused_and_nobody_waits_for_it(service: Launched, connect: Connect) -> None:
    lines = [connect() for _ in range(20)]
    for line in lines:
        line.sendall(asked(b"x" * 10_000)[:-10_000])
    began = time.monotonic()
    while time.monotonic() - began < DEADLINE_S - 0.5:
        for line in lines:
            line.sendall(b"x")
        sent = time.monotonic()
        assert service.predict().status_code == httpx.codes.OK
        assert time.monotonic() - sent < 0.5
    for line in lines:
        status, problem = refused(line)
        assert (status, "did not arrive" in problem["detail"]) == (408, True)
    assert time.monotonic() - began < DEADLINE_S + 3
    assert all(is_closed(line) for line in lines)
    assert service.metric('retrue_refused_requests_total{reason="body_late"}') >= 20


def test_a_head_that_comes_byte_by_byte_is_refused(connect: Connect) -> None:
    line = connect()
    for byte in b"POST /v1":
        line.sendall(bytes([byte]))
        time.sleep(0.05)
    assert refused(line)[0] == 408
    assert is_closed(line)


def test_a_connection_that_asks_nothing_is_closed(connect: Connect) -> None:
    silent, chatty = connect(), connect()
    chatty.sendall(asked(json.dumps(ROWS).encode()))
    assert answers(chatty)[0][0] == 200
    ends = time.monotonic() + DEADLINE_S + 2
    while time.monotonic() < ends:  # empty lines before a request are allowed, and are no request
        try:
            chatty.sendall(b"\r\n")
        except ConnectionError:
            break
        time.sleep(0.1)
    assert time.monotonic() < ends
    assert is_closed(silent)


@pytest.mark.parametrize("part", [b"X-Pad: " + b"x" * 1000 + b"\r\n", b"x" * 1000])
def test_a_head_without_end_is_refused(service: Launched, connect: Connect, part: bytes) -> None:
    line = connect()
    line.sendall(b"GET /livez HTTP/1.1\r\nX-Long: ")
    with pytest.raises(ConnectionError):  # noqa: PT012  it may break at any of these
        for _ in range(100_000):
            line.sendall(part)
        pytest.fail("nobody stopped it")
    before = rss_mib(service)
    assert before < 600
    assert service.metric('retrue_refused_requests_total{reason="head_too_large"}') >= 1


def test_a_head_a_little_too_large_is_told_so(connect: Connect) -> None:
    line = connect()
    line.sendall(b"GET /livez HTTP/1.1\r\n" + b"X-Pad: 12345678\r\n" * 5000)
    assert refused(line)[0] == 431


@pytest.mark.parametrize("nonsense", [b"\x16\x03\x01\x02\x00", b"HELO x\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n"])
def test_what_is_not_http_is_refused_with_a_problem(connect: Connect, nonsense: bytes) -> None:
    line = connect()
    line.sendall(nonsense)
    assert refused(line)[0] == 400
    assert is_closed(line)


def test_a_client_that_still_sends_a_refused_body_can_read_why(connect: Connect) -> None:
    line = connect()
    line.sendall(asked(b"x" * 4 * BODY_LIMIT))
    assert refused(line)[0] == 413
    assert is_closed(line)


def test_a_body_without_a_length_is_refused_once_it_is_too_large(connect: Connect) -> None:
    line = connect()
    line.sendall(f"POST {PREDICT} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
    for _ in range(BODY_LIMIT // 65536 + 2):
        line.sendall(b"10000\r\n" + b"x" * 65536 + b"\r\n")
    assert refused(line)[0] == 413


def test_a_client_that_expects_to_be_asked_on_is_told_no_at_once(connect: Connect) -> None:
    line = connect()
    size, asks = f"Content-Length: {4 * BODY_LIMIT}", "Expect: 100-continue"
    line.sendall(f"POST {PREDICT} HTTP/1.1\r\nHost: localhost\r\n{size}\r\n{asks}\r\n\r\n".encode())
    assert refused(line)[0] == 413


def test_a_client_that_never_reads_is_cut_off_and_costs_little(service: Launched, connect: Connect) -> None:
    before = rss_mib(service)
    # An answer is as large as its request; asked ahead, they are more than the system's own buffers take.
    body = json.dumps({"instances": ROWS["instances"] * 8000}).encode()
    lines = [connect() for _ in range(5)]
    for line in lines:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        line.settimeout(0.5)
        try:
            for _ in range(40):
                line.sendall(asked(body))
        except (TimeoutError, ConnectionError):
            pass  # nobody takes more of it, or it was cut off already
    assert service.predict().status_code == httpx.codes.OK
    assert rss_mib(service) - before < 150

    def is_cut(line: socket.socket) -> bool:
        try:
            line.send(b"x", socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            return True
        return False

    until(lambda: all(is_cut(line) for line in lines), within_s=20, what="being cut off")


def test_requests_sent_ahead_are_answered_in_their_order(service: Launched, connect: Connect) -> None:
    line = connect()
    bodies = [json.dumps({"instances": [[float(n)] * 8] * (n % 3 + 1)}).encode() for n in range(200)]
    line.sendall(b"".join(asked(body) for body in bodies))
    ahead = [json.loads(content)["predictions"] for _, _, content in answers(line, len(bodies))]
    alone = [service.request("POST", PREDICT, content=body).json()["predictions"] for body in bodies[::20]]
    assert [len(one) for one in ahead] == [n % 3 + 1 for n in range(200)]
    for one, other in zip(ahead[::20], alone, strict=True):
        assert one == pytest.approx(other)


def test_a_client_that_sends_thousands_ahead_is_cut_off(connect: Connect) -> None:
    line = connect()
    one = b"GET /livez HTTP/1.1\r\n\r\n"
    with pytest.raises(ConnectionError):  # noqa: PT012  it may break at any of these
        for _ in range(2000):
            line.sendall(one * 1000)
        pytest.fail("nobody stopped it")


def test_a_client_that_closed_its_side_is_answered(connect: Connect) -> None:
    line = connect()
    line.sendall(asked(json.dumps(ROWS).encode(), path="/v1/models/slow/predict"))
    line.shutdown(socket.SHUT_WR)
    assert answers(line)[0][0] == 200
    assert is_closed(line)


def test_a_client_that_leaves_in_the_middle_of_its_body_harms_nobody(service: Launched, connect: Connect) -> None:
    for _ in range(50):
        line = connect()
        line.sendall(asked(b"x" * 1000)[:-500])
        line.close()
    assert service.predict().status_code == httpx.codes.OK


def test_more_rows_than_may_wait_are_refused_with_a_time_to_come_back(service: Launched) -> None:
    body = {"instances": ROWS["instances"] * 20}
    with ThreadPoolExecutor(12) as pool:
        got = list(
            pool.map(lambda _: service.request("POST", "/v1/models/slow/predict", json=body, timeout_s=20), range(24))
        )
    statuses = {one.status_code for one in got}
    assert statuses == {200, 503}
    for one in got:
        if one.status_code == 503:
            assert (one.json()["code"], int(one.headers["retry-after"])) == ("overloaded", 1)


def test_a_model_that_hangs_is_given_up_at_the_deadline_and_the_others_go_on(service: Launched) -> None:
    path = "/v1/models/moody/predict"
    began = time.monotonic()
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(service.request, "POST", path, json={"instances": [[666.0] * 8]})
        until(lambda: service.metric('retrue_queue_rows{model="moody"') == 0)  # set when a batch goes to a thread
        behind = pool.submit(service.request, "POST", path, json=ROWS)
        assert service.predict().status_code == httpx.codes.OK
        for one in (first, behind):
            assert one.result().status_code == 503
            assert int(one.result().headers["retry-after"]) > 0
    assert time.monotonic() - began < DEADLINE_S + 3
    assert service.predict().status_code == httpx.codes.OK
    ready = service.request("GET", "/readyz")
    assert (ready.status_code, ready.json()["models"]["moody"]) == (200, "does not answer")


def test_a_worker_whose_event_loop_hangs_is_replaced(service: Launched, connect: Connect) -> None:
    before = service.pid("api-0")
    line = connect()
    line.sendall(asked(json.dumps({"instances": [[666.0] * 8]}).encode(), path="/v1/models/rash/predict"))
    assert is_closed(line)
    until(lambda: service.pid("api-0") != before and service.is_ready(), what="another worker")
    assert service.predict().status_code == httpx.codes.OK
