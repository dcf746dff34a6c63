"""Migrations of the metadata store, run by Alembic when an engine starts.

To change a table: change `tables.py`, add `versions/NNNN_words.py`, and append its revision to `REVISIONS`.
"""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa

REVISIONS = ("0001", "0002", "0003", "0004", "0005")
"""All revisions in order; kept here so that a start with nothing to do need not load Alembic."""

HEAD = REVISIONS[-1]


def current_revision(connection: sa.Connection) -> str | None:
    """The revision that the database has, None for an empty one."""
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    revision: str | None = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
    return revision


def upgrade(connection: sa.Connection) -> None:
    """Run what is missing, in the caller's transaction."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
