"""The demo: the whole loop on real data, in one command."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from service.client import Json, Refused, Retrue, Unreachable, moment
from service.commands.output import console, fail, note, words
from service.commands.scoreboard import Scoreboard, Week, percentile
from service.commands.stream import load_rows
from service.domain.duration import parse_duration
from service.replay import Answer, Pace, Replay, Rows

__all__ = ["register"]

MODEL = "electricity"
HURRY = {
    "RETRUE_TICK_S": "0.1",
    "RETRUE_SPOOL_SEGMENT_S": "0.1",
    "RETRUE_COMMIT_S": "0.1",
    "RETRUE_REPORT_EVERY_S": "10",
}
"""A week passes in a second here: the service looks more often than it would have to, and draws fewer reports."""
START_S = 120.0
"""Wall-clock seconds for start-up and version 1."""


def demo(
    keep: Annotated[bool, typer.Option("--keep", help="Leave the service up afterwards.")] = False,
    weeks: Annotated[int | None, typer.Option(help="Stop after so many weeks of the stream.", min=2)] = None,
    workers: Annotated[int, typer.Option(help="API workers.", min=1, max=8)] = 2,
    home: Annotated[Path, typer.Option(help="Home folder; emptied first.")] = Path("var/demo"),
) -> None:
    """Train on eight weeks of electricity data, stream the other two years, watch it retrain itself.

    Version 1 learns from the first eight weeks. The rest of the data streams through the HTTP API in event-time
    order, each label one day late. Beside the champion, version 1 is scored on the same rows as if nobody had ever
    retrained it.
    """
    # The service is a child in a session of its own: whoever ends the demo must not leave it behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if home.exists():
        shutil.rmtree(home)
    home.mkdir(parents=True)
    port = _free_port()
    url = f"http://127.0.0.1:{port}"
    log = home / "service.log"
    console.print(f"starting the service at {url} (home {home}, log {log})")
    with log.open("wb") as sink:
        service = _start(home, port, workers, sink)
    failed = True
    try:
        totals_failed = _play(url, home, service, weeks)
        failed = totals_failed > 0
    except (Unreachable, Refused, TimeoutError, ValueError) as error:
        note(_tail(log))
        raise fail(f"the demo broke off: {error}") from error
    finally:
        if keep and not failed:
            console.print(
                f"\nleft running (pid {service.pid}): API and docs {url}/docs, metrics {url}/metrics, "
                f"status: RETRUE_URL={url} .venv/bin/retrue status\nstop it with: kill {service.pid}",
                soft_wrap=True,
            )
        else:
            _stop(service)
    if failed:
        raise typer.Exit(1)


def _play(url: str, home: Path, service: "subprocess.Popen[bytes]", weeks: int | None) -> int:
    with Retrue(url) as retrue:
        _wait_for_champion(retrue, service)
        described = retrue.model(MODEL)
        rows = load_rows(retrue, MODEL, data=None, start=None, until=None)
        version = retrue.version(MODEL, 1)
        start = moment(version["learned_until"])
        if weeks is not None:
            ends = start + weeks * parse_duration("7d")
            count = sum(at <= ends for at in rows.times)
            rows = Rows(times=rows.times[:count], instances=rows.instances[:count], labels=rows.labels[:count])
        console.print(
            f"version 1 learned until {start:%Y-%m-%d %H:%M}; streaming {len(rows):,} rows after it, labels 1 d late\n"
        )
        board = Scoreboard(rows, first_answers=_first_answers(home, version, rows), start=start, score=_accuracy)
        printer = WeekPrinter(retrue)

        def answered(answer: Answer) -> None:
            for week in board.add(answer):
                printer.print(week)

        began = time.monotonic()
        pace = Pace(lead=parse_duration("1d"), batch=8, label_delay=parse_duration("1d"))
        totals = Replay(url, MODEL, rows, pace=pace, answered=answered).run()
        for week in board.finish():
            printer.print(week)
        printer.flush()
        _summarise(
            retrue, described, board, totals_words=(totals.sent, totals.failed), seconds=time.monotonic() - began
        )
        for text in totals.errors:
            note(f"  {text}")
        return totals.failed


def _summarise(
    retrue: Retrue, described: Json, board: Scoreboard, *, totals_words: tuple[int, int], seconds: float
) -> None:
    runs = retrue.runs(model=MODEL, limit=200)
    ends = [run["state"] for run in runs if run["trigger"] != "initial"]
    codes = [run["code"] for run in runs if run["trigger"] != "initial" and run["state"] == "succeeded"]
    promoted = sum(state in {"succeeded", "probation", "rolled_back"} for state in ends)
    champion, first = board.weekly_means()
    kappa, kappa_first = board.against_no_change()
    calm, around = board.latencies()
    sent, failed = totals_words
    console.print(
        f"\n[bold]{len(board.weeks)} weeks in {seconds:.0f} s[/]\n"
        f"mean weekly {described['metric']}   champion [bold]{champion:.3f}[/]   never retrained {first:.3f}\n"
        f"kappa against 'no change'     champion {kappa:+.2f}   never retrained {kappa_first:+.2f}"
        "   (below 0: repeating the last label is better)\n"
        f"runs {len(ends)}: {promoted} promoted ({codes.count('clean')} kept, {codes.count('unproven')} kept unproven, "
        f"{ends.count('rolled_back')} taken back on probation), {ends.count('rejected')} rejected, "
        f"{len(ends) - promoted - ends.count('rejected')} other; swaps seen by the client: {board.swaps}\n"
        f"requests {sent:,}, failed [bold]{failed}[/]\n"
        f"p99 {percentile(calm, 0.99) * 1e3:.1f} ms away from swaps, {percentile(around, 0.99) * 1e3:.1f} ms within "
        f"1 s of one ({len(around)} requests)",
        soft_wrap=True,
    )


class WeekPrinter:
    """Prints a line a week: scores, the check's verdict, what was decided.

    A week's check runs just after its last row, so each week is printed when the next one is over.
    """

    def __init__(self, retrue: Retrue) -> None:
        self._retrue = retrue
        self._count = 0
        self._version = 1
        self._held: Week | None = None

    def print(self, week: Week) -> None:
        """Print the week before, and hold this one."""
        self.flush()
        self._held = week

    def flush(self) -> None:
        """Print the week that is held."""
        if self._held is not None:
            self._print(self._held)
            self._held = None

    def _print(self, week: Week) -> None:
        if self._count % 20 == 0:
            console.print("[bold]week  until       version  champion  version 1  check        decision[/]")
        self._count += 1
        check = self._check_at(week.until)
        verdict = words(check, "verdict") or "–"
        decision = words(check, "decision", "code") or "–"
        run = words(check, "run_id")
        outcome = f" → {self._retrue.run(run)['state']}" if run else ""
        mark = "[green]▲[/]" if week.version != self._version else " "
        self._version = week.version
        console.print(
            f"{self._count:>4}  {week.until:%Y-%m-%d}  {week.version:>6} {mark}  {week.champion:>8.3f}  "
            f"{week.first:>9.3f}  {verdict:<12} {decision}{outcome}",
            soft_wrap=True,
        )

    def _check_at(self, until: datetime) -> Json:
        for check in self._retrue.checks(MODEL, limit=5):
            window_until = check.get("window_until")
            if window_until and moment(window_until) == until:
                return check
        return {}


def _first_answers(home: Path, version: Json, rows: Rows) -> list[Any]:
    """Return what version 1 answers for every row, from its own artifact."""
    import pandas as pd

    from service.domain.answer import answers
    from service.domain.spec import Schema
    from service.learning.frames import design
    from service.learning.package import unpack
    from service.storage.artifacts import ArtifactStore

    schema = Schema.from_json(version["manifest"]["schema"])
    estimator = unpack(ArtifactStore(home / "artifacts").read(version["artifact"]))
    x = design(schema, pd.DataFrame(list(rows.instances)))
    outputs, _ = answers(estimator, version["manifest"]["output"], schema.classes, x)
    return list(outputs)


def _accuracy(truth: Sequence[Any], predicted: Sequence[Any]) -> float:
    return sum(bool(a == b) for a, b in zip(truth, predicted, strict=True)) / len(truth)


def _wait_for_champion(retrue: Retrue, service: "subprocess.Popen[bytes]") -> None:
    ends = time.monotonic() + START_S
    while time.monotonic() < ends:
        if service.poll() is not None:
            msg = f"the service ended with exit code {service.returncode}"
            raise ValueError(msg)
        with suppress(Unreachable, Refused):
            if retrue.is_ready() and retrue.model(MODEL).get("champion"):
                return
        time.sleep(0.2)
    msg = f"no champion after {START_S:.0f} s"
    raise TimeoutError(msg)


def _start(home: Path, port: int, workers: int, sink: Any) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(  # noqa: S603  our own command
        [sys.executable, "-m", "service", "serve", "--workers", str(workers), "--port", str(port)],
        env=os.environ | {"RETRUE_HOME": str(home), "RETRUE_HOST": "127.0.0.1", "RETRUE_ACCESS": "auto"} | HURRY,
        stdin=subprocess.DEVNULL,
        stdout=sink,
        stderr=sink,
        start_new_session=True,
    )


def _stop(service: "subprocess.Popen[bytes]") -> None:
    service.send_signal(signal.SIGTERM)
    try:
        service.wait(15)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(service.pid, signal.SIGKILL)
        service.wait(5)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _tail(log: Path, lines: int = 15) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])


def register(app: typer.Typer) -> None:
    """Add the verbs of this file to `app`."""
    app.command()(demo)
