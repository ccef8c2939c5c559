"""From what went wrong to one line and an exit code. The codes are a promise: `docs/cli.md` has their table."""

from service.client import BadInput, ClientError, InTheWay, NotPermitted, NotSignedIn, NotThere, Refused, StillRunning
from service.domain.errors import CallerError, Conflict, NotReady, RetrueError

__all__ = ["EXIT_CODES", "exit_code_of", "words_of"]

EXIT_CODES: dict[int, str] = {
    0: "done",
    1: "refused or failed: a switch, a run or a missing right stands in the way, or `doctor` found something wrong",
    2: "bad input: a mistyped option, an unknown name, rows or labels that break the schema, a wrong setting or file",
    3: "the service can't be reached, or can't answer now: try again later",
    4: "what was waited for ended otherwise, or not in time",
    130: "Ctrl-C; what the service was asked to do goes on",
}

_REFUSED: dict[type[Refused], int] = {NotSignedIn: 1, NotPermitted: 1, InTheWay: 1, NotThere: 2, BadInput: 2}


def exit_code_of(error: ClientError | RetrueError) -> int:
    """Return the exit code for an error that was raised on purpose."""
    if isinstance(error, Refused):
        return _REFUSED.get(type(error), 3)
    if isinstance(error, StillRunning):
        return 4
    if isinstance(error, ClientError):
        return 3
    if isinstance(error, CallerError):
        return 1 if isinstance(error, Conflict) else 2
    return 3 if isinstance(error, NotReady) else 1


def words_of(error: ClientError | RetrueError) -> str:
    """Return what went wrong in one line, and what to do."""
    if isinstance(error, RetrueError):
        return error.detail
    if not isinstance(error, Refused):
        return str(error)
    listed = [str(fault.get("detail", fault)) for fault in error.errors[:3]]
    faults = "; ".join(fault for fault in listed if fault not in str(error))  # the detail may be the first of them
    remedy = ""
    if isinstance(error, NotSignedIn):
        remedy = " (it is read from --key, RETRUE_API_KEY or .env)"
    elif run := error.problem.get("run"):
        remedy = f": `retrue runs {run}`"
    return f"{error}" + (f" ({faults})" if faults else "") + remedy
