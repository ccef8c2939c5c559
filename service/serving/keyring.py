"""The keyring: the keys that a worker knows, held in memory so that no request waits for the database.

It follows the database with the champions, goes on with what it has while that is away, and writes down from time to
time which keys were used.
"""

import hashlib
import hmac
import logging
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from math import inf
from pathlib import Path

import msgspec

from service.domain.access import KEY_LENGTH, Right, is_well_formed, rights_of
from service.domain.errors import ExpiredKey, MalformedKey, NoAccess, RevokedKey, WrongKey
from service.storage import keys
from service.storage.database import Database
from service.storage.keys import KeyRow
from service.telemetry import Slug

__all__ = ["Keyring", "Known", "Ring"]

log = logging.getLogger(__name__)

WRITE_S = 60.0
"""A key's last use is written down at most so often by one worker."""
_NOBODYS = hashlib.sha256(b"nobody's").digest()


@dataclass(frozen=True)
class Ring:
    """What the database shows of keys."""

    at: datetime
    """The database's own time: a worker's clock may be wrong, and keys end."""
    has_any: bool
    """Whether a key was ever made."""
    rows: list[KeyRow]


class Known:
    """One key as a worker holds it."""

    __slots__ = ("digest", "ends_at", "id", "is_revoked", "is_used", "name", "rights", "roles")

    def __init__(self, row: KeyRow, ends_at: float) -> None:
        self.id, self.name, self.roles = row.id, row.name, row.roles
        self.rights: frozenset[Right] = rights_of(row.roles)
        self.digest = bytes.fromhex(row.digest)
        self.ends_at = ends_at
        """On the worker's monotonic clock."""
        self.is_revoked = row.revoked_at is not None
        self.is_used = False

    def __repr__(self) -> str:
        return f"Known({self.id}, {self.name!r})"


class Keyring:
    """Knows keys by their digests.

    Parameters
    ----------
    path
        Where the workers of this host keep the list for a start without the database; None: nowhere. It holds digests
        of 256-bit secrets, which open nothing.
    monotonic
        Clock of expiry, which must go on while the database is away.
    """

    def __init__(self, path: Path | None = None, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.has_any = False
        """Whether a key was ever made here, or that is not known."""
        self._path, self._monotonic = path, monotonic
        self._known: dict[bytes, Known] = {}
        self._seen: tuple[bool, list[KeyRow]] | None = None
        self._written_at = -inf

    def find(self, key: bytes) -> Known:
        """Return the key that `key` is the text of.

        Raises
        ------
        MalformedKey, WrongKey, RevokedKey, ExpiredKey
            If it is none that may come in. Only who has the whole key learns what became of it.
        """
        known = self._known.get(key[4:12])
        if len(key) != KEY_LENGTH:
            raise _refusal(key)
        # Compared by digests and in constant time, for an id that nobody has too: the time tells nothing of either.
        is_right = hmac.compare_digest(hashlib.sha256(key).digest(), _NOBODYS if known is None else known.digest)
        if known is None or not is_right:
            raise _refusal(key)
        return self._valid(known)

    def by_id(self, key_id: str) -> Known:
        """Return the key of a session; raises as `find`."""
        known = self._known.get(key_id.encode())
        if known is None:
            msg = "the key of this session is not known any more: sign in again"
            raise WrongKey(msg)
        return self._valid(known)

    def follow(self, ring: Ring) -> None:
        """Take over what the database shows."""
        began = self._monotonic()
        known = {}
        for row in ring.rows:
            ends_at = inf if row.expires_at is None else began + (row.expires_at - ring.at).total_seconds()
            mine = known[row.id.encode()] = Known(row, ends_at)
            before = self._known.get(row.id.encode())
            mine.is_used = before is not None and before.is_used
        self._known = known  # one step: requests see the old list or the new one
        self.has_any = ring.has_any
        seen = (ring.has_any, [row for row in ring.rows if row.revoked_at is None])
        if self._seen is None or [row.id for row in seen[1]] != [row.id for row in self._seen[1]]:
            self._note(ring)
            if self._seen is not None or ring.has_any:
                log.info(Slug.KEYS_CHANGED, extra={"facts": {"keys": len(seen[1])}})
        self._seen = seen

    def restore(self) -> None:
        """Come up on the list that this host's workers had last; without one nobody comes in."""
        self.has_any = True
        if self._path is None:
            return
        with suppress(OSError, msgspec.MsgspecError):
            ring = msgspec.json.decode(self._path.read_bytes(), type=Ring)
            # How long ago that was only the wall clock says now; one that stands behind must not lengthen a key's time.
            now = max(datetime.fromtimestamp(time.time(), tz=ring.at.tzinfo), ring.at)
            self.follow(Ring(now, ring.has_any, ring.rows))

    def write_uses(self, database: Database) -> None:
        """Write down which keys were used, if the last time is long enough ago; raises DatabaseUnavailable."""
        if self._monotonic() - self._written_at < WRITE_S:
            return
        used = [known for known in self._known.values() if known.is_used]
        if not used:
            return
        for known in used:
            known.is_used = False  # before it is written: a use in between is written the next time
        with database.write() as conn:
            keys.touch(conn, [known.id for known in used])
        self._written_at = self._monotonic()

    def _valid(self, known: Known) -> Known:
        if known.is_revoked:
            msg = f"the key {known.id} was revoked: ask an admin for another"
            raise RevokedKey(msg, key=known.id)
        if self._monotonic() >= known.ends_at:
            msg = f"the key {known.id} has expired: ask an admin for another"
            raise ExpiredKey(msg, key=known.id)
        known.is_used = True
        return known

    def _note(self, ring: Ring) -> None:
        if self._path is None:
            return
        temporary = self._path.with_suffix(f".{os.getpid()}")
        with suppress(OSError):  # a full disk: the file only helps in a double fault
            temporary.touch(mode=0o600)
            temporary.write_bytes(msgspec.json.encode(ring))
            temporary.replace(self._path)


def _refusal(key: bytes) -> NoAccess:
    if is_well_formed(key.decode("latin-1")):
        msg = "nobody made this key here, or it was revoked long ago"
        return WrongKey(msg)
    msg = "that is no key: mistyped, or cut off; a key looks like rtr_<8 characters>_<59 characters>"
    return MalformedKey(msg)
