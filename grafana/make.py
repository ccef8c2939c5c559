"""Writes the dashboards beside this file: ``python -m grafana.make``."""

import json
from pathlib import Path

from grafana_foundation_sdk.builders.dashboard import Dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder

from grafana.fleet import fleet
from grafana.model import model
from grafana.training import training

__all__ = ["FOLDER", "dashboards", "write"]

FOLDER = Path(__file__).parent / "dashboards"


def dashboards() -> dict[str, str]:
    """Return the content of each file by its name."""
    made = {"fleet": fleet(), "model": model(), "training": training()}
    return {f"{name}.json": _text(one) for name, one in made.items()}


def write(folder: Path = FOLDER) -> None:
    """Write them."""
    folder.mkdir(exist_ok=True)
    for name, text in dashboards().items():
        (folder / name).write_text(text, encoding="utf-8")


def _text(one: Dashboard) -> str:
    built = one.build()
    for place, panel in enumerate(built.panels or (), start=1):
        panel.id_val = place  # a link to a panel names it
    return json.dumps(built, cls=JSONEncoder, indent=1, sort_keys=True) + "\n"


if __name__ == "__main__":
    write()
