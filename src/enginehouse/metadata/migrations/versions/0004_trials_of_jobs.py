"""Tuning jobs, and their trials as jobs of their own."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.add_column("jobs", sa.Column("trial_id", sa.String(32), nullable=False, server_default=""))
    op.add_column("jobs", sa.Column("is_tuning", sa.Boolean, nullable=False, server_default=sa.false()))
    with op.batch_alter_table("jobs") as jobs:  # SQLite changes a constraint only by copying the table
        jobs.drop_constraint("jobs_name", type_="unique")
        jobs.create_unique_constraint("jobs_name", ["project", "job_id", "trial_id"])
