"""Runs Alembic on an open transaction, without an ini file."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection

__all__ = ["configuration", "upgrade"]


def configuration(connection: Connection | None = None) -> Config:
    """Return Alembic's configuration for this folder."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def upgrade(connection: Connection) -> None:
    """Bring the tables to the newest revision in the caller's transaction."""
    command.upgrade(configuration(connection), "head")
