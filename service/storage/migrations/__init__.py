"""Alembic's migrations, applied by `service.storage.database.Database.migrate`."""

__all__ = ["HEAD"]

HEAD = "0009"
"""The newest revision; a test compares it with Alembic's own answer. Known here so that workers need no Alembic."""
