"""A disk of a few megabytes that really fills up, and is really freed again."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

__all__ = ["SmallDisk", "small_disk"]

MEGABYTES = 6
INODES = 1000
"""So many files and folders: a full disk has no room for an empty one either."""


class SmallDisk:
    """A file system of its own below `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._ballast, self._files = root / "ballast", root / "ballast-files"

    def fill(self, *, but: int = 0) -> None:
        """Take all the room there is, but for so many bytes."""
        with self._ballast.open("ab", buffering=0) as ballast:
            for size in (1 << 16, 1 << 12, 1):  # the last block too: a file may end within one
                try:
                    while True:
                        ballast.write(bytes(size))
                except OSError:
                    continue
        if but:
            os.truncate(self._ballast, max(self._ballast.stat().st_size - but, 0))
            return
        with suppress(OSError):
            self._files.mkdir()
            for number in range(INODES):
                (self._files / str(number)).touch()

    def free(self) -> None:
        """Give the room back."""
        self._ballast.unlink()
        shutil.rmtree(self._files, ignore_errors=True)


@contextmanager
def small_disk(root: Path, megabytes: int = MEGABYTES) -> Iterator[SmallDisk]:
    """Mount one at `root`. CI must be able to; elsewhere the test is skipped, with the reason."""
    root.mkdir(parents=True)
    options = f"size={megabytes}m,nr_inodes={INODES},mode=0700,uid={os.getuid()}"
    mount = ["mount", "-t", "tmpfs", "-o", options, "retrue-test", str(root)]
    leave = ["umount", "-l", str(root)]
    for prefix in ([], ["sudo", "-n"]):
        if shutil.which((prefix or mount)[0]) is None:
            continue
        if subprocess.run([*prefix, *mount], capture_output=True, check=False).returncode == 0:
            try:
                yield SmallDisk(root)
            finally:
                subprocess.run([*prefix, *leave], capture_output=True, check=True)
            return
    why = "a disk that fills up can't be mounted here: it takes root, or sudo without a password"
    if os.environ.get("CI"):
        pytest.fail(why)
    pytest.skip(why)
