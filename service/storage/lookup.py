"""``python -m service.storage.lookup HOME MODEL ID``: print one prediction as JSON.

A program of its own, so that the api's workers never import deltalake. Exit code 1: not found; 2: the lake is away.
"""

import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from service.domain.errors import LakeUnavailable
from service.storage.ids import id_texts, is_id
from service.storage.lake import Lake
from service.storage.records import PredictionBatch
from service.storage.spool import read_segment, segments_of, streams

__all__ = ["find", "main"]

_START = datetime(1970, 1, 1, tzinfo=UTC)


def find(lake: Lake, spool_root: Path, model: str, prediction_id: str) -> dict[str, Any] | None:
    """Return a prediction, wherever it is on its way: the lake, the spool, or the lake it reached meanwhile."""
    return (
        lake.find_prediction(model, prediction_id)
        or _in_spool(spool_root, model, prediction_id)
        or lake.find_prediction(model, prediction_id)
    )


def main(arguments: list[str]) -> int:
    """Print the prediction; return the exit code."""
    home, model, prediction_id = arguments
    if not is_id(prediction_id):
        return 1
    try:
        found = find(Lake(Path(home) / "lake"), Path(home) / "spool", model, prediction_id)
    except LakeUnavailable as error:
        sys.stderr.write(f"{error.detail}\n")
        return 2
    if found is None:
        return 1
    sys.stdout.write(json.dumps(found, default=_plain) + "\n")
    return 0


def _in_spool(root: Path, model: str, prediction_id: str) -> dict[str, Any] | None:
    wanted = prediction_id.encode()
    for stream in streams(root):
        try:
            for segment in segments_of(stream, with_open=True):
                for record in read_segment(segment.path):
                    if not isinstance(record, PredictionBatch) or record.model != model:
                        continue
                    places = (id_texts(record.ids) == wanted).nonzero()[0]
                    if len(places):
                        return _row(record, int(places[0]), prediction_id)
        except FileNotFoundError:
            continue  # the committer has just moved it to the lake
    return None


def _row(batch: PredictionBatch, place: int, prediction_id: str) -> dict[str, Any]:
    features: dict[str, Any] = {}
    for column, (name, kind) in enumerate(zip(batch.numeric_names, batch.numeric_kinds, strict=True)):
        value = float(batch.numeric[place, column])
        if value != value:
            features[name] = None
        else:
            features[name] = {"boolean": bool, "integer": int}.get(kind, float)(value)
    features |= {name: values[place] for name, values in batch.text.items()}
    output = batch.output[place]
    probabilities = batch.probabilities
    return {
        "model": batch.model,
        "id": prediction_id,
        "event_time": _START + timedelta(microseconds=int(batch.event_time_us[place])),
        "answered_at": _START + timedelta(microseconds=batch.answered_at_us),
        "version": batch.version,
        "generation": batch.generation,
        "output": output if isinstance(output, str) else output.item(),
        "probabilities": None if probabilities is None else probabilities[place].tolist(),
        "features": features,
        "label": None,
    }


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(type(value).__name__)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
