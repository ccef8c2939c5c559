"""Verbs that stream a data set through the service: replay."""

from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from service.client import Retrue
from service.commands.arguments import ModelName
from service.commands.output import AsJson, Key, Url, connect, fail, key_of, note, notes, print_json, say, url_of
from service.commands.progress import bar
from service.domain.duration import parse_duration
from service.replay import Answer, Pace, Replay, Rows, Totals, rows_of

__all__ = ["load_rows", "register"]

INTERRUPTED = 130


def replay(
    model: ModelName,
    data: Annotated[Path | None, typer.Option(help="Parquet or CSV file; the model's own source by default.")] = None,
    start: Annotated[
        str | None, typer.Option("--from", help="First event time; by default where version 1 stopped learning.")
    ] = None,
    until: Annotated[str | None, typer.Option(help="Last event time; the end of the data by default.")] = None,
    rate: Annotated[
        str | None, typer.Option(help="Event time per second, such as 7d; as fast as possible when left out.")
    ] = None,
    label_delay: Annotated[str, typer.Option(help="Event time from a row to its label.")] = "1d",
    batch: Annotated[int, typer.Option(help="Rows a request.", min=1, max=5000)] = 8,
    in_step: Annotated[
        bool, typer.Option(help="Wait for the control loop's checks and runs, as real time would.")
    ] = True,
    lead: Annotated[str, typer.Option(help="With --in-step: how far ahead of the loop the stream may get.")] = "1d",
    url: Url = "",
    key: Key = "",
    as_json: AsJson = False,
) -> None:
    """Stream a data set in event-time order through the HTTP API, sending each label after a delay."""
    try:
        delay = parse_duration(label_delay) if label_delay not in {"0", "0s"} else timedelta(0)
        pace = Pace(
            rate=parse_duration(rate).total_seconds() if rate else None,
            lead=parse_duration(lead) if in_step else None,
            batch=batch,
            label_delay=delay,
        )
        first, last = _moment(start), _moment(until)
    except (ValueError, OverflowError) as error:
        raise fail(str(error), exit_code=2) from None
    with connect(url, key) as retrue:
        rows = load_rows(retrue, model, data=data, start=first, until=last)
    if not len(rows):
        raise fail("there is no row between --from and --until", exit_code=2)
    totals = _stream(url, key, model, rows, pace)
    if as_json:
        print_json({"model": model, "rows": len(rows), **asdict(totals)})
    else:
        sent = f"{totals.sent} requests, {totals.failed} failed"
        say(f"{sent}; {totals.labels_sent} labels, {totals.labels_failed} refused")
        for text in totals.errors:
            note(f"  {text}")
    if totals.failed or totals.labels_failed:
        raise typer.Exit(1)


def _stream(url: str, key: str, model: str, rows: Rows, pace: Pace) -> Totals:
    reached = rows.times[0]
    with bar(notes) as shown:
        task = shown.add_task(model, total=len(rows))

        def answered(answer: Answer) -> None:
            nonlocal reached
            reached = rows.times[answer.first + answer.count - 1]
            shown.update(task, advance=answer.count, description=f"{model} {reached:%Y-%m-%d}")

        try:
            stream = Replay(url_of(url)[0], model, rows, pace=pace, answered=answered, key=key_of(key)[0] or None)
            return stream.run()
        except (ValueError, TimeoutError) as error:
            raise fail(str(error)) from None
        except KeyboardInterrupt:
            words = (
                f"stopped at {reached.isoformat()}: what was sent stays, its checks and runs go on (`retrue status`)"
            )
            raise fail(f"{words}; go on with --from {reached.isoformat()}", exit_code=INTERRUPTED) from None


def load_rows(retrue: Retrue, model: str, *, data: Path | None, start: datetime | None, until: datetime | None) -> Rows:
    """Return the rows to stream, read from `data` or the model's own source.

    Raises
    ------
    typer.Exit
        If the file is missing or has not the model's columns.
    """
    import pandas as pd

    described = retrue.model(model)
    if "timestamp" not in described:
        raise fail(f"the file of {model} was never usable: {described.get('error')}", exit_code=1)
    path = data or Path(described["source"])
    if not path.exists():
        raise fail(f"{path} does not exist: name the data set with --data", exit_code=2)
    try:
        frame: Any = pd.read_csv(path) if path.suffix == ".csv" else pd.read_parquet(path)
    except (ValueError, OSError) as error:
        raise fail(f"{path} can't be read as {path.suffix or 'parquet'}: {error}", exit_code=2) from None
    timestamp = described["timestamp"]
    needed = [timestamp, described["target"], *(feature["name"] for feature in described["schema"]["features"])]
    missing = [name for name in needed if name not in frame.columns]
    if missing:
        raise fail(f"{path} lacks the columns {', '.join(missing)}", exit_code=2)
    try:
        frame[timestamp] = pd.to_datetime(frame[timestamp], utc=True)
    except (ValueError, TypeError) as error:
        raise fail(f"{path}: column {timestamp} holds what is no time: {error}", exit_code=2) from None
    begin = start or retrue.learned_until(model)
    if begin is not None:
        frame = frame[frame[timestamp] > begin] if start is None else frame[frame[timestamp] >= begin]
    if until is not None:
        frame = frame[frame[timestamp] <= until]
    return rows_of(frame, timestamp=timestamp, target=described["target"], features=needed[2:])


def _moment(text: str | None) -> datetime | None:
    if text is None:
        return None
    at = datetime.fromisoformat(text)
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)


def register(app: typer.Typer) -> None:
    """Add the verbs of this file to `app`."""
    app.command()(replay)
