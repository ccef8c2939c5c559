"""The command line: puts the verbs together, and turns whatever goes wrong into one line and an exit code."""

import sys
from collections.abc import Sequence

import typer
from typer._click.exceptions import ClickException, NoArgsIsHelpError  # Typer re-exports only some of their heirs

from service.client import ClientError
from service.commands import ask, change, decide, demo, doctor, look, processes, stream, switches
from service.commands.audit import audit
from service.commands.keys import keys
from service.commands.models import models
from service.commands.output import fail
from service.commands.refused import EXIT_CODES, exit_code_of, words_of
from service.domain.errors import RetrueError

__all__ = ["app", "main"]

app = typer.Typer(
    name="retrue",
    help="Keeps served scikit-learn models true: serves, checks, retrains, judges, swaps.\n\nExit codes: "
    + "; ".join(f"{code} {words.partition(':')[0]}" for code, words in EXIT_CODES.items())
    + ".",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(models, name="models")
app.add_typer(keys, name="keys")
app.add_typer(audit, name="audit")
for part in (look, change, switches, decide, ask, stream, processes, doctor, demo):
    part.register(app)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; every expected error is one line, never a traceback."""
    try:
        code = app(args=arguments, prog_name="retrue", standalone_mode=False)
    except NoArgsIsHelpError:
        sys.exit(2)  # the help has been printed
    except ClickException as error:
        code = _misused(error)
    except (ClientError, RetrueError) as error:
        code = fail(words_of(error), exit_code=exit_code_of(error)).exit_code
    except typer.Abort:
        code = 130
    sys.exit(code if isinstance(code, int) else 0)


def _misused(error: ClickException) -> int:
    """Say what is wrong with the words on the command line, in one line: a program may log it."""
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "retrue"
    # Typer lets Pydantic judge choices, and repeats its word for itself.
    wrong = error.format_message().replace("Value error, ", "").rstrip(".")
    return fail(f"{wrong}: see `{path} --help`", exit_code=error.exit_code).exit_code


if __name__ == "__main__":
    main()
