"""Studies, their trials, and the operations on them."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "studies",
        sa.Column("project", sa.String(255), primary_key=True),
        sa.Column("location", sa.String(64), primary_key=True),
        sa.Column("study_id", sa.String(128), primary_key=True),
        sa.Column("config", sa.JSON, nullable=False),
        sa.Column("create_time_ns", sa.BigInteger, nullable=False),
        sa.Column("seed", sa.BigInteger, nullable=False),
        sa.Column("state", sa.String(32), nullable=False),
        sa.Column("inactive_reason", sa.Text, nullable=False),
        sa.Column("next_trial_id", sa.Integer, nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("creation_key", sa.String(64), nullable=False),
    )
    op.create_table(
        "trials",
        sa.Column("project", sa.String(255), primary_key=True),
        sa.Column("location", sa.String(64), primary_key=True),
        sa.Column("study_id", sa.String(128), primary_key=True),
        sa.Column("trial_id", sa.Integer, primary_key=True),
        sa.Column("state", sa.String(32), nullable=False),
        sa.Column("parameters", sa.JSON, nullable=False),
        sa.Column("start_time_ns", sa.BigInteger, nullable=False),
        sa.Column("client_id", sa.Text, nullable=False),
        sa.Column("measurements", sa.JSON, nullable=False),
        sa.Column("final_measurement", sa.JSON(none_as_null=True)),
        sa.Column("end_time_ns", sa.BigInteger),
        sa.Column("infeasible", sa.Boolean, nullable=False),
        sa.Column("infeasible_reason", sa.Text, nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("creation_key", sa.String(64), nullable=False),
        sa.ForeignKeyConstraint(
            ["project", "location", "study_id"], ["studies.project", "studies.location", "studies.study_id"]
        ),
    )
    op.create_table(
        "location_operations",
        sa.Column("project", sa.String(255), primary_key=True),
        sa.Column("location", sa.String(64), primary_key=True),
        sa.Column("operation_id", sa.String(300), primary_key=True),
        sa.Column("message", sa.JSON, nullable=False),
        sa.Column("create_time_ns", sa.BigInteger, nullable=False),
    )
    op.create_index("ix_location_operations_create_time_ns", "location_operations", ["create_time_ns"])
