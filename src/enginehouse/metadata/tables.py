"""The tables, for every database that SQLAlchemy speaks. A change here needs a migration in migrations/versions."""

from __future__ import annotations

import sqlalchemy as sa

metadata = sa.MetaData()

# SQLite numbers rows by itself only for INTEGER, which holds 64 bits there.
_Serial = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

jobs = sa.Table(
    "jobs",
    metadata,
    sa.Column("sequence", _Serial, primary_key=True, autoincrement=True),
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
    sa.Column("creation_key", sa.String(64), nullable=False, server_default=""),
    sa.Column("run", sa.JSON, nullable=False, server_default="{}"),
    # Of a trial of a tuning job; else empty.
    sa.Column("trial_id", sa.String(32), nullable=False, server_default=""),
    sa.Column("is_tuning", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.UniqueConstraint("project", "job_id", "trial_id", name="jobs_name"),
    # The reconciler looks for unfinished jobs many times a second; there are few of them among many.
    sa.Index("jobs_active", "is_tuning", "state", "sequence"),
    sa.Index("jobs_by_project", "project", "sequence"),
)

models = sa.Table(
    "models",
    metadata,
    sa.Column("project", sa.String(255), primary_key=True),
    sa.Column("model_id", sa.String(128), primary_key=True),
    sa.Column("request", sa.JSON, nullable=False),
    sa.Column("create_time_ns", sa.BigInteger, nullable=False),
    sa.Column("default_version_id", sa.String(128), nullable=False),
    sa.Column("revision", sa.BigInteger, nullable=False),
    sa.Column("creation_key", sa.String(64), nullable=False, server_default=""),
)

versions = sa.Table(
    "versions",
    metadata,
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
    sa.Column("creation_key", sa.String(64), nullable=False, server_default=""),
    sa.ForeignKeyConstraint(["project", "model_id"], ["models.project", "models.model_id"]),
)

operations = sa.Table(
    "operations",
    metadata,
    sa.Column("sequence", _Serial, primary_key=True, autoincrement=True),
    sa.Column("project", sa.String(255), nullable=False),
    sa.Column("operation_id", sa.String(300), nullable=False),
    sa.Column("operation_type", sa.String(32), nullable=False),
    sa.Column("model_id", sa.String(128), nullable=False),
    sa.Column("version_id", sa.String(128), nullable=False),
    sa.Column("request", sa.JSON, nullable=False),
    sa.Column("create_time_ns", sa.BigInteger, nullable=False),
    sa.Column("start_time_ns", sa.BigInteger),
    sa.Column("end_time_ns", sa.BigInteger, index=True),
    sa.Column("cancel_requested", sa.Boolean, nullable=False),
    sa.Column("error", sa.JSON(none_as_null=True)),
    sa.Column("response", sa.JSON(none_as_null=True)),
    sa.Column("revision", sa.BigInteger, nullable=False),
    sa.UniqueConstraint("project", "operation_id", name="operations_name"),
)

events = sa.Table(
    "events",
    metadata,
    sa.Column("event_id", _Serial, primary_key=True, autoincrement=True),
    sa.Column("resource", sa.String(512), nullable=False),
    sa.Column("timestamp_ns", sa.BigInteger, nullable=False),
    sa.Column("kind", sa.String(32), nullable=False),
    sa.Column("severity", sa.String(16), nullable=False),
    sa.Column("message", sa.Text, nullable=False),
    sa.Column("data", sa.JSON, nullable=False),
    sa.Index("events_by_resource", "resource", "event_id"),
    sqlite_autoincrement=True,
)

leases = sa.Table(
    "leases",
    metadata,
    sa.Column("resource", sa.String(512), primary_key=True),
    sa.Column("token", sa.String(32), nullable=False),
    sa.Column("expires_ns", sa.BigInteger, nullable=False),
)

studies = sa.Table(
    "studies",
    metadata,
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

trials = sa.Table(
    "trials",
    metadata,
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

location_operations = sa.Table(
    "location_operations",
    metadata,
    sa.Column("project", sa.String(255), primary_key=True),
    sa.Column("location", sa.String(64), primary_key=True),
    sa.Column("operation_id", sa.String(300), primary_key=True),
    sa.Column("message", sa.JSON, nullable=False),
    sa.Column("create_time_ns", sa.BigInteger, nullable=False, index=True),
)

policies = sa.Table(
    "policies",
    metadata,
    sa.Column("resource", sa.String(512), primary_key=True),
    sa.Column("policy", sa.JSON, nullable=False),
    sa.Column("revision", sa.BigInteger, nullable=False),
)
