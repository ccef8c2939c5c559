"""What Alembic runs: the migrations, on the connection it was handed."""

from alembic import context

from service.storage import tables

connection = context.config.attributes["connection"]
# SQLite can undo DDL too, so a migration that fails half-way leaves nothing on either database.
context.configure(connection=connection, target_metadata=tables.metadata, transactional_ddl=True)
with context.begin_transaction():
    context.run_migrations()
