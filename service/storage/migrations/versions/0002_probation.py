"""Probation, the mixed window of a swap, what replicas say of their answers, and runs that wait before another try."""

import sqlalchemy as sa
from alembic import op

from service.storage.columns import Counter, Json, Moment

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "probations",
        sa.Column("model", sa.String(length=63), nullable=False),
        sa.Column("generation", Counter, autoincrement=False, nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("previous_version", sa.Integer(), nullable=False),
        sa.Column("run_id", sa.String(length=36), nullable=True),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("began_at", Moment(), nullable=False),
        sa.Column("began_event_time", Moment(), nullable=True),
        sa.Column("extended", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("evidence", Json, nullable=True),
        sa.Column("code", sa.String(length=48), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("ended_at", Moment(), nullable=True),
        sa.Column("ended_event_time", Moment(), nullable=True),
        sa.ForeignKeyConstraint(["model"], ["models.name"], name=op.f("fk_probations_model")),
        sa.PrimaryKeyConstraint("model", "generation", name=op.f("pk_probations")),
    )
    op.create_index(
        "one_open_probation_per_model",
        "probations",
        ["model"],
        unique=True,
        sqlite_where=sa.text("state = 'watching'"),
        postgresql_where=sa.text("state = 'watching'"),
    )
    op.add_column("swaps", sa.Column("settled_at", Moment(), nullable=True))
    op.add_column("runs", sa.Column("not_before", Moment(), nullable=True))
    op.add_column("replica_models", sa.Column("bound_at", Moment(), nullable=True))
    op.add_column("replica_models", sa.Column("health", Json, nullable=True))
