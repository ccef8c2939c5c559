"""Verbs about the audit: list who changed what, and verify that nobody changed the list."""

import re
from typing import Annotated

import typer

from service.commands.keys import direct
from service.commands.output import AsJson, Key, Url, connect, fail, print_json, print_table, say

__all__ = ["audit"]

audit = typer.Typer(
    help="Show who changed what, and verify the chain.", invoke_without_command=True, no_args_is_help=False
)

Anchor = Annotated[
    list[str] | None,
    typer.Option("--head", help="A head that an earlier `verify` printed (seq:digest): its row must still stand so."),
]
_ANCHOR = re.compile(r"(\d{1,18}):([0-9a-f]{64})")


@audit.callback()
def listing(
    context: typer.Context,
    model: Annotated[str | None, typer.Option("--model", "-m", help="Only this model's entries.")] = None,
    limit: Annotated[int, typer.Option(help="How many, newest first.", min=1, max=1000)] = 20,
    url: Url = "",
    key: Key = "",
    as_json: AsJson = False,
) -> None:
    """Show who changed what and from where, newest first."""
    if context.invoked_subcommand is not None:
        _refuse_options(context)
        return
    with connect(url, key) as retrue:
        listed = retrue.audit(model=model, limit=limit)
        if model is not None and not listed:
            retrue.model(model)  # that nothing was changed may be said of what is there alone
    if as_json:
        print_json(listed)
        return
    print_table(
        "",
        ("at", "actor", "from", "action", "model", "subject", "reason"),
        (
            (e["at"], e["actor"], _from(e.get("origin")), e["action"], e.get("model"), e.get("subject"), e["reason"])
            for e in listed
        ),
    )


@audit.command()
def verify(head: Anchor = None, as_json: AsJson = False) -> None:
    """Recompute the chain over the database. Exit 0: whole; 1: rows were altered, removed or moved; 3: no database."""
    from service.storage import audit as stored

    anchors = [_ANCHOR.fullmatch(text) for text in head or []]
    if None in anchors:
        raise fail("--head takes what an earlier verify printed: seq:digest", exit_code=2)
    database = direct()
    with database.read() as conn:
        examined = stored.examine(conn, anchors={int(found[1]): found[2] for found in anchors if found})
    database.close()
    if as_json:
        print_json(
            {
                "whole": not examined.findings,
                "rows": examined.rows,
                "head": examined.head,
                "findings": [{"seq": found.seq, "words": found.words} for found in examined.findings],
            }
        )
    elif examined.findings:
        for found in examined.findings:
            say(f"row {found.seq} {found.words}")
    else:
        say(f"the audit is whole: {examined.rows} rows")
        say(f"head {examined.head}")
    if examined.findings:
        raise typer.Exit(1)


def _refuse_options(context: typer.Context) -> None:
    """Refuse what the verb would pass over: whoever names a service must not read another database's verdict."""
    for parameter in context.command.params:
        source = context.get_parameter_source(str(parameter.name))
        if source is not None and source.name == "COMMANDLINE":
            verb = context.invoked_subcommand
            msg = f"{parameter.opts[0]} before `{verb}` is of no effect: it reads the database of the settings in force"
            raise fail(msg, exit_code=2)


def _from(origin: dict[str, str] | None) -> str | None:
    if not origin:
        return None
    return " ".join(origin[name] for name in ("via", "address", "key") if origin.get(name))
