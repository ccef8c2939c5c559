"""Who may do what: roles and their rights as one closed table, and the form of an API key.

A key is ``rtr_<id>_<secret>``. Its last characters are a checksum, so that a slip in typing is told from a key that
nobody knows; the id names it in lists and in the audit and opens nothing.
"""

import base64
import hashlib
import re
import zlib
from collections.abc import Iterable, Mapping
from enum import StrEnum
from types import MappingProxyType

__all__ = [
    "ID_BYTES",
    "KEY_LENGTH",
    "RIGHTS",
    "SECRET_BYTES",
    "Right",
    "Role",
    "digest_of",
    "id_of",
    "is_well_formed",
    "key_of",
    "rights_of",
    "roles_with",
]


class Right(StrEnum):
    """What a route asks for."""

    PREDICT = "predict"
    """Ask for predictions, and send the truth for them."""
    DESCRIBE = "describe"
    """Ask which tensors a model takes and whether it answers, as clients of a protocol do before they predict."""
    READ = "read"
    """See models, versions, checks, runs, recorded predictions, the audit, and the API's description."""
    OPERATE = "operate"
    """Ask for checks and runs, cancel runs, set and clear switches."""
    ROLL_BACK = "roll_back"
    """Go back to a version that was champion before."""
    APPROVE = "approve"
    """Approve and reject challengers, promote a version."""
    ADMINISTER = "administer"
    """Create, list and revoke keys."""


class Role(StrEnum):
    """What a key is made for; it may have several."""

    PREDICT = "predict"
    VIEWER = "viewer"
    OPERATOR = "operator"
    APPROVER = "approver"
    ADMIN = "admin"


RIGHTS: Mapping[Role, frozenset[Right]] = MappingProxyType(
    {
        # An application's key sees what it must send and no more: who steals it learns no row and no colleague's name.
        Role.PREDICT: frozenset({Right.PREDICT, Right.DESCRIBE}),
        Role.VIEWER: frozenset({Right.READ, Right.DESCRIBE}),
        # Neither of these two may what the other may, so that nobody approves what they asked for themselves. But
        # either may go back, which is done in a hurry.
        Role.OPERATOR: frozenset({Right.READ, Right.DESCRIBE, Right.OPERATE, Right.ROLL_BACK}),
        Role.APPROVER: frozenset({Right.READ, Right.DESCRIBE, Right.APPROVE, Right.ROLL_BACK}),
        Role.ADMIN: frozenset(Right),
    }
)

ID_BYTES, SECRET_BYTES = 5, 32
_FORM = re.compile(r"rtr_([a-z2-7]{8})_([a-z2-7]{52})([a-z2-7]{7})")
KEY_LENGTH = len("rtr_") + 8 + len("_") + 52 + 7


def rights_of(roles: Iterable[Role]) -> frozenset[Right]:
    """Return all that the roles may do together."""
    return frozenset(right for role in roles for right in RIGHTS[role])


def roles_with(right: Right) -> list[Role]:
    """Return the roles that have the right."""
    return [role for role in Role if right in RIGHTS[role]]


def key_of(key_id: bytes, secret: bytes) -> str:
    """Return a key's text.

    Parameters
    ----------
    key_id, secret
        Random bytes, 5 and 32 of them.
    """
    if len(key_id) != ID_BYTES or len(secret) != SECRET_BYTES:
        msg = f"a key is made of {ID_BYTES} and {SECRET_BYTES} bytes"
        raise ValueError(msg)
    body = f"rtr_{_text(key_id)}_{_text(secret)}"
    return body + _checksum(body)


def is_well_formed(key: str) -> bool:
    """Return whether `key` looks like one and its checksum fits: if not, it was mistyped or cut off."""
    match = _FORM.fullmatch(key)
    return match is not None and _checksum(key[: match.start(3)]) == match[3]


def id_of(key: str) -> str:
    """Return the id in a well-formed key.

    Examples
    --------
    >>> id_of(key_of(bytes(5), bytes(32)))
    'aaaaaaaa'
    """
    return key[4:12]


def digest_of(key: bytes) -> bytes:
    """Return what is stored of a key.

    One round of SHA-256 is enough: 256 random bits can't be guessed however fast the guessing is. Slow hashes are for
    passwords, which people think up.
    """
    return hashlib.sha256(key).digest()


def _text(raw: bytes) -> str:
    return base64.b32encode(raw).decode().rstrip("=").lower()


def _checksum(body: str) -> str:
    return _text(zlib.crc32(body.encode()).to_bytes(4, "big"))
