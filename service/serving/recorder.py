"""The recorder: gives answers their ids and writes them to the spool before anybody sees them."""

import os
import threading
from collections.abc import Callable, Sequence

import numpy as np
import uuid_utils
from numpy.typing import NDArray

from service.domain.errors import NotRecorded
from service.serving.block import NOW, Block
from service.serving.bundle import Answers, Bundle
from service.serving.feedback import Labels
from service.storage.ids import QuotedIds
from service.storage.spool import LabelBatch, PredictionBatch, SpoolWriter

__all__ = ["Recorder", "mint"]

FEW = 16
"""Up to so many ids are made one by one; above it numpy's fixed cost pays."""


def mint(n: int, at_us: int) -> tuple[NDArray[np.uint8], Sequence[str]]:
    """Return `n` new UUIDv7s, raw and as text."""
    if n <= FEW:
        ids = [uuid_utils.uuid7() for _ in range(n)]
        raw = np.frombuffer(b"".join([one.bytes for one in ids]), dtype=np.uint8).reshape(n, 16)
        return raw, [str(one) for one in ids]
    raw = np.frombuffer(bytearray(os.urandom(16 * n)), dtype=np.uint8).reshape(n, 16)
    raw[:, :6] = np.frombuffer((at_us // 1000).to_bytes(6, "big"), dtype=np.uint8)
    raw[:, 6] = (raw[:, 6] & 0x0F) | 0x70
    raw[:, 8] = (raw[:, 8] & 0x3F) | 0x80
    return raw, QuotedIds.of(raw)


class Recorder:
    """Writes to the one spool of a worker, from the event loop and from its threads.

    Parameters
    ----------
    spool
        The worker's own stream.
    clock_us
        Wall clock, microseconds since 1970.
    when_full
        What a model's spec says of answers that can't be written down: ``refuse`` or ``answer``.
    """

    def __init__(
        self, spool: SpoolWriter, *, clock_us: Callable[[], int], when_full: Callable[[str], str] = lambda _: "refuse"
    ) -> None:
        self._spool, self._clock_us, self._when_full = spool, clock_us, when_full
        self._lock = threading.Lock()
        self._is_closed = False

    def record(self, bundle: Bundle, block: Block, answers: Answers) -> tuple[Sequence[str], dict[str, int]]:
        """Write the answered rows; return their ids and the counts of odd values.

        Where they can't be written and the model's spec says to answer all the same, there are no ids: nobody could
        ever find such an answer again.

        Raises
        ------
        NotRecorded
            If the disk or the spool is full: then nothing was written and nothing may be answered.
        """
        at_us, layout = self._clock_us(), bundle.layout
        raw, texts = mint(len(block), at_us)
        signals = layout.signals(block)
        outputs = answers.outputs
        batch = PredictionBatch(
            model=bundle.model,
            version=bundle.version,
            generation=bundle.generation,
            answered_at_us=at_us,
            ids=raw,
            event_time_us=_event_times(block, at_us),
            numeric_names=layout.names,
            numeric_kinds=layout.kinds,
            numeric=block.numeric,
            text=block.text,
            output=outputs.tolist() if outputs.dtype == object else outputs,
            probabilities=answers.probabilities,
            classes=bundle.classes,
            signals=signals,
        )
        try:
            with self._lock:
                self._spool.append_predictions(batch)
        except NotRecorded:
            if self._when_full(bundle.model) != "answer":
                raise
            return [], signals
        return texts, signals

    def record_labels(self, model: str, labels: Labels) -> None:
        """Write accepted labels, or raise `NotRecorded`, whatever the spec says: the sender still has them."""
        at_us = self._clock_us()
        batch = LabelBatch(
            model=model,
            kind=labels.kind,
            ids=labels.ids,
            labels=labels.labels,
            observed_at_us=[at_us if moment is None else moment for moment in labels.observed_at_us],
            received_at_us=at_us,
        )
        with self._lock:
            self._spool.append_labels(batch)

    def tick(self) -> None:
        """Close a segment that has grown old."""
        with self._lock:
            if not self._is_closed:
                self._spool.tick()

    def close(self) -> None:
        """Close the spool."""
        with self._lock:
            self._is_closed = True
            self._spool.close()


def _event_times(block: Block, at_us: int) -> NDArray[np.int64]:
    times = block.event_time_us
    if times is None:
        return np.full(len(block), at_us, dtype=np.int64)
    named: NDArray[np.int64] = np.where(times == NOW, at_us, times)
    return named
