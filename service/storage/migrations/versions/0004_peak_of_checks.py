"""A check keeps the memory that it took at its peak, as a run does."""

import sqlalchemy as sa
from alembic import op

from service.storage.columns import Counter

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("checks", sa.Column("peak_bytes", Counter, nullable=True))
