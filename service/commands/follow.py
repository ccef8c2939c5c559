"""Waiting for what was asked: each change told once, and on Ctrl-C what goes on and how to look at it again."""

import time
from collections.abc import Callable
from typing import Any, Literal

import typer

from service.client import Json, Retrue, RunReport, StillRunning
from service.commands.detail import outcome
from service.commands.output import fail, print_json_line, say
from service.commands.progress import tell

__all__ = ["ENDED_OTHERWISE", "GOOD_ENDS", "follow_check", "follow_run", "follow_swap"]

GOOD_ENDS = frozenset({"succeeded", "probation", "skipped"})
"""Ends of a run for which `retrain --wait` exits 0."""

ENDED_OTHERWISE = 4
"""Exit code where what was waited for did not end as wished, or not in time."""

INTERRUPTED = 130
FOR_EVER_S = 10 * 365 * 86_400.0
POLL_S = 0.3


def follow_run(
    retrue: Retrue, run_id: str, *, as_json: Literal["lines", "silent"] | None, deadline_s: float | None
) -> RunReport:
    """Wait until the run ends or waits for something, telling each change.

    Parameters
    ----------
    as_json
        ``lines``: one line of JSON a change; ``silent``: nothing; else words for people.

    Raises
    ------
    typer.Exit
        On Ctrl-C, or if it is not over in time: then with `ENDED_OTHERWISE`.
    """
    told = _Told(as_json)
    try:
        return retrue.wait_for_run(run_id, deadline_s=FOR_EVER_S if deadline_s is None else deadline_s, seen=told)
    except StillRunning as error:
        raise fail(f"{error}: `retrue runs {run_id} --watch`", exit_code=ENDED_OTHERWISE) from None
    except KeyboardInterrupt:
        raise _left_alone(f"run {run_id}", f"retrue runs {run_id} --watch", end=f"retrue cancel {run_id}") from None


def follow_check(retrue: Retrue, model: str, check_id: str, *, deadline_s: float) -> Json:
    """Wait until the check is done or has failed; raises as `follow_run`."""

    def look() -> Json | None:
        check = retrue.check(model, check_id)
        tell(f"check {check_id} is {check['state']}")
        return check if check["state"] in {"done", "failed"} else None

    return _awaited(look, f"check {check_id}", again=f"retrue checks {model}", deadline_s=deadline_s)


def follow_swap(retrue: Retrue, model: str, swap: Json, *, deadline_s: float) -> bool:
    """Wait until the promotion is committed or has failed; return whether it was committed. Raises as `follow_run`."""

    def look() -> Json | None:
        found = retrue.model(model)
        waiting = (found.get("swap") or {}).get("id") == swap["id"]
        tell(f"every worker loads version {swap['version']}")
        return None if waiting else found

    found = _awaited(look, f"promotion {swap['id']}", again=f"retrue status {model}", deadline_s=deadline_s)
    champion = found.get("champion") or {}
    return bool(
        champion.get("version") == swap["version"] and champion.get("generation") == swap["expected_generation"] + 1
    )


def _awaited(look: Callable[[], Json | None], what: str, *, again: str, deadline_s: float) -> Json:
    ends = time.monotonic() + deadline_s
    try:
        while (found := look()) is None:
            if time.monotonic() > ends:
                raise fail(f"{what} is still under way after {deadline_s:.0f} s: `{again}`", exit_code=ENDED_OTHERWISE)
            time.sleep(POLL_S)
    except KeyboardInterrupt:
        raise _left_alone(what, again) from None
    return found


def _left_alone(what: str, again: str, *, end: str = "") -> typer.Exit:
    how_to_end = f"; end it with `{end}`" if end else ""
    return fail(f"{what} goes on: look at it with `{again}`{how_to_end}", exit_code=INTERRUPTED)


class _Told:
    """Tells each change of a run once, with the seconds it took to get there."""

    def __init__(self, as_json: str | None) -> None:
        self._as_json = as_json
        self._seen: tuple[Any, ...] | None = None
        self._began = time.monotonic()

    def __call__(self, run: RunReport) -> None:
        """Tell `run` if it has news."""
        words = outcome(run.document)
        tell(f"{run.model}: {run.state}" + (f": {words}" if words else ""))
        progress = run.document.get("progress") if self._as_json == "lines" else None
        news = (run.state, run.attempt, run.version, run.code, progress)
        if news == self._seen:
            return
        self._seen = news
        if self._as_json == "lines":
            print_json_line(run.document)
        elif self._as_json is None:
            say(f"{time.monotonic() - self._began:6.1f} s  {run.state}" + (f": {words}" if words else ""))
