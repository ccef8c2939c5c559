"""From a request's body to a block of rows.

A typed decoder per version takes what is right in one pass. Only what it refuses is looked at a second time, slowly, to
name every bad field of every bad row. A body holds ``instances``, a list of objects or of lists in the features' order,
``columns``, an object of lists, or ``dataframe_split``, as MLflow sends a frame.
"""

import struct
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from operator import attrgetter, itemgetter
from typing import Annotated, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from service.domain.errors import BodyTooLarge, InvalidRequest
from service.domain.spec import Feature, Schema
from service.serving.block import NOW, Block, Layout
from service.serving.examine import examine, odd_faults, parse, refuse
from service.serving.split import FORM, SplitReader

__all__ = ["Decoder", "Moment", "micros", "too_many"]

Moment = Annotated[datetime, msgspec.Meta(tz=True)]
Integer = Annotated[int, msgspec.Meta(ge=-(2**53), le=2**53)]
TYPES: dict[str, Any] = {"numeric": float, "boolean": bool, "categorical": Integer, "text": str}
_HEAD = 32
_SPLIT = FORM.encode()
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def micros(moment: datetime) -> int:
    """Return `moment` as microseconds since 1970, exactly."""
    passed = moment - _EPOCH
    return (passed.days * 86_400 + passed.seconds) * 1_000_000 + passed.microseconds


class Decoder:
    """Decodes and validates request bodies for one version's schema.

    Parameters
    ----------
    schema
        The version's schema.
    """

    def __init__(self, schema: Schema) -> None:
        self.layout = Layout(schema)
        self._schema = schema
        order = [*self.layout.numeric, *self.layout.text]
        attributes = {feature.name: f"f{place}" for place, feature in enumerate(order)}
        kinds = {feature.name: (_kind(schema, feature), feature.nullable) for feature in order}
        objects, lists, columns = _bodies(
            tuple((name, *kind) for name, kind in kinds.items()), schema.names, schema.timestamp
        )
        self._objects: Any = msgspec.json.Decoder(objects)
        self._lists: Any = msgspec.json.Decoder(lists)
        self._columns: Any = msgspec.json.Decoder(columns)
        types = {name: TYPES[kind] | None if nullable else TYPES[kind] for name, (kind, nullable) in kinds.items()}
        self._split = SplitReader({**types, schema.timestamp: Moment}, schema.timestamp)
        n_numeric, n_text = len(self.layout.numeric), len(self.layout.text)
        places = {feature.name: place for place, feature in enumerate(schema.features)}
        self._pick_numeric = _picker([attributes[f.name] for f in self.layout.numeric], attrgetter)
        self._pick_text = _picker([attributes[f.name] for f in self.layout.text], attrgetter)
        self._take_numeric = _picker([places[f.name] for f in self.layout.numeric], itemgetter) if n_text else None
        self._take_text = _picker([places[f.name] for f in self.layout.text], itemgetter)
        is_full = not any(feature.nullable for feature in self.layout.numeric)
        self._pack = struct.Struct(f"{n_numeric}d").pack if is_full and n_numeric else None
        self._n_numeric, self._attributes = n_numeric, attributes

    def decode(self, body: bytes, *, max_rows: int, is_strict: bool = True) -> Block:
        """Return the rows in `body`.

        Parameters
        ----------
        max_rows
            So many rows a body may have.
        is_strict
            Whether features that refuse odd values do so.

        Raises
        ------
        InvalidRequest, BodyTooLarge
            If the body is not what the protocol asks for, or holds too many rows.
        InvalidRows
            If rows break the schema; ``facts["errors"]`` names the fields.
        """
        block = self._typed(body)
        if block is None:
            block = self._slow(body, max_rows)
        if not len(block):
            msg = "instances is empty: send at least one row"
            raise InvalidRequest(msg)
        if len(block) > max_rows:
            raise too_many(len(block), max_rows)
        if is_strict and self.layout.refusing:
            faults = odd_faults(self.layout, block)
            if faults:
                raise refuse(faults)
        return block

    def _typed(self, body: bytes) -> Block | None:
        """Return the rows if everything is right, else None; the errors are the slow path's to name."""
        head = body[:_HEAD]  # of a body that is right this tells its form, and a wrong guess costs time alone
        if b"columns" in head:
            ways = (self._by_columns, self._by_objects, self._by_lists)
        elif b"[[" in head:
            ways = (self._by_lists, self._by_objects, self._by_columns)
        else:
            ways = (self._by_objects, self._by_lists, self._by_columns)
        for way in ways:
            try:
                return way(body)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                continue
        # Last, so that it costs the other forms nothing: they fail here at their first key.
        return self._by_split(body) if _SPLIT in head else None

    def _by_objects(self, body: bytes) -> Block | None:
        return self._of_objects(self._objects.decode(body).instances)

    def _by_lists(self, body: bytes) -> Block | None:
        return self._of_lists(self._lists.decode(body).instances)

    def _by_columns(self, body: bytes) -> Block | None:
        return self._of_columns(self._columns.decode(body).columns)

    def _by_split(self, body: bytes) -> Block | None:
        try:
            read = self._split.read(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None
        if read is None:
            return None
        order, rows = read
        places = {name: place for place, name in enumerate(order)}
        take = _picker([places[name] for name in self.layout.names], itemgetter)
        take_text = _picker([places[feature.name] for feature in self.layout.text], itemgetter)
        moment = places.get(self._schema.timestamp)
        times = None if moment is None else np.array([micros(row[moment]) for row in rows], dtype=np.int64)
        numeric = self._matrix([take(row) for row in rows])
        return Block(numeric, self._texts([take_text(row) for row in rows]) if self.layout.text else {}, times)

    def _of_objects(self, rows: Sequence[Any]) -> Block:
        numeric = self._matrix([self._pick_numeric(row) for row in rows])
        text = self._texts([self._pick_text(row) for row in rows]) if self.layout.text else {}
        moments = [row.moment for row in rows]
        if all(moment is msgspec.UNSET for moment in moments):
            return Block(numeric, text)
        times = [NOW if moment is msgspec.UNSET else micros(moment) for moment in moments]
        return Block(numeric, text, np.array(times, dtype=np.int64))

    def _of_lists(self, rows: Sequence[Any]) -> Block:
        take = self._take_numeric
        numeric = self._matrix(rows if take is None else [take(row) for row in rows])
        return Block(numeric, self._texts([self._take_text(row) for row in rows]) if self.layout.text else {})

    def _of_columns(self, columns: Any) -> Block | None:
        lists = {name: getattr(columns, attribute) for name, attribute in self._attributes.items()}
        n = len(next(iter(lists.values())))
        moments = columns.moment
        if any(len(column) != n for column in lists.values()):
            return None
        if moments is not msgspec.UNSET and len(moments) != n:
            return None
        if self._pack is None:
            numeric = np.empty((n, self._n_numeric), dtype=np.float64)
            for place, name in enumerate(self.layout.names):
                numeric[:, place] = np.array(lists[name], dtype=np.float64)
        else:
            numeric = self._matrix(list(zip(*(lists[name] for name in self.layout.names), strict=True)))
        text = {feature.name: lists[feature.name] for feature in self.layout.text}
        times = None if moments is msgspec.UNSET else np.array([micros(m) for m in moments], dtype=np.int64)
        return Block(numeric, text, times)

    def _matrix(self, rows: Sequence[Any]) -> NDArray[np.float64]:
        if self._pack is None:
            return np.array(rows, dtype=np.float64).reshape(len(rows), self._n_numeric)
        # Three times as fast as an array of tuples. A bytearray, since estimators may ask for writable memory.
        if len(rows) == 1:
            packed = bytearray(self._pack(*rows[0]))
        else:
            pack = self._pack
            packed = bytearray(b"".join([pack(*row) for row in rows]))
        return np.frombuffer(packed, dtype=np.float64).reshape(len(rows), self._n_numeric)

    def _texts(self, rows: Sequence[Sequence[str | None]]) -> dict[str, list[str | None]]:
        return {feature.name: [row[place] for row in rows] for place, feature in enumerate(self.layout.text)}

    def _slow(self, body: bytes, max_rows: int) -> Block:
        rows = parse(body, self._schema)
        if len(rows) > max_rows:
            raise too_many(len(rows), max_rows)
        values, faults = examine(self._schema, rows)
        if faults:
            raise refuse(faults)
        numeric = np.array([[value[name] for name in self.layout.names] for value in values], dtype=np.float64).reshape(
            len(values), self._n_numeric
        )
        text = {feature.name: [value[feature.name] for value in values] for feature in self.layout.text}
        moments = [value.get(self._schema.timestamp) for value in values]
        times = [NOW if moment is None else micros(moment) for moment in moments]
        return Block(numeric, text, np.array(times, dtype=np.int64))


# A class is never freed while the collector does not look at it, and a new version mostly has the old one's columns.
@lru_cache(maxsize=64)
def _bodies(order: tuple[tuple[str, str, bool], ...], names: tuple[str, ...], timestamp: str) -> tuple[Any, Any, Any]:
    """Return the types of the three forms a body may have, for features given as name, kind and nullable."""
    types = {name: TYPES[kind] | None if nullable else TYPES[kind] for name, kind, nullable in order}
    attributes = {name: f"f{place}" for place, name in enumerate(types)}
    moment: Any = Moment | msgspec.UnsetType
    renamed = {**{attribute: name for name, attribute in attributes.items()}, "moment": timestamp}
    row: Any = msgspec.defstruct(
        "Row",
        [*((attributes[name], kind) for name, kind in types.items()), ("moment", moment, msgspec.UNSET)],
        rename=renamed,
        forbid_unknown_fields=True,
        gc=False,
    )
    columns: Any = msgspec.defstruct(
        "Columns",
        [
            *((attributes[name], _listed(kind)) for name, kind in types.items()),
            ("moment", list[Moment] | msgspec.UnsetType, msgspec.UNSET),
        ],
        rename=renamed,
        forbid_unknown_fields=True,
    )
    plain: Any = tuple.__class_getitem__(tuple(types[name] for name in names))
    by_column = msgspec.defstruct("Body", [("columns", columns)], forbid_unknown_fields=True)
    return _body("Objects", row), _body("Lists", plain), by_column


def _body(name: str, row: Any) -> Any:
    return msgspec.defstruct(name, [("instances", _listed(row))], forbid_unknown_fields=True, gc=False)


def _listed(kind: Any) -> Any:
    return list.__class_getitem__(kind)  # a type that is only known at run time


def _picker(keys: list[Any], getter: Any) -> Callable[[Any], Any]:
    if not keys:
        return lambda _row: ()
    if len(keys) == 1:
        pick = getter(keys[0])
        return lambda row: (pick(row),)
    picked: Callable[[Any], Any] = getter(*keys)
    return picked


def _kind(schema: Schema, feature: Feature) -> str:
    return "text" if schema.is_text(feature) else feature.kind


def too_many(rows: int, limit: int) -> BodyTooLarge:
    """Return the error for more rows than one request may hold."""
    msg = f"{rows} rows are more than one request may hold ({limit}): split it"
    return BodyTooLarge(msg, rows=rows, limit=limit)
