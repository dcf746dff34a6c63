"""The SQLite store keeps the contract, survives re-opening and refuses a newer schema."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.operations import Operations

from enginehouse.core.errors import FailedPrecondition
from enginehouse.core.names import JobName
from enginehouse.metadata import migrations
from enginehouse.metadata.database import Database
from enginehouse.metadata.store import SqlMetadataStore
from enginehouse.metadata.tables import metadata
from enginehouse.testing.clock import FakeClock
from enginehouse.testing.metadata import MetadataStoreContract, make_job


class TestSqliteStore(MetadataStoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path, clock: FakeClock) -> Iterator[SqlMetadataStore]:
        store = SqlMetadataStore.open_sqlite(tmp_path / "metadata.sqlite3", clock)
        yield store
        store.close()


def test_a_store_opens_again_with_what_it_held(tmp_path: Path) -> None:
    for expected in (0, 1):
        store = SqlMetadataStore.open_sqlite(tmp_path / "m.sqlite3", FakeClock())
        assert len(store.queued_jobs()) == expected
        if not expected:
            store.create_job(make_job(), [])
        store.close()


def test_the_migrations_make_the_tables_that_the_code_declares(tmp_path: Path) -> None:
    database = Database.sqlite(tmp_path / "m.sqlite3")
    database.migrate()
    with database.read() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
        assert migrations.current_revision(connection) == migrations.HEAD
    database.close()


def test_data_of_an_older_release_is_kept(tmp_path: Path) -> None:
    database = Database.sqlite(tmp_path / "m.sqlite3")
    store = SqlMetadataStore(database, FakeClock())
    database.migrate()
    store.create_job(make_job(), [])
    with database.write() as connection:  # as the first release left it
        for table in ("jobs", "models", "versions"):
            connection.execute(sa.text(f"ALTER TABLE {table} DROP COLUMN creation_key"))
        connection.execute(sa.text("ALTER TABLE jobs DROP COLUMN run"))
        with Operations(MigrationContext.configure(connection)).batch_alter_table("jobs") as jobs:
            jobs.drop_index("jobs_active")
            jobs.create_index("jobs_active", ["state", "sequence"])
            jobs.drop_constraint("jobs_name", type_="unique")
            jobs.create_unique_constraint("jobs_name", ["project", "job_id"])
            jobs.drop_column("trial_id")
            jobs.drop_column("is_tuning")
        for table in ("trials", "studies", "location_operations"):
            connection.execute(sa.text(f"DROP TABLE {table}"))
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '0001'"))
    store.close()
    store = SqlMetadataStore.open_sqlite(tmp_path / "m.sqlite3", FakeClock())
    assert store.get_job(JobName("demo", "job_1")) == make_job()
    store.close()


def test_a_newer_schema_is_refused_with_the_cure(tmp_path: Path) -> None:
    database = Database.sqlite(tmp_path / "m.sqlite3")
    database.migrate()
    with database.write() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    database.close()
    with pytest.raises(FailedPrecondition, match=r"newer release.*Upgrade Enginehouse"):
        SqlMetadataStore.open_sqlite(tmp_path / "m.sqlite3", FakeClock())


def test_readers_do_not_wait_for_a_writer(tmp_path: Path) -> None:
    store = SqlMetadataStore.open_sqlite(tmp_path / "m.sqlite3", FakeClock())
    store.create_job(make_job(), [])
    with store._database.write() as connection:
        connection.execute(sa.text("UPDATE jobs SET state = 'FAILED'"))
        assert store.get_job(JobName("demo", "job_1")).state == "QUEUED"
    assert store.get_job(JobName("demo", "job_1")).state == "FAILED"
    store.close()
