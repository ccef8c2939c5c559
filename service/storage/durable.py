"""What a power cut must not take: a commit is on the disk before anything that rests on it is deleted.

Delta writes files and renames them, but never asks the disk. So a commit's files are forced to it here, and what a
power cut tore before that is taken back: its rows still wait in the spool.
"""

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq

__all__ = ["forget_unfinished", "mend", "sync_checkpoint", "sync_commit"]

LOG = "_delta_log"
_NEWEST_CHECKPOINT = "_last_checkpoint"


def sync_commit(table: Path, version: int) -> None:
    """Force one commit to the disk: its data files, its entry in the log, and the folders that name them.

    Raises
    ------
    OSError
        If the disk refuses.
    """
    entry = _entry(table, version)
    try:
        added = [table / unquote(action["path"]) for action in _added(entry)]
    except FileNotFoundError:
        return  # cleaned up since: a checkpoint that was forced to the disk holds it
    for path in added:
        if path.exists():  # a later commit may have taken it out, and vacuum removed it
            _sync(path)
    _sync(entry)
    # A table that is new is a new name in the folders above it, too.
    above = [table.parent, table.parent.parent] if version == 0 else []
    for folder in dict.fromkeys([*(path.parent for path in added), table / LOG, table, *above]):
        if folder.exists():
            _sync(folder)


def sync_checkpoint(table: Path) -> None:
    """Force the newest checkpoint and the note that names it to the disk."""
    log = table / LOG
    for path in (*_checkpoint_files(table), log / _NEWEST_CHECKPOINT, log):
        if path.exists():
            _sync(path)


def mend(table: Path) -> list[str]:
    """Take back what a power cut tore off the end of a table's log; return the names of the files removed.

    Only for the one process that writes the table. A commit is whole if its entry can be read and its data files have
    their sizes; a checkpoint, if it can be opened. Older ones were forced to the disk before these began.
    """
    removed: list[str] = []
    log = table / LOG
    if not log.is_dir():
        return removed
    while (parts := _checkpoint_files(table)) and not all(_opens(part) for part in parts):
        for path in (log / _NEWEST_CHECKPOINT, *parts):  # the entries that it sums up are all still there
            path.unlink(missing_ok=True)
            removed.append(path.name)
    note = log / _NEWEST_CHECKPOINT
    if note.exists() and not _is_json(note):
        note.unlink()
        removed.append(note.name)
    for version in sorted((int(path.stem) for path in log.glob("*.json") if path.stem.isdigit()), reverse=True):
        if _is_whole(table, version):
            break
        _entry(table, version).unlink()
        removed.append(_entry(table, version).name)
    if removed:
        _sync(log)
    return removed


def forget_unfinished(table: Path, before: float) -> int:
    """Remove what a writer that was killed has left half-written, if older than `before`; return how many files.

    Delta writes a file under its name with ``#`` and a number, and renames it; vacuum does not see such names.
    """
    gone = 0
    for path in (*table.glob("*#[0-9]*"), *(table / LOG).glob("*#[0-9]*")):
        with suppress(FileNotFoundError):
            if path.stat().st_mtime < before:
                path.unlink()
                gone += 1
    return gone


def _is_whole(table: Path, version: int) -> bool:
    try:
        actions = list(_actions(_entry(table, version)))
        added = [action["add"] for action in actions if "add" in action]
        return bool(actions) and all((table / unquote(one["path"])).stat().st_size == one["size"] for one in added)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _opens(checkpoint: Path) -> bool:
    try:
        pq.read_metadata(checkpoint)
    except (OSError, pa.ArrowException):
        return False
    return True


def _is_json(note: Path) -> bool:
    try:
        json.loads(note.read_bytes())
    except ValueError:
        return False
    return True


def _checkpoint_files(table: Path) -> list[Path]:
    """Return the files of the newest checkpoint."""
    found = sorted((table / LOG).glob("*.checkpoint*.parquet"))
    return [path for path in found if path.name.partition(".")[0] == found[-1].name.partition(".")[0]]


def _added(entry: Path) -> list[dict[str, Any]]:
    return [action["add"] for action in _actions(entry) if "add" in action]


def _actions(entry: Path) -> Iterator[dict[str, Any]]:
    for line in entry.read_text().splitlines():
        if line:
            yield json.loads(line)


def _entry(table: Path, version: int) -> Path:
    return table / LOG / f"{version:020d}.json"


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
