"""A version keeps what clean windows of its reference show; one that was made before is uncalibrated."""

import sqlalchemy as sa
from alembic import op

from service.storage.columns import Json

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("versions", sa.Column("calibration", Json, nullable=True))
