"""MLflow's form of a body: ``{"dataframe_split": {"columns": [...], "data": [[...]]}}``, as pandas writes a frame."""

from collections.abc import Mapping
from typing import Any

import msgspec

__all__ = ["FORM", "Read", "SplitReader"]

FORM = "dataframe_split"
ORDERS = 16
"""So many orders of columns are remembered; who sends more of them pays for each."""


class Split(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """A frame whose rows are still JSON."""

    columns: list[str]
    data: msgspec.Raw
    index: list[Any] | msgspec.UnsetType = msgspec.UNSET
    """pandas writes it; a row is known by its place."""


class Body(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """The whole body."""

    dataframe_split: Split


_BODY = msgspec.json.Decoder(Body)
Read = tuple[tuple[str, ...], list[tuple[Any, ...]]]


class SplitReader:
    """Reads rows of which all is right, in whatever order their columns come.

    Parameters
    ----------
    types
        Of each feature, and of the event time.
    timestamp
        Name of the event time, the one column that may be missing.
    """

    def __init__(self, types: Mapping[str, Any], timestamp: str) -> None:
        self._types, self._needed = types, types.keys() - {timestamp}
        self._decoders: dict[tuple[str, ...], Any] = {}

    def read(self, body: bytes) -> Read | None:
        """Return columns and rows; None if the columns are not the model's, which the slow path tells.

        Raises
        ------
        msgspec.MsgspecError
            If something else is not as it should be.
        """
        split = _BODY.decode(body).dataframe_split
        columns = tuple(split.columns)
        decoder = self._decoders.get(columns)
        if decoder is None:
            if len(set(columns)) < len(columns) or not self._needed <= set(columns) <= self._types.keys():
                return None
            kind = tuple.__class_getitem__(tuple(self._types[name] for name in columns))
            decoder = msgspec.json.Decoder(list.__class_getitem__(kind))
            if len(self._decoders) >= ORDERS:
                self._decoders.clear()
            self._decoders[columns] = decoder
        return columns, decoder.decode(split.data)
