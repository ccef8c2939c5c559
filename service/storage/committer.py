"""The committer: moves what waits in the spool into the lake, exactly once, and is its only writer of such rows.

Each commit names, for every stream in it, the highest segment that it holds (Delta's application transactions). A
segment is deleted only when all its rows are in; after a crash in between, its rows are known to be in and skipped.
"""

import errno
import fcntl
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar

import pyarrow as pa

from service.domain.errors import LakeUnavailable
from service.storage.lake import Lake, MisfitError
from service.storage.records import Dropped, LabelBatch, PredictionBatch
from service.storage.rows import labels_table, predictions_table
from service.storage.spool import DAMAGED, LOCK, Segment, is_dead, read_segment, segments_of, streams
from service.storage.turns import Away, Target, choose

__all__ = ["CommitReport", "Committed", "Committer"]

_FOR_NOW = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EACCES, errno.EPERM, errno.ESTALE})
"""Why a segment may not be readable at this moment, though nothing is wrong with it."""
_UNFIT = (MisfitError, pa.ArrowException, ValueError, TypeError)

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Committed:
    """One commit, for metrics."""

    model: str
    kind: Literal["predictions", "labels"]
    rows: int
    segments: int
    oldest_us: int
    """When its oldest row was recorded, microseconds since 1970: now less this is the lake's lag."""


@dataclass(kw_only=True)
class CommitReport:
    """What one round did."""

    predictions: int = 0
    labels: int = 0
    commits: int = 0
    segments: int = 0
    """Segments that are in the lake and were deleted."""
    damaged: int = 0
    """Segments that were set aside."""
    torn_bytes: int = 0
    """Bytes of records that their writers never finished, and so never answered."""
    mended: list[str] = field(default_factory=list)
    """Files of the lake's logs that a power cut had torn: taken back, and their rows committed again."""
    left: int = 0
    """Segments that still wait."""
    is_busy: bool = False
    """Another committer is at work: nothing was done."""
    errors: list[str] = field(default_factory=list)


@dataclass
class _Part:
    """One segment's rows for one table."""

    segment: Segment
    batches: list[PredictionBatch] = field(default_factory=list)
    labels: list[LabelBatch] = field(default_factory=list)

    @property
    def oldest_us(self) -> int:
        stamps = [batch.answered_at_us for batch in self.batches]
        return min(stamps + [batch.received_at_us for batch in self.labels])


@dataclass
class _Round:
    segments: list[Segment] = field(default_factory=list)
    parts: dict[Target, list[_Part]] = field(default_factory=dict)
    damaged: dict[Segment, str] = field(default_factory=dict)
    waiting: dict[Segment, set[Target]] = field(default_factory=dict)
    """Which tables, that are away, have to take something of a segment yet."""


class Committer:
    """Moves segments from one host's spool into the lake.

    Parameters
    ----------
    spool_root
        The spool of this host.
    lake
        Where the rows go.
    on_commit, on_failure, on_damage
        Called after each commit, with the kind of each table that failed and why, and with each segment that was set
        aside and why.
    monotonic
        Seconds that only grow.
    """

    def __init__(
        self,
        spool_root: Path,
        lake: Lake,
        *,
        on_commit: Callable[[Committed], None] = lambda _: None,
        on_failure: Callable[[str, str], None] = lambda *_: None,
        on_damage: Callable[[Path, str], None] = lambda *_: None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._root, self._lake = spool_root, lake
        self._on_commit, self._on_failure, self._on_damage = on_commit, on_failure, on_damage
        self._away = Away(monotonic)
        self._mended: set[Target] = set()

    def run_once(self) -> CommitReport:
        """Move everything that is ready; never raises for one bad segment, one bad table, or a disk that is full."""
        report = CommitReport()
        try:
            self._root.mkdir(parents=True, exist_ok=True)
            lock = os.open(self._root / "committer.lock", os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            report.errors.append(f"the spool can't be used: {error.strerror}")
            return report
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            while self._round(report):
                pass
        except BlockingIOError:
            report.is_busy = True
        except OSError as error:
            report.errors.append(f"the spool can't be used: {error.strerror or error}")
        finally:
            os.close(lock)
        return report

    def _round(self, report: CommitReport) -> bool:
        """Move one round's worth; return whether another one would find something to do."""
        # Asked before the folder is listed: a stream that dies in between has its last segment taken next time.
        dead = {stream: is_dead(stream) for stream in streams(self._root)}
        away = self._away.now()
        segments, more, held = choose(
            dead.items(), lambda segment: self._away.holds(segment, away), room=self._away.room
        )
        work = self._gathered(segments, report)
        # Labels first: a check becomes due when predictions have arrived, and reads the labels of that moment.
        for target, parts in sorted(work.parts.items(), key=lambda item: item[0][1]):
            if target in away:
                _wait(work, target, parts)
            else:
                self._commit(target, parts, work, report)
        for segment in work.segments:
            self._dispose(segment, work, report)
        for stream, is_over in dead.items():
            if is_over and not segments_of(stream, with_open=True):
                (stream / LOCK).unlink(missing_ok=True)
                stream.rmdir()
        report.left = len(segments) - len(work.segments) + len(work.waiting) + more + held
        return more > 0 and bool(work.segments)

    def _gathered(self, segments: Iterable[Segment], report: CommitReport) -> _Round:
        work = _Round()
        blocked: set[str] = set()
        for segment in segments:
            # A later segment of the stream must not overtake it: its number would say that this one is in the lake.
            if segment.stream in blocked:
                continue
            try:
                self._read(segment, work, report)
            except OSError as error:
                if error.errno in _FOR_NOW:
                    report.errors.append(f"segment {segment.path.name} can't be read now: {error.strerror}")
                    blocked.add(segment.stream)
                    continue
                work.damaged[segment] = f"it can't be read: {error.strerror}"
            work.segments.append(segment)
        return work

    def _read(self, segment: Segment, work: _Round, report: CommitReport) -> None:
        parts: dict[Target, _Part] = {}
        for record in read_segment(segment.path):
            if isinstance(record, Dropped):
                report.torn_bytes += record.size_bytes if record.is_tail else 0
                if not record.is_tail:
                    work.damaged[segment] = f"{record.size_bytes} bytes are no record"
            elif isinstance(record, PredictionBatch):
                parts.setdefault((record.model, "predictions"), _Part(segment)).batches.append(record)
            else:
                parts.setdefault((record.model, "labels"), _Part(segment)).labels.append(record)
        for target, part in parts.items():
            work.parts.setdefault(target, []).append(part)

    def _commit(self, target: Target, parts: list[_Part], work: _Round, report: CommitReport) -> None:
        model, kind = target
        try:
            self._mend(target, report)
            done = self._lake.committed(model, kind, *{part.segment.stream for part in parts})
            fresh = [part for part in parts if part.segment.seq > _number(done[part.segment.stream])]
            if fresh:
                self._append(target, fresh, report)
            if len(fresh) < len(parts):
                self._lake.sync(model, kind)  # whoever committed them may have died before the disk had them
            self._away.answered(target)
        except LakeUnavailable as error:
            report.errors.append(error.detail)
            self._on_failure(kind, error.detail)
            self._away.failed(target)
            _wait(work, target, parts)
        except _UNFIT as error:
            if len(parts) > 1:
                self._commit_apart(target, parts, work, report)
                return
            work.damaged[parts[0].segment] = f"rows of {model!r} do not fit its {kind}: {error}"

    def _commit_apart(self, target: Target, parts: list[_Part], work: _Round, report: CommitReport) -> None:
        """Find the bad ones, and let the others pass, up to the first that has to wait: none may overtake it."""
        for place, part in enumerate(parts):
            self._commit(target, [part], work, report)
            if target in work.waiting.get(part.segment, ()):
                _wait(work, target, parts[place:])
                return

    def _mend(self, target: Target, report: CommitReport) -> None:
        if target not in self._mended:
            report.mended += self._lake.mend(*target)
            self._mended.add(target)

    def _append(self, target: Target, parts: list[_Part], report: CommitReport) -> None:
        model, kind = target
        transactions: dict[str, int] = {}
        for part in parts:
            stream = part.segment.stream
            transactions[stream] = max(transactions.get(stream, -1), part.segment.seq)
        if kind == "predictions":
            rows = predictions_table(_flat(part.batches for part in parts))
            self._lake.append_predictions(model, rows, transactions=transactions)
            report.predictions += rows.num_rows
        else:
            rows = labels_table(_flat(part.labels for part in parts))
            self._lake.append_labels(model, rows, transactions=transactions)
            report.labels += rows.num_rows
        report.commits += 1
        oldest_us = min(part.oldest_us for part in parts)
        self._on_commit(Committed(model=model, kind=kind, rows=rows.num_rows, segments=len(parts), oldest_us=oldest_us))

    def _dispose(self, segment: Segment, work: _Round, report: CommitReport) -> None:
        if segment in work.waiting:
            self._away.hold(segment, work.waiting[segment])
            return
        self._away.release(segment)
        why = work.damaged.get(segment)
        if why is None:
            segment.path.unlink()
            report.segments += 1
            return
        aside = self._root / DAMAGED
        aside.mkdir(exist_ok=True)
        kept = segment.path.rename(aside / f"{segment.stream}-{segment.seq:012d}.spool")
        report.damaged += 1
        report.errors.append(f"{kept.name}: {why}")
        self._on_damage(kept, why)


def _wait(work: _Round, target: Target, parts: Iterable[_Part]) -> None:
    for part in parts:
        work.waiting.setdefault(part.segment, set()).add(target)


def _number(committed: int | None) -> int:
    return -1 if committed is None else committed


def _flat(lists: Iterable[list[T]]) -> list[T]:
    return [item for part in lists for item in part]
