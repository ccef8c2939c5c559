"""Who is asking: the one place where a request gets its actor."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends
from starlette.types import Scope

__all__ = ["Asker", "Caller", "identify"]


@dataclass(frozen=True)
class Caller:
    """Who asks: the name that stands in runs, swaps and the audit."""

    actor: str


OPEN = Caller("operator")
"""Everybody, while the service asks for no keys."""


def identify(scope: Scope) -> Caller:  # noqa: ARG001  the request's headers will decide once there are keys
    """Return who sent the request; every route asks here, plain ones too."""
    return OPEN


def _asker() -> Caller:
    return OPEN


Asker = Annotated[Caller, Depends(_asker)]
"""What a route takes to know who asks."""
