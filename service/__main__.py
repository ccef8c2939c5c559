"""The command line. Exit codes: 0 done, 1 not as wished, 2 the caller can mend it, 3 try again later, 130 Ctrl-C."""

import sys

import typer

from service import __version__
from service.client import Refused, Unreachable
from service.commands import change, decide, demo, look, processes, stream
from service.commands.audit import audit
from service.commands.keys import keys
from service.commands.models import models
from service.commands.output import notes
from service.domain.errors import CallerError, NotReady, RetrueError

__all__ = ["app", "main"]

app = typer.Typer(
    name="retrue",
    help="Keeps served scikit-learn models true: serves, checks, retrains, judges, swaps.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(models, name="models")
app.add_typer(keys, name="keys")
app.add_typer(audit, name="audit")
for part in (processes, look, change, decide, stream, demo):
    part.register(app)


@app.command()
def version() -> None:
    """Print the version of Retrue."""
    typer.echo(__version__)


HTTP_SERVER_ERROR = 500


def main() -> None:
    """Run the command line; every expected error is one line, never a traceback."""
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)
    except Unreachable as error:
        sys.exit(_say(str(error), 3))
    except Refused as error:
        sys.exit(_say(_refusal(error), 3 if error.status >= HTTP_SERVER_ERROR else 2))
    except RetrueError as error:
        sys.exit(_say(error.detail, _exit_code(error)))


def _exit_code(error: RetrueError) -> int:
    if isinstance(error, CallerError):
        return 2
    return 3 if isinstance(error, NotReady) else 1


def _refusal(error: Refused) -> str:
    listed = error.problem.get("errors") or []
    more = "; ".join(str(item.get("detail", item)) if isinstance(item, dict) else str(item) for item in listed[:3])
    return f"{error}" + (f" ({more})" if more else "")


def _say(text: str, exit_code: int) -> int:
    notes.print(f"[bold red]retrue:[/] {text}", soft_wrap=True)
    return exit_code


if __name__ == "__main__":
    main()
