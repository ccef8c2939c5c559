"""A migrated SQLite database in no time: migrated once a session, copied for each test."""

import atexit
import functools
import shutil
import tempfile
from pathlib import Path

from service.storage.database import Database

__all__ = ["migrated"]


@functools.cache
def _template() -> Path:
    folder = tempfile.mkdtemp(prefix="retrue-template-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    path = Path(folder) / "retrue.db"
    database = Database(f"sqlite:///{path}")
    database.migrate()
    database.close()
    return path


def migrated(path: Path) -> Database:
    """Return a migrated database at `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for file in _template().parent.iterdir():
        shutil.copyfile(file, path.parent / file.name.replace("retrue.db", path.name))
    return Database(f"sqlite:///{path}")
