"""What a create asked for, so that its repetition is known for one."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    for table in ("jobs", "models", "versions"):
        op.add_column(table, sa.Column("creation_key", sa.String(64), nullable=False, server_default=""))
