"""The data summary of a run, drawn by its trainer when the verdict stands: a file below the reports folder."""

import gzip
import logging
from pathlib import Path

from service.control.material import Material
from service.control.tasks import TrainTask
from service.journal import facts

__all__ = ["draw_summary"]

log = logging.getLogger(__name__)

NEWEST = 100
"""So many summaries a model are kept: ids sort by time."""
PREFIX = "data-"


def draw_summary(task: TrainTask, material: Material) -> Path | None:
    """Write the summary of `material`; None where it could not be drawn, which is told in the log and nowhere else."""
    folder = Path(task.reports) / task.model
    try:
        from service.learning.summary import summary  # Evidently costs seconds where the fork server has it not

        title = f"{task.model}: what run {task.run_id} could learn from, until {material.until:%Y-%m-%d %H:%M} UTC"
        text = summary(material.schema, material.rows, title=title)
        folder.mkdir(parents=True, exist_ok=True)
        target = folder / f"{PREFIX}{task.run_id}.html.gz"
        part = target.with_suffix(".part")
        part.write_bytes(gzip.compress(text.encode(), compresslevel=5))
        part.replace(target)
        for old in sorted(folder.glob(f"{PREFIX}*.html.gz"))[:-NEWEST]:
            old.unlink(missing_ok=True)
    except Exception:
        log.exception("summary_broke", extra=facts(model=task.model, run=task.run_id))
        return None
    return target
