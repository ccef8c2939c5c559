"""A check keeps the policy that it was decided by, and what its evidence reads as."""

import sqlalchemy as sa
from alembic import op

from service.storage.columns import Json

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("checks", sa.Column("policy", Json, nullable=True))
    op.add_column("checks", sa.Column("reading", Json, nullable=True))
