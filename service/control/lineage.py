"""The lineage record of a version: where it comes from, in enough detail to make it again or to argue about it."""

import platform
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from service import __version__
from service.storage.runs import Run

__all__ = ["Commit", "commit_of", "lineage"]


@dataclass(frozen=True, kw_only=True)
class Commit:
    """The state of the project's code."""

    sha: str | None
    """None where the folder is no git repository."""
    dirty: bool | None


def commit_of(project: Path) -> Commit:
    """Return the commit of the project folder, and whether files differ from it."""
    sha = _git(project, "rev-parse", "HEAD")
    if sha is None:
        return Commit(sha=None, dirty=None)
    status = _git(project, "status", "--porcelain", "--untracked-files=no")
    return Commit(sha=sha, dirty=None if status is None else bool(status))


def lineage(
    run: Run,
    *,
    at: datetime,
    commit: Commit,
    spec: Mapping[str, Any],
    spec_digest: str | None,
    parent: int | None,
    snapshot: Mapping[str, Any],
    training: Mapping[str, Any],
    artifact: Mapping[str, Any],
    evaluation: Mapping[str, Any],
    libraries: Mapping[str, str],
) -> dict[str, Any]:
    """Return the record as plain JSON values; it is written once and never changed."""
    return {
        "run": run.id,
        "attempt": run.attempt,
        "parent": parent,
        "trigger": {"kind": run.trigger.value, "actor": run.actor, "reason": run.reason, "check": run.check_id},
        "time": {
            "requested": run.requested_at.isoformat(),
            "started": None if run.started_at is None else run.started_at.isoformat(),
            "packaged": at.isoformat(),
            "data_until": snapshot.get("until"),
        },
        "code": {"retrue": __version__, "commit": commit.sha, "dirty": commit.dirty, "model_file": spec.get("code")},
        "libraries": dict(libraries),
        "machine": {"system": platform.system(), "machine": platform.machine()},
        "spec": dict(spec) | {"digest": spec_digest},
        "data": dict(snapshot),
        "training": dict(training),
        "artifact": dict(artifact),
        "evaluation": dict(evaluation),
    }


def _git(project: Path, *words: str) -> str | None:
    try:
        done = subprocess.run(  # noqa: S603  fixed words
            ["git", "-C", str(project), *words],  # noqa: S607  the operator's own git
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
