"""A home with a classifier that serves and a model without a champion: made once a session, copied for each test."""

import atexit
import functools
import shutil
import tempfile
from pathlib import Path

from service.storage.artifacts import ArtifactStore
from service.storage.database import Database
from service.storage.versions import VersionRow
from tests.migrated import migrated
from tests.served import FLIP, PRICE, crown, flip, pack, register

__all__ = ["staged"]


@functools.cache
def _template() -> tuple[Path, VersionRow]:
    home = Path(tempfile.mkdtemp(prefix="retrue-stage-"))
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    database = migrated(home / "retrue.db")
    register(database, FLIP)
    register(database, PRICE)
    first = pack(ArtifactStore(home / "artifacts"), FLIP, flip(0))
    crown(database, first)
    database.close()
    return home, first


def staged(home: Path) -> tuple[Database, ArtifactStore, VersionRow]:
    """Return the database and the store of a home of one's own, and the version that serves."""
    template, first = _template()
    shutil.copytree(template, home, dirs_exist_ok=True)
    return Database(f"sqlite:///{home / 'retrue.db'}"), ArtifactStore(home / "artifacts"), first
