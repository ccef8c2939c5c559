"""From a feedback body to labels: good items are accepted, each bad one is named."""

import math
import uuid
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec

from service.domain.errors import BodyTooLarge, InvalidRequest
from service.domain.spec import LabelKind, Schema
from service.serving.decode import micros
from service.serving.examine import moment_of, parse_json, shown

__all__ = ["FeedbackDecoder", "Labels"]

_INT64 = 2**63


@dataclass(frozen=True, kw_only=True)
class Labels:
    """Accepted labels, and what was wrong with the others."""

    kind: LabelKind
    ids: list[str] = field(default_factory=list)
    labels: list[Any] = field(default_factory=list)
    observed_at_us: list[int | None] = field(default_factory=list)
    """None: observed at the moment it is received."""
    errors: list[dict[str, Any]] = field(default_factory=list)
    """One for each bad item: its place, the field, a code, and words."""


class FeedbackDecoder:
    """Decodes feedback bodies for one model's label type."""

    def __init__(self, schema: Schema) -> None:
        self._kind = schema.label

    def decode(self, body: bytes, *, max_rows: int) -> Labels:
        """Return the labels in `body`.

        Raises
        ------
        InvalidRequest, BodyTooLarge
            If the body as a whole is not what the protocol asks for, or holds too many labels.
        """
        try:
            plain = msgspec.json.decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            plain = parse_json(body)  # NaN among labels is one bad item, not a bad body
        items = plain.get("labels") if isinstance(plain, dict) and len(plain) == 1 else None
        if not isinstance(items, list) or not items:
            msg = 'the body must be {"labels": [{"id": ..., "label": ...}]} with at least one item'
            raise InvalidRequest(msg)
        if len(items) > max_rows:
            msg = f"{len(items)} labels are more than one request may hold ({max_rows}): split it"
            raise BodyTooLarge(msg, rows=len(items), limit=max_rows)
        labels = Labels(kind=self._kind)
        for place, item in enumerate(items):
            self._take(labels, place, item)
        return labels

    def _take(self, labels: Labels, place: int, item: Any) -> None:
        fault = self._fault(item)
        if fault is not None:
            name, code, detail = fault
            labels.errors.append({"item": place, "field": name, "code": code, "detail": detail})
            return
        observed = item.get("observed_at")
        moment: datetime | None = None if observed is None else moment_of(observed)
        labels.ids.append(str(uuid.UUID(item["id"])))
        labels.labels.append(float(item["label"]) if self._kind == "number" else item["label"])
        labels.observed_at_us.append(None if moment is None else micros(moment))

    def _fault(self, item: Any) -> tuple[str, str, str] | None:
        if not isinstance(item, dict):
            return "", "type", "must be an object with id and label"
        for name in ("id", "label"):
            if name not in item:
                return name, "missing", "is missing"
        strange = item.keys() - {"id", "label", "observed_at"}
        if strange:
            return shown(min(strange, key=str)), "unknown", "is no field of a label"
        if not _is_uuid(item["id"]):
            return "id", "type", "must be the id that came with a prediction"
        wrong = _label_fault(self._kind, item["label"])
        if wrong is not None:
            return "label", "type", wrong
        if item.get("observed_at") is not None and moment_of(item["observed_at"]) is None:
            return "observed_at", "type", "must be an RFC 3339 moment with its zone, such as 2026-01-31T12:00:00Z"
        return None


def _is_uuid(text: Any) -> bool:
    if not isinstance(text, str) or len(text) != 36:
        return False
    try:
        uuid.UUID(text)
    except ValueError:
        return False
    return True


def _label_fault(kind: LabelKind, label: Any) -> str | None:
    if kind == "string":
        return None if isinstance(label, str) and _encodes(label) else "must be a string"
    if isinstance(label, bool) or not isinstance(label, int | float):
        return "must be a number" if kind == "number" else "must be an integer"
    if kind == "integer":
        return None if isinstance(label, int) and -_INT64 <= label < _INT64 else "must be an integer of 64 bits"
    try:
        return None if math.isfinite(float(label)) else "must be finite"
    except OverflowError:
        return "must be finite"


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
