"""Verbs of an application: predict rows, and label what was predicted."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any

import typer

from service.client import BadInput, ClientError, Json, NotPermitted, NotSignedIn, Predicted, Refused, Retrue
from service.commands.arguments import ModelName
from service.commands.output import AsJson, Key, Url, connect, fail, note, notes, print_json, print_table
from service.commands.progress import bar
from service.commands.refused import exit_code_of, words_of
from service.commands.rows import Format, Typed, guess, read_rows, types_of

__all__ = ["register"]

Input = Annotated[str, typer.Argument(metavar="FILE", help="JSON, JSON lines or CSV; - is standard input.")]
Written = Annotated[Format, typer.Option("--format", help="How it is written; auto: by name and first character.")]
Batch = Annotated[int, typer.Option("--batch", help="Rows a request.", min=1, max=10_000)]

INTERRUPTED = 130


@dataclass
class _Done:
    """What was done of the work, and what stopped it."""

    results: list[Json] = field(default_factory=list)
    count: int = 0
    stopped: tuple[str, int] | None = None
    """The words and the exit code."""


def predict(
    model: ModelName,
    source: Input = "-",
    written: Written = Format.AUTO,
    batch: Batch = 500,
    url: Url = "",
    key: Key = "",
    as_json: AsJson = False,
) -> None:
    """Ask the champion for predictions of the rows in FILE; each is recorded, and gets an id for its label."""
    with connect(url, key) as retrue:
        rows = _read(retrue, model, source, written, under="instances")

        def ask(part: list[Any], first: int) -> list[Json]:
            return _results(retrue.predict(model, part), first)

        done = _in_batches(rows, ask, batch=batch, what="row")
    if as_json:
        print_json(_predicted_json(model, rows, done))
    elif done.results:
        _print_predictions(done.results)
    if done.stopped is not None:
        left = f"; {done.count} of {len(rows)} rows were answered, and are recorded" if done.count else ""
        raise fail(f"{done.stopped[0]}{left}", exit_code=done.stopped[1])


def label(
    model: ModelName,
    source: Input = "-",
    labels: Annotated[
        list[str] | None, typer.Option("--set", metavar="ID=LABEL", help="One label, instead of a FILE; repeat it.")
    ] = None,
    written: Written = Format.AUTO,
    batch: Batch = 500,
    url: Url = "",
    key: Key = "",
    as_json: AsJson = False,
) -> None:
    """Send the truth for predictions: rows of id, label and perhaps observed_at. Sending one again corrects it."""
    with connect(url, key) as retrue:
        if labels:
            rows = _given(labels, _types(retrue, model))
        else:
            rows = _read(retrue, model, source, written, under="labels")
        accepted = 0

        def send(part: list[Any], first: int) -> list[Json]:
            nonlocal accepted
            try:
                answer = retrue.feedback(model, part)
            except BadInput as refused:
                if "accepted" not in refused.problem:
                    raise
                return [_placed(fault, first) for fault in refused.errors]
            accepted += answer.accepted
            return [_placed(fault, first) for fault in answer.errors]

        done = _in_batches(rows, send, batch=batch, what="label")
    refused = done.count - accepted
    if as_json:
        shown = {"model": model, "labels": len(rows), "accepted": accepted, "refused": refused}
        print_json(shown | {"errors": done.results} | _stopped_json(done))
    else:
        print_table("", ("accepted", "refused"), [(accepted, refused)])
        for fault in done.results[:10]:
            note(f"label {fault['item'] + 1}, {fault['field'] or 'as a whole'}: {fault['detail']}")
    if done.stopped is not None:
        left = f"; {accepted} of {len(rows)} labels were accepted" if accepted else ""
        raise fail(f"{done.stopped[0]}{left}", exit_code=done.stopped[1])
    if refused:
        raise fail(f"{refused} of {len(rows)} labels were refused", exit_code=1 if accepted else 2)


def register(app: typer.Typer) -> None:
    """Add the verbs of this file to `app`."""
    for verb in (predict, label):
        app.command()(verb)


def _read(retrue: Retrue, model: str, source: str, written: Format, *, under: str) -> list[Any]:
    try:
        typed: Typed = _types(retrue, model) if written in {Format.AUTO, Format.CSV} else {}
        return read_rows(source, written=written, under=under, typed=typed)
    except ValueError as error:
        raise fail(str(error), exit_code=2) from None


def _types(retrue: Retrue, model: str) -> Typed:
    """Return the types of the model's columns; none where the key may predict and not read: then cells are guessed."""
    try:
        return types_of(retrue.model(model).get("schema") or {})
    except (NotSignedIn, NotPermitted):
        return {}


def _given(pairs: list[str], typed: Typed) -> list[Any]:
    rows = []
    for pair in pairs:
        wanted, sign, text = pair.partition("=")
        if not sign or not wanted.strip():
            raise fail(f"{pair!r} is not ID=LABEL", exit_code=2)
        rows.append({"id": wanted.strip(), "label": typed.get("label", guess)(text)})
    return rows


def _in_batches(rows: list[Any], ask: Callable[[list[Any], int], list[Json]], *, batch: int, what: str) -> _Done:
    """Ask for one batch after the other until all are done or one is refused; what was done before stays done."""
    done = _Done()
    with bar(notes) as shown:
        task = shown.add_task(f"{what}s", total=len(rows), visible=len(rows) > batch)
        for first in range(0, len(rows), batch):
            part = rows[first : first + batch]
            try:
                done.results += ask(part, first)
            except KeyboardInterrupt:
                done.stopped = ("interrupted", INTERRUPTED)
            except UnicodeEncodeError:
                done.stopped = (f"a {what} holds text that is no Unicode", 2)
            except ClientError as error:
                done.stopped = (_words(error, first, what), exit_code_of(error))
            if done.stopped is not None:
                break
            done.count += len(part)
            shown.update(task, advance=len(part))
    return done


def _words(error: ClientError, first: int, what: str) -> str:
    if isinstance(error, Refused) and error.errors and "row" in error.errors[0]:
        listed = [
            f"{what} {first + fault['row'] + 1}, {fault['field'] or 'as a whole'}: {fault['detail']}"
            for fault in error.errors[:3]
        ]
        return "; ".join(listed) + (" …" if len(error.errors) > 3 else "")
    return words_of(error)


def _results(answer: Predicted, first: int) -> list[Json]:
    results = []
    for place, prediction in enumerate(answer.predictions):
        row: Json = {"row": first + place, "prediction": prediction}
        if answer.probabilities is not None:
            row["probabilities"] = answer.probabilities[place]
            row["classes"] = answer.classes
        row["id"] = answer.ids[place] if answer.ids else None
        results.append(row | {"version": answer.version, "generation": answer.generation})
    return results


def _predicted_json(model: str, rows: list[Any], done: _Done) -> Json:
    return {"model": model, "rows": len(rows), "predictions": done.results} | _stopped_json(done)


def _stopped_json(done: _Done) -> Json:
    return {} if done.stopped is None else {"error": done.stopped[0]}


def _print_predictions(results: list[Json]) -> None:
    print_table(
        "",
        ("row", "prediction", "probability", "version", "id"),
        (
            (
                row["row"] + 1,
                row["prediction"],
                None if "probabilities" not in row else f"{max(row['probabilities']):.3f}",
                row["version"],
                row["id"] or "not recorded",
            )
            for row in results
        ),
    )


def _placed(fault: Json, first: int) -> Json:
    return fault | {"item": first + int(fault["item"])}
