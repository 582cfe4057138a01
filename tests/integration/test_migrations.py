"""Migrations on a real PostgreSQL: once, together, and all or nothing."""

from __future__ import annotations

import asyncio
from pathlib import Path

import asyncpg
import pytest

from shared.clock import SystemClock
from shared.errors import QuantumTraderError
from shared.postgres.migrate import migrate

FIRST = """
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.execute("CREATE TABLE demo.thing (id int PRIMARY KEY)")
"""
BROKEN = """
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.execute("CREATE TABLE demo.other (id int)")
    op.execute("SELECT no_such_function()")
"""


@pytest.fixture
def versions(tmp_path: Path) -> Path:
    (tmp_path / "0001_first.py").write_text(FIRST)
    return tmp_path


async def tables(url: str) -> set[str]:
    connection = await asyncpg.connect(url)
    try:
        rows = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'demo'")
    finally:
        await connection.close()
    return {row["tablename"] for row in rows}


async def test_two_processes_may_migrate_at_the_same_time(database_url: str, versions: Path) -> None:
    await asyncio.gather(*(migrate(database_url, "demo", versions, clock=SystemClock()) for _ in range(3)))
    await migrate(database_url, "demo", versions, clock=SystemClock())

    assert await tables(database_url) == {"thing", "schema_version"}


async def test_a_migration_that_fails_leaves_nothing_behind(database_url: str, versions: Path) -> None:
    await migrate(database_url, "demo", versions, clock=SystemClock())
    (versions / "0002_broken.py").write_text(BROKEN)

    with pytest.raises(QuantumTraderError, match="schema demo cannot be migrated"):
        await migrate(database_url, "demo", versions, clock=SystemClock())

    assert await tables(database_url) == {"thing", "schema_version"}
