"""Few tuning jobs are found among many that wait without looking at each."""

from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.drop_index("jobs_active", "jobs")
    op.create_index("jobs_active", "jobs", ["is_tuning", "state", "sequence"])
