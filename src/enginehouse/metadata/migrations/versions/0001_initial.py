"""The first tables: jobs, models, versions, operations, events, leases, policies."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_SERIAL = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "jobs",
        sa.Column("sequence", _SERIAL, primary_key=True, autoincrement=True),
        sa.Column("project", sa.String(255), nullable=False),
        sa.Column("job_id", sa.String(128), nullable=False),
        sa.Column("state", sa.String(32), nullable=False),
        sa.Column("request", sa.JSON, nullable=False),
        sa.Column("labels", sa.JSON, nullable=False),
        sa.Column("priority", sa.Integer, nullable=False),
        sa.Column("plan", sa.JSON, nullable=False),
        sa.Column("output", sa.JSON, nullable=False),
        sa.Column("create_time_ns", sa.BigInteger, nullable=False),
        sa.Column("start_time_ns", sa.BigInteger),
        sa.Column("end_time_ns", sa.BigInteger),
        sa.Column("error_message", sa.Text, nullable=False),
        sa.Column("waiting_reason", sa.Text, nullable=False),
        sa.Column("stop_reason", sa.Text, nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.UniqueConstraint("project", "job_id", name="jobs_name"),
    )
    op.create_index("jobs_active", "jobs", ["state", "sequence"])
    op.create_index("jobs_by_project", "jobs", ["project", "sequence"])
    op.create_table(
        "models",
        sa.Column("project", sa.String(255), primary_key=True),
        sa.Column("model_id", sa.String(128), primary_key=True),
        sa.Column("request", sa.JSON, nullable=False),
        sa.Column("create_time_ns", sa.BigInteger, nullable=False),
        sa.Column("default_version_id", sa.String(128), nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "versions",
        sa.Column("project", sa.String(255), primary_key=True),
        sa.Column("model_id", sa.String(128), primary_key=True),
        sa.Column("version_id", sa.String(128), primary_key=True),
        sa.Column("uid", sa.String(32), nullable=False, unique=True),
        sa.Column("state", sa.String(32), nullable=False),
        sa.Column("request", sa.JSON, nullable=False),
        sa.Column("framework", sa.String(32), nullable=False),
        sa.Column("create_time_ns", sa.BigInteger, nullable=False),
        sa.Column("error_message", sa.Text, nullable=False),
        sa.Column("last_use_time_ns", sa.BigInteger),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.ForeignKeyConstraint(["project", "model_id"], ["models.project", "models.model_id"]),
    )
    op.create_table(
        "operations",
        sa.Column("sequence", _SERIAL, primary_key=True, autoincrement=True),
        sa.Column("project", sa.String(255), nullable=False),
        sa.Column("operation_id", sa.String(300), nullable=False),
        sa.Column("operation_type", sa.String(32), nullable=False),
        sa.Column("model_id", sa.String(128), nullable=False),
        sa.Column("version_id", sa.String(128), nullable=False),
        sa.Column("request", sa.JSON, nullable=False),
        sa.Column("create_time_ns", sa.BigInteger, nullable=False),
        sa.Column("start_time_ns", sa.BigInteger),
        sa.Column("end_time_ns", sa.BigInteger),
        sa.Column("cancel_requested", sa.Boolean, nullable=False),
        sa.Column("error", sa.JSON(none_as_null=True)),
        sa.Column("response", sa.JSON(none_as_null=True)),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.UniqueConstraint("project", "operation_id", name="operations_name"),
    )
    op.create_index("ix_operations_end_time_ns", "operations", ["end_time_ns"])
    op.create_table(
        "events",
        sa.Column("event_id", _SERIAL, primary_key=True, autoincrement=True),
        sa.Column("resource", sa.String(512), nullable=False),
        sa.Column("timestamp_ns", sa.BigInteger, nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("severity", sa.String(16), nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("data", sa.JSON, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("events_by_resource", "events", ["resource", "event_id"])
    op.create_table(
        "leases",
        sa.Column("resource", sa.String(512), primary_key=True),
        sa.Column("token", sa.String(32), nullable=False),
        sa.Column("expires_ns", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "policies",
        sa.Column("resource", sa.String(512), primary_key=True),
        sa.Column("policy", sa.JSON, nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
    )
