"""Files by their sha256: written once, verified at every read, never changed."""

import hashlib
import os
import re
import tempfile
from contextlib import suppress
from pathlib import Path

from service.domain.errors import ArtifactInvalid

__all__ = ["ArtifactStore"]

_DIGEST = re.compile(r"[0-9a-f]{64}")
_CHUNK = 1 << 20
_UNFINISHED = ".put-"


class ArtifactStore:
    """A folder in which each file's name is the sha256 of its content.

    Parameters
    ----------
    root
        The folder; made at the first write.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def put(self, content: bytes | Path) -> str:
        """Store `content` and return its sha256; storing the same again only makes it young again.

        Parameters
        ----------
        content
            The bytes, or the path of a file with them.
        """
        data = content.read_bytes() if isinstance(content, Path) else content
        sha256 = hashlib.sha256(data).hexdigest()
        if self._is_intact(sha256) and self._is_renewed(sha256):
            return sha256
        self.root.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=_UNFINISHED, dir=self.root)
        temporary = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.chmod(0o444)
            temporary.replace(self.root / sha256)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        _sync_folder(self.root)
        return sha256

    def read(self, sha256: str) -> bytes:
        """Return the content, verified.

        Raises
        ------
        ArtifactInvalid
            If the artifact is missing or was altered.
        """
        path = self._path(sha256)
        try:
            data = path.read_bytes()
        except FileNotFoundError as error:
            msg = f"artifact {sha256} is missing"
            raise ArtifactInvalid(msg, artifact=sha256, reason="missing") from error
        except OSError as error:
            msg = f"artifact {sha256} can't be read: {error.strerror}"
            raise ArtifactInvalid(msg, artifact=sha256, reason="unreadable") from error
        found = hashlib.sha256(data).hexdigest()
        if found != sha256:
            msg = f"artifact {sha256} was altered: its content's sha256 is {found}"
            raise ArtifactInvalid(msg, artifact=sha256, found=found, reason="altered")
        return data

    def path(self, sha256: str) -> Path:
        """Return the file's path after verifying its content; raises as `read` does."""
        self.read(sha256)
        return self._path(sha256)

    def exists(self, sha256: str) -> bool:
        """Return whether the artifact is there; its content is verified only when it is read."""
        return bool(_DIGEST.fullmatch(sha256)) and self._path(sha256).is_file()

    def delete(self, sha256: str) -> None:
        """Remove the artifact; nothing happens if it is not there."""
        self._path(sha256).unlink(missing_ok=True)

    def list(self) -> list[str]:
        """Return the digests of all artifacts, sorted."""
        if not self.root.is_dir():
            return []
        return sorted(entry.name for entry in self.root.iterdir() if _DIGEST.fullmatch(entry.name))

    def dated(self) -> dict[str, float]:
        """Return when each artifact was last put, in seconds since 1970."""
        found: dict[str, float] = {}
        for sha256 in self.list():
            with suppress(FileNotFoundError):
                found[sha256] = (self.root / sha256).stat().st_mtime
        return found

    def forget_unfinished(self, before: float) -> int:
        """Remove what writers that died have left, if it is older than `before`; return how many files."""
        gone = 0
        for path in self.root.glob(f"{_UNFINISHED}*") if self.root.is_dir() else ():
            with suppress(FileNotFoundError):
                if path.stat().st_mtime < before:
                    path.unlink()
                    gone += 1
        return gone

    def _path(self, sha256: str) -> Path:
        # The digest comes from the database or an operator: it must never name a file elsewhere.
        if not _DIGEST.fullmatch(sha256):
            msg = "that is not a sha256"
            raise ArtifactInvalid(msg, reason="malformed")
        return self.root / sha256

    def _is_renewed(self, sha256: str) -> bool:
        """Date the artifact anew, so that it is not swept before the row that will name it is written."""
        try:
            os.utime(self._path(sha256))
        except OSError:
            return False  # swept between two looks, or another user's: it is written anew
        return True

    def _is_intact(self, sha256: str) -> bool:
        digest = hashlib.sha256()
        try:
            with self._path(sha256).open("rb") as file:
                while chunk := file.read(_CHUNK):
                    digest.update(chunk)
        except OSError:
            return False
        return digest.hexdigest() == sha256


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
