"""Identifiers: UUIDv7, so that they sort by the moment they were made."""

import uuid
from datetime import UTC, datetime

import numpy as np
import uuid_utils

__all__ = ["id_bytes", "id_texts", "is_id", "minted_at", "new_id"]

_HEX = np.frombuffer(b"0123456789abcdef", dtype=np.uint8)
_DIGITS = [0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 14, 15, 16, 17, 19, 20, 21, 22, *range(24, 36)]
"""Places of the 32 hexadecimal digits in an id's text; the others are hyphens."""


def new_id() -> str:
    """Return a new identifier in its canonical text."""
    return str(uuid_utils.uuid7())


def is_id(text: str) -> bool:
    """Return whether `text` is an identifier in its canonical text."""
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False


def minted_at(text: str) -> datetime | None:
    """Return when the identifier was made, to the millisecond; None if it is not a UUIDv7."""
    try:
        parsed = uuid.UUID(text)
    except ValueError:
        return None
    if parsed.version != 7:
        return None
    return datetime.fromtimestamp((parsed.int >> 80) / 1000, tz=UTC)


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


def id_bytes(texts: list[str]) -> np.ndarray:
    """Return identifiers as raw bytes, uint8, shape (n, 16).

    Raises
    ------
    ValueError
        If one of `texts` is not an identifier.
    """
    raw = b"".join(uuid.UUID(text).bytes for text in texts)
    return np.frombuffer(raw, dtype=np.uint8).reshape(-1, 16)
