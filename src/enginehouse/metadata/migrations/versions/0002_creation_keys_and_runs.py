"""What a create asked for, so that its repetition is known for one; how a job is run."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    for table in ("jobs", "models", "versions"):
        op.add_column(table, sa.Column("creation_key", sa.String(64), nullable=False, server_default=""))
    op.add_column("jobs", sa.Column("run", sa.JSON, nullable=False, server_default="{}"))
