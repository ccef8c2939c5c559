"""Arguments that many verbs take, and what the shell may complete them with.

Completion asks the service, where one answers at once and the key may read; else it is silent: a prompt is no place for
errors.
"""

from collections.abc import Callable
from typing import Annotated, Any

import typer

from service.client import ClientError, Retrue
from service.commands import output

__all__ = [
    "CheckOrRun",
    "ModelName",
    "ModelOrRun",
    "Reason",
    "RunId",
    "SomeModel",
    "SomeVersion",
    "VersionNumber",
    "plain_name",
]

PATIENCE_S = 1.0
MANY = 30


def plain_name(text: str | None) -> str | None:
    """Return `text` unless it could lead to another address than that of a thing with this name."""
    if text is not None and (not text.strip(".") or "/" in text or "\\" in text):
        msg = f"{text!r} is no name or id."
        raise typer.BadParameter(msg)
    return text


def _asked(context: typer.Context, ask: Callable[[Retrue], list[tuple[str, str]]]) -> list[tuple[str, str]]:
    """Return what `ask` finds; nothing if the service does not answer as it should."""
    given = context.params
    try:
        with output.client_of(
            str(given.get("url") or ""), str(given.get("key") or ""), timeout_s=PATIENCE_S, retries=0
        ) as retrue:
            return ask(retrue)
    except (ClientError, ValueError, KeyError, TypeError):
        return []


def _models(context: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    def ask(retrue: Retrue) -> list[tuple[str, str]]:
        return [(model["name"], str(model.get("task") or "")) for model in retrue.models()]

    return _starting(incomplete, _asked(context, ask))


def _versions(context: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    model = context.params.get("model")

    def ask(retrue: Retrue) -> list[tuple[str, str]]:
        return [(str(version["version"]), version["state"]) for version in retrue.versions(str(model))]

    return _starting(incomplete, _asked(context, ask)) if model else []


def _runs(context: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    def ask(retrue: Retrue) -> list[tuple[str, str]]:
        return [(run["id"], f"{run['model']} {run['state']}") for run in retrue.runs(limit=MANY)]

    return _starting(incomplete, _asked(context, ask))


def _models_and_runs(context: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    return _models(context, incomplete) or _runs(context, incomplete)


def _checks_and_runs(context: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    def ask(retrue: Retrue) -> list[tuple[str, str]]:
        found = [
            (check["id"], f"{model['name']} {check.get('verdict') or check['state']}")
            for model in retrue.models()
            for check in retrue.checks(model["name"], limit=MANY)
        ]
        return found + [(run["id"], f"{run['model']} {run['state']}") for run in retrue.runs(limit=MANY)]

    return _models(context, incomplete) + _starting(incomplete, _asked(context, ask))


def _starting(incomplete: str, found: list[tuple[str, str]]) -> list[tuple[str, str]]:
    return [pair for pair in found if pair[0].startswith(incomplete)]


def _argument(help_text: str, complete: Callable[..., Any], **more: Any) -> Any:
    return typer.Argument(help=help_text, autocompletion=complete, callback=plain_name, **more)


ModelName = Annotated[str, _argument("Name of the model.", _models, metavar="MODEL")]
SomeModel = Annotated[str | None, _argument("Only this model.", _models, metavar="MODEL")]
RunId = Annotated[str, _argument("Id of the run.", _runs, metavar="RUN")]
ModelOrRun = Annotated[
    str | None,
    _argument("Only this model's runs; or one run's id, to see all of it.", _models_and_runs, metavar="MODEL|RUN"),
]
CheckOrRun = Annotated[
    str, _argument("Id of a check or of a run; or a model, for its newest check.", _checks_and_runs, metavar="WHAT")
]
VersionNumber = Annotated[int, typer.Argument(help="Number of the version.", min=1, autocompletion=_versions)]
SomeVersion = Annotated[
    int | None, typer.Argument(help="One version, to see all of it.", min=1, autocompletion=_versions)
]
Reason = Annotated[str, typer.Option("--reason", "-r", help="Why; it stands in the audit log.")]
