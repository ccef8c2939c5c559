"""The last good champions, as a file: a worker that is started while the database is away comes up on them."""

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from service.storage.versions import VersionRow

__all__ = ["Held", "LastGood"]


@dataclass(frozen=True)
class Held:
    """A version that answered under a generation."""

    generation: int
    row: VersionRow


class LastGood:
    """What the workers of one host served last; it belongs to one life of the service.

    Parameters
    ----------
    path
        The file that they share.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> dict[str, Held]:
        """Return what was served, by model; nothing if that is not known."""
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=dict[str, Held])
        except (OSError, msgspec.MsgspecError):
            return {}

    def note(self, held: Held) -> None:
        """Write down what is served now, unless another worker knows a newer one."""
        known = self.read()
        before = known.get(held.row.model)
        if before is not None and before.generation >= held.generation:
            return
        temporary = self._path.with_suffix(f".{os.getpid()}")
        with suppress(OSError):  # a full disk: the file only helps in a double fault
            temporary.write_bytes(msgspec.json.encode({**known, held.row.model: held}))
            temporary.replace(self._path)
