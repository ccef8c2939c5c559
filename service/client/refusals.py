"""What can go wrong between a client and the service, as one tree under `ClientError`.

::

    ClientError
    ├─ Unreachable       nobody answers (TooSlow: not in time)
    ├─ StillRunning      a wait ended before the run did
    └─ Refused           the service answered with an RFC 9457 problem
        ├─ NotSignedIn   401   ├─ NotPermitted  403   ├─ NotThere  404
        ├─ InTheWay      409, 412, 423, 428: the present state forbids it
        ├─ BadInput      every other 4xx: the request itself is wrong; `errors` names the fields
        ├─ TooOften      429   ├─ NotNow        503   └─ Failed    every other 5xx
"""

from typing import Any

__all__ = [
    "BadInput",
    "ClientError",
    "Failed",
    "InTheWay",
    "NotNow",
    "NotPermitted",
    "NotSignedIn",
    "NotThere",
    "Refused",
    "StillRunning",
    "TooOften",
    "TooSlow",
    "Unreachable",
    "refusal",
]


class ClientError(Exception):
    """Root of everything that the client raises on purpose."""


class Unreachable(ClientError):
    """Nobody answers at the address, or what answers is no Retrue service."""


class TooSlow(Unreachable):
    """The service did not answer in time; whether it did what was asked is not known."""


class StillRunning(ClientError, TimeoutError):
    """A wait ended before the run did; the run goes on."""


class Refused(ClientError):
    """The service answered with a problem.

    Attributes
    ----------
    status
        HTTP status.
    problem
        The RFC 9457 document, as decoded.
    retry_after_s
        Seconds after which to try again, where the service says so.
    """

    def __init__(self, status: int, problem: dict[str, Any], *, retry_after_s: float | None = None) -> None:
        self.status = status
        self.problem = problem
        self.retry_after_s = retry_after_s
        super().__init__(str(problem.get("detail") or problem.get("title") or f"HTTP {status}"))

    @property
    def code(self) -> str:
        """The stable slug of the problem."""
        return str(self.problem.get("code", ""))

    @property
    def errors(self) -> list[dict[str, Any]]:
        """The single faults, where the problem lists them: row, field, code, detail."""
        listed = self.problem.get("errors")
        return [fault for fault in listed if isinstance(fault, dict)] if isinstance(listed, list) else []


class NotSignedIn(Refused):
    """No key was sent, or one that is none, has expired or was revoked."""


class NotPermitted(Refused):
    """The key is good, but not for this."""


class NotThere(Refused):
    """There is no such model, version, run, check or prediction."""


class InTheWay(Refused):
    """The present state forbids it: a run in the way, a switch that is set, a champion that has changed."""


class BadInput(Refused):
    """The request itself is wrong; the same again will be refused again."""


class TooOften(Refused):
    """More requests than the key may send."""


class NotNow(Refused):
    """The service can't answer now; try again later."""


class Failed(Refused):
    """The service failed; its log says why."""


_KINDS: dict[int, type[Refused]] = {
    401: NotSignedIn,
    403: NotPermitted,
    404: NotThere,
    409: InTheWay,
    412: InTheWay,
    423: InTheWay,
    428: InTheWay,
    429: TooOften,
    503: NotNow,
}
SERVER_ERROR = 500


def refusal(status: int, problem: dict[str, Any], *, retry_after_s: float | None = None) -> Refused:
    """Return the error for an answer that is no success."""
    kind = _KINDS.get(status, Failed if status >= SERVER_ERROR else BadInput)
    return kind(status, problem, retry_after_s=retry_after_s)
