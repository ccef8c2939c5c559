"""Identifiers: UUIDv7, so that they sort by the moment they were made."""

import uuid
from collections.abc import Iterator, Sequence
from typing import overload

import numpy as np
import uuid_utils
from typing_extensions import override

__all__ = ["QuotedIds", "id_texts", "is_id", "new_id"]

_HEX = np.frombuffer(b"0123456789abcdef", dtype=np.uint8)
_DIGITS = [0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 14, 15, 16, 17, 19, 20, 21, 22, *range(24, 36)]
"""Places of the 32 hexadecimal digits in an id's text; the others are hyphens."""


_QUOTED = np.frombuffer(b'"________-____-____-____-____________",', dtype=np.uint8)
_PARTS = ((1, 0, 8), (10, 8, 12), (15, 12, 16), (20, 16, 20), (25, 20, 32))
"""Where each part of an id stands between the quotes, and which of its digits it has."""


def new_id() -> str:
    """Return a new identifier in its canonical text."""
    return str(uuid_utils.uuid7())


def is_id(text: str) -> bool:
    """Return whether `text` is an identifier in its canonical text."""
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False


def id_texts(ids: np.ndarray) -> np.ndarray:
    """Return identifiers as ASCII text.

    Parameters
    ----------
    ids
        Raw identifiers, uint8, shape (n, 16).

    Returns
    -------
    numpy.ndarray
        Canonical texts, dtype ``S36``, shape (n,).
    """
    text = np.full((len(ids), 36), ord("-"), dtype=np.uint8)
    digits = np.empty((len(ids), 32), dtype=np.uint8)
    digits[:, 0::2] = _HEX[ids >> 4]
    digits[:, 1::2] = _HEX[ids & 15]
    text[:, _DIGITS] = digits
    return text.reshape(-1).view("S36")


class QuotedIds(Sequence[str]):
    """Identifiers as they stand in JSON: made for a thousand at once, a text of each only where one is asked for.

    Parameters
    ----------
    quoted
        Quotes, text, comma of each: uint8, shape (n, 39).
    """

    def __init__(self, quoted: np.ndarray) -> None:
        self._quoted = quoted

    @classmethod
    def of(cls, ids: np.ndarray) -> "QuotedIds":
        """Return raw identifiers, uint8 of shape (n, 16), as they stand in JSON."""
        digits = np.frombuffer(ids.tobytes().hex().encode("ascii"), dtype=np.uint8).reshape(len(ids), 32)
        quoted = np.empty((len(ids), len(_QUOTED)), dtype=np.uint8)
        quoted[:] = _QUOTED
        for at, start, end in _PARTS:
            quoted[:, at : at + end - start] = digits[:, start:end]
        return cls(quoted)

    def json(self) -> bytes:
        """Return them as a JSON array."""
        return b"[" + self._quoted.tobytes()[:-1] + b"]"

    def prefixed(self) -> bytes:
        """Return them one after the other, each with its length before it: four bytes, the lowest first."""
        texts = np.empty((len(self._quoted), 40), dtype=np.uint8)
        texts[:, :4] = (36, 0, 0, 0)
        texts[:, 4:] = self._quoted[:, 1:37]
        return texts.tobytes()

    @override
    def __len__(self) -> int:
        return len(self._quoted)

    @overload
    def __getitem__(self, place: int) -> str: ...

    @overload
    def __getitem__(self, place: slice) -> "QuotedIds": ...

    @override
    def __getitem__(self, place: int | slice) -> "str | QuotedIds":
        if isinstance(place, slice):
            return QuotedIds(self._quoted[place])
        return self._quoted[place, 1:37].tobytes().decode("ascii")

    @override
    def __iter__(self) -> Iterator[str]:
        text = self._quoted.tobytes().decode("ascii")
        step = len(_QUOTED)
        return (text[at + 1 : at + 37] for at in range(0, len(text), step))
