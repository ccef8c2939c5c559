"""The spool: every answer and every label is appended here before it is acknowledged.

Each worker boot is a stream: a fresh folder with a lock that its process holds, so that the committer can tell the
streams of the dead. Segments are numbered; ``.open`` is being written, ``.ready`` waits for the committer.
"""

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from service.domain.errors import NotRecorded
from service.storage.ids import new_id
from service.storage.records import Dropped, LabelBatch, PredictionBatch, encode, scan

__all__ = [
    "DAMAGED",
    "Dropped",
    "LabelBatch",
    "PredictionBatch",
    "Segment",
    "SpoolWriter",
    "Waiting",
    "is_dead",
    "read_segment",
    "segments_of",
    "spool_bytes",
    "streams",
    "survey",
]

DAMAGED = "damaged"
"""Folder below the spool for segments that hold something unreadable."""
LOCK = "lock"
_MEASURE_EVERY_S = 0.5
_PATIENT_FILES = 16
"""With so many files waiting in its stream a segment may grow twice as old, with twice as many three times, and so on:
an hour without the lake leaves some hundred files, not tens of thousands that everybody must list."""


@dataclass(frozen=True, order=True)
class Segment:
    """One file of a stream."""

    stream: str
    seq: int
    path: Path


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """What is in the spool."""

    size_bytes: int
    since: float | None
    """When the oldest segment that is ready was last written to, seconds since 1970; None when none waits."""


class SpoolWriter:
    """Appends records to this process's own stream. Not for several threads at once.

    Parameters
    ----------
    folder
        The spool's root; the stream's folder is made in it.
    max_bytes, max_age_s
        A segment that is larger or older is closed and a new one begun.
    cap_bytes
        The whole spool may hold so much; beyond it nothing is recorded. Other streams are measured every half second.
    sync
        Whether each record is forced to the disk: survives a power cut, costs a disk's round trip.
    monotonic
        Seconds that only grow.
    """

    def __init__(
        self,
        folder: Path,
        *,
        max_bytes: int,
        max_age_s: float,
        cap_bytes: int,
        sync: bool,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.root = folder
        self.stream = new_id()
        self.lost_room = False
        """Whether the last append was refused for want of room."""
        self._max_bytes, self._max_age_s, self._cap_bytes = max_bytes, max_age_s, cap_bytes
        self._sync, self._monotonic = sync, monotonic
        self._seq, self._file, self._size, self._opened_at = 0, -1, 0, 0.0
        self._is_torn = self._is_closed = False
        self._home, self._lock, self._files = folder / self.stream, -1, 0
        with suppress(OSError):  # a worker that starts on a full disk answers what it may, and tries again
            self._found_stream()
        self._total, self._measured_at = spool_bytes(folder), monotonic()

    def append_predictions(self, batch: PredictionBatch) -> None:
        """Record answered rows.

        Raises
        ------
        NotRecorded
            If the disk or the spool is full: then nothing of the batch was recorded.
        """
        self._append(encode(batch))

    def append_labels(self, batch: LabelBatch) -> None:
        """Record labels; raises as `append_predictions` does."""
        self._append(encode(batch))

    def tick(self) -> None:
        """Close a segment that has grown old while nothing came; for the worker's timer."""
        if self._file >= 0 and self._size and self._is_old():
            self._rotate()
        self._measure()

    def close(self) -> None:
        """Close the segment and let go of the stream. What it holds is left to the committer."""
        self._is_closed = True
        if self._lock < 0:
            return
        with suppress(OSError):  # the last segment of a stream that nobody holds is taken whatever its name
            self._rotate()
        if self._file >= 0:
            os.close(self._file)
        os.close(self._lock)
        self._file = self._lock = -1

    def __enter__(self) -> "SpoolWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _found_stream(self) -> None:
        # The lock is taken before the folder has its name: no committer ever sees a living stream unlocked.
        unnamed = self.root / f".{self.stream}"
        unnamed.mkdir(parents=True, exist_ok=True)
        lock = os.open(unnamed / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            unnamed.rename(self._home)
            self._keep_names(self.root)
        except BaseException:
            os.close(lock)
            raise
        self._lock = lock

    def _append(self, buffers: list[bytes]) -> None:
        if self._is_closed:
            msg = "the worker is leaving: it records nothing more"
            raise NotRecorded(msg, reason="closed", retry_after_s=1)
        size = sum(map(len, buffers))
        try:
            self._make_ready(size)
        except OSError as error:
            raise self._refused(error) from error
        if self._total + size > self._cap_bytes:
            self._measure(now=not self.lost_room)  # the first refusal looks at once, those after it by the clock
            if self._total + size > self._cap_bytes:
                self.lost_room = True
                msg = "the spool is full: answers can't be recorded until the lake takes them over"
                raise NotRecorded(msg, reason="spool-full", retry_after_s=5)
        try:
            self._write(buffers, size)
        except OSError as error:
            self._undo()
            raise self._refused(error) from error
        self.lost_room = False
        self._size += size
        self._total += size

    def _make_ready(self, size: int) -> None:
        if self._lock < 0:
            self._found_stream()
        if self._is_torn:
            self._rotate()
        elif self._size and (self._size + size > self._max_bytes or self._is_old()):
            with suppress(OSError):  # the segment grows on: a record is refused only if it can't be written
                self._rotate()

    def _refused(self, error: OSError) -> NotRecorded:
        self.lost_room = True
        msg = f"the answer could not be written down: {error.strerror or 'the disk took only a part'}"
        return NotRecorded(msg, reason="disk", retry_after_s=5)

    def _is_old(self) -> bool:
        return self._monotonic() - self._opened_at >= self._max_age_s * (1 + self._files // _PATIENT_FILES)

    def _write(self, buffers: list[bytes], size: int) -> None:
        if self._file < 0:
            path = self._home / f"{self._seq:012d}.open"
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o644)
            self._size, self._opened_at = 0, self._monotonic()
            self._keep_names(self._home)
        if os.writev(self._file, buffers) != size:
            raise OSError
        if self._sync:
            os.fdatasync(self._file)

    def _keep_names(self, folder: Path) -> None:
        """Force a folder's names to the disk: what is in a file helps nobody who can't find it."""
        if self._sync:
            handle = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)

    def _undo(self) -> None:
        """Cut off what a short write left, so that the segment stays well-formed."""
        if self._file < 0:
            return
        try:
            os.ftruncate(self._file, self._size)
        except OSError:
            self._is_torn = True  # readers skip a torn record; nothing must follow it

    def _rotate(self) -> None:
        if self._file < 0:
            return
        path = self._home / f"{self._seq:012d}.open"
        if self._size:
            # Before anything else: were a segment left behind unnamed, the next one's number would say that it is in
            # the lake, and its rows would be lost.
            path.rename(path.with_suffix(".ready"))
        else:
            path.unlink(missing_ok=True)
        os.close(self._file)
        self._file, self._size, self._is_torn = -1, 0, False
        self._seq += 1

    def _measure(self, *, now: bool = False) -> None:
        moment = self._monotonic()
        if now or moment - self._measured_at >= _MEASURE_EVERY_S:
            self._total, self._measured_at = spool_bytes(self.root), moment
            if self._lock >= 0:
                self._files = len(os.listdir(self._home))  # noqa: PTH208  only their number is asked, and often


def streams(root: Path) -> list[Path]:
    """Return the folders of all streams, the oldest first."""
    if not root.is_dir():
        return []
    return sorted(path for path in root.iterdir() if path.is_dir() and path.name != DAMAGED and path.name[0] != ".")


def segments_of(stream: Path, *, with_open: bool = False) -> list[Segment]:
    """Return a stream's segments in order; those being written only if asked for."""
    kinds = {".ready", ".open"} if with_open else {".ready"}
    found = (path for path in stream.iterdir() if path.suffix in kinds and path.stem.isdigit())
    return sorted(Segment(stream=stream.name, seq=int(path.stem), path=path) for path in found)


def is_dead(stream: Path) -> bool:
    """Return whether the process that wrote the stream has gone; the system lets go of its lock then."""
    try:
        lock = os.open(stream / LOCK, os.O_RDWR)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(lock)
    return True


def spool_bytes(root: Path) -> int:
    """Return how much waits in the spool; what was set aside as damaged does not count."""
    return survey(root).size_bytes


def survey(root: Path) -> Waiting:
    """Return how much waits in the spool, and since when."""
    size = 0
    since: float | None = None
    for stream in streams(root):
        try:
            entries = list(os.scandir(stream))
        except FileNotFoundError:
            continue  # the committer took it away meanwhile
        for entry in entries:
            try:
                found = entry.stat()
            except FileNotFoundError:
                continue
            size += found.st_size
            if entry.name.endswith(".ready") and (since is None or found.st_mtime < since):
                since = found.st_mtime
    return Waiting(size_bytes=size, since=since)


def read_segment(path: Path) -> Iterator[PredictionBatch | LabelBatch | Dropped]:
    """Yield the segment's records, and what of it is none."""
    yield from scan(path.read_bytes())
