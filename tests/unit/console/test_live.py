"""A run's stream: it tells of each change, ends with the run, and holds no process up that is about to end."""

from concurrent.futures import ThreadPoolExecutor

from service.console.runs import stamp_of
from service.control import requests
from service.storage import runs
from tests.unit.console.conftest import Console


def test_the_stream_of_an_ended_run_says_so_and_ends(shared_console: Console) -> None:
    response = shared_console.client.get(f"/runs/{shared_console.made.run}/stream")
    assert response.headers["content-type"].startswith("text/event-stream")
    assert [line for line in response.text.splitlines() if line.startswith("event")] == ["event: moved", "event: over"]


def test_the_stream_tells_of_a_change_and_ends_with_the_run(console: Console) -> None:
    run = console.made.waiting
    with console.database.read() as conn:
        seen = stamp_of(runs.get(conn, run))
    with ThreadPoolExecutor(1) as pool:
        told = pool.submit(console.client.get, f"/runs/{run}/stream?seen={seen}")
        with console.database.write() as conn:
            requests.cancel(conn, run, actor="ada", reason="no")
            after = stamp_of(runs.get(conn, run))
        lines = told.result(60).text.splitlines()
    assert [line for line in lines if line] == [
        "retry: 2000", "event: moved", f"data: {after}", "event: over", f"data: {after}",
    ]  # fmt: skip


def test_a_stream_holds_no_process_up_that_is_about_to_end(console: Console) -> None:
    console.leaving = True
    assert console.client.get(f"/runs/{console.made.waiting}/stream").text == "retry: 2000\n\n"


def test_the_stream_of_no_run_is_not_found(shared_console: Console) -> None:
    assert shared_console.client.get("/runs/none/stream").status_code == 404
