"""Verbs that stream a data set through the service: replay."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from service.client import Retrue
from service.commands.look import ModelName
from service.commands.output import DEFAULT_URL, Key, Url, connect, console, fail, notes
from service.domain.duration import parse_duration
from service.replay import Answer, Pace, Replay, Rows, rows_of

__all__ = ["load_rows", "register"]


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
    except ValueError as error:
        raise fail(str(error), exit_code=2) from None
    with connect(url, key) as retrue:
        rows = load_rows(retrue, model, data=data, start=first, until=last)
    if not len(rows):
        raise fail("there is no row between --from and --until", exit_code=2)
    progress = Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=notes
    )
    with progress:
        task = progress.add_task(model, total=len(rows))

        def answered(answer: Answer) -> None:
            at = rows.times[answer.first]
            progress.update(task, advance=answer.count, description=f"{model} {at:%Y-%m-%d}")

        try:
            totals = Replay(url or DEFAULT_URL, model, rows, pace=pace, answered=answered, key=key or None).run()
        except (ValueError, TimeoutError) as error:
            raise fail(str(error)) from None
    console.print(
        f"{totals.sent} requests, {totals.failed} failed; {totals.labels_sent} labels, {totals.labels_failed} refused"
    )
    for text in totals.errors:
        notes.print(f"  {text}", soft_wrap=True)
    if totals.failed or totals.labels_failed:
        raise typer.Exit(1)


def load_rows(retrue: Retrue, model: str, *, data: Path | None, start: datetime | None, until: datetime | None) -> Rows:
    """Return the rows to stream, read from `data` or the model's own source.

    Raises
    ------
    typer.Exit
        If the file is missing or has not the model's columns.
    """
    import pandas as pd

    described = retrue.model(model)
    path = data or Path(described["source"])
    if not path.exists():
        raise fail(f"{path} does not exist: name the data set with --data", exit_code=2)
    frame: Any = pd.read_csv(path) if path.suffix == ".csv" else pd.read_parquet(path)
    timestamp = described["timestamp"]
    needed = [timestamp, described["target"], *(feature["name"] for feature in described["schema"]["features"])]
    missing = [name for name in needed if name not in frame.columns]
    if missing:
        raise fail(f"{path} lacks the columns {', '.join(missing)}", exit_code=2)
    frame[timestamp] = pd.to_datetime(frame[timestamp], utc=True)
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
