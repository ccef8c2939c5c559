"""Each gate that came to a judgement leaves the stretch that it was judged on."""

import sqlalchemy as sa
from alembic import op

from service.storage.columns import Moment

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "holdout_uses",
        sa.Column("model", sa.String(63), nullable=False),
        sa.Column("run_id", sa.String(36), nullable=False),
        sa.Column("attempt", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("after", Moment, nullable=False),
        sa.Column("until", Moment, nullable=False),
        sa.Column("rows", sa.Integer(), nullable=False),
        sa.Column("outcome", sa.String(16), nullable=False),
        sa.Column("at", Moment, nullable=False),
        sa.ForeignKeyConstraint(["model"], ["models.name"], name="fk_holdout_uses_model"),
        sa.PrimaryKeyConstraint("model", "run_id", "attempt", name="pk_holdout_uses"),
    )
    op.create_index("ix_holdout_uses_model_until", "holdout_uses", ["model", "until"])
