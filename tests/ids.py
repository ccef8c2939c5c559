"""Identifiers as the tests read and write them."""

import uuid
from datetime import UTC, datetime

import numpy as np

__all__ = ["id_bytes", "minted_at"]


def minted_at(text: str) -> datetime | None:
    """Return when the identifier was made, to the millisecond; None if it is not a UUIDv7."""
    try:
        parsed = uuid.UUID(text)
    except ValueError:
        return None
    if parsed.version != 7:
        return None
    return datetime.fromtimestamp((parsed.int >> 80) / 1000, tz=UTC)


def id_bytes(texts: list[str]) -> np.ndarray:
    """Return identifiers as raw bytes, uint8, shape (n, 16).

    Raises
    ------
    ValueError
        If one of `texts` is not an identifier.
    """
    raw = b"".join(uuid.UUID(text).bytes for text in texts)
    return np.frombuffer(raw, dtype=np.uint8).reshape(-1, 16)
