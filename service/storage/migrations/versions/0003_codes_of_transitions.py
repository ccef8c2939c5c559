"""Each transition of a run keeps the code of what led to it: retries are counted for each cause by itself."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("run_events", sa.Column("code", sa.String(length=48), nullable=True))
