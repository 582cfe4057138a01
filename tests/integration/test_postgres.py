"""The pool and the migrations against a real PostgreSQL."""

from __future__ import annotations

import asyncio
import sys
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import asyncpg
import pytest

from infrastructure.embedded.loopback import free_port
from shared.clock import ManualClock, SystemClock
from shared.errors import ConfigurationError, ConnectionLostError
from shared.postgres.migrate import migrate
from shared.postgres.pool import PostgresPool
from tests.support.eventually import eventually

FIRST = """
from alembic import op
from shared.postgres.migrate import run_script

revision = "0001"
down_revision = None


def upgrade():
    run_script("CREATE TABLE orders (id int PRIMARY KEY); CREATE TABLE fills (id int PRIMARY KEY);")
    op.execute("INSERT INTO orders VALUES (1)")
"""
SECOND = """
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade():
    op.execute("ALTER TABLE orders ADD COLUMN price numeric")
    op.execute({statement!r})
"""
MIGRATES = """
import asyncio, sys
from pathlib import Path
from shared.clock import SystemClock
from shared.postgres.migrate import migrate

asyncio.run(migrate(sys.argv[1], "exec_risk", Path(sys.argv[2]), clock=SystemClock()))
"""


@pytest.fixture
def versions(tmp_path: Path) -> Path:
    (tmp_path / "0001_first.py").write_text(FIRST)
    return tmp_path


async def query(url: str, sql: str) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(url)
    try:
        return list(await connection.fetch(sql))
    finally:
        await connection.close()


def spoilt(url: str, part: str) -> str:
    return f"postgresql://quantum:wrong-word@{url.partition('@')[2]}" if part == "password" else f"{url}_missing"


async def columns(url: str) -> list[str]:
    found = await query(
        url, "SELECT column_name FROM information_schema.columns WHERE table_name = 'orders' ORDER BY 1"
    )
    return [row[0] for row in found]


async def test_each_migration_runs_once_in_its_schema(database_url: str, versions: Path) -> None:
    await migrate(database_url, "exec_risk", versions, clock=SystemClock())
    await migrate(database_url, "exec_risk", versions, clock=SystemClock())
    assert [row[0] for row in await query(database_url, "SELECT id FROM exec_risk.orders")] == [1]
    (versions / "0002_second.py").write_text(SECOND.format(statement="SELECT 1"))
    await migrate(database_url, "exec_risk", versions, clock=SystemClock())
    assert await columns(database_url) == ["id", "price"]
    assert [row[0] for row in await query(database_url, "SELECT version_num FROM exec_risk.schema_version")] == ["0002"]
    tables = await query(database_url, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    assert tables == []


async def test_services_that_start_at_once_migrate_one_after_the_other(database_url: str, versions: Path) -> None:
    await asyncio.gather(
        *(migrate(database_url, schema, versions, clock=SystemClock()) for schema in ["exec_risk", "analytics"] * 3)
    )
    for schema in ("exec_risk", "analytics"):
        assert len(await query(database_url, f"SELECT id FROM {schema}.orders")) == 1


async def test_a_failing_migration_changes_nothing_and_tells_why_in_one_line(database_url: str, versions: Path) -> None:
    await migrate(database_url, "exec_risk", versions, clock=SystemClock())
    (versions / "0002_second.py").write_text(SECOND.format(statement="SELECT * FROM missing"))
    with pytest.raises(ConfigurationError, match=r'relation "missing" does not exist') as raised:
        await migrate(database_url, "exec_risk", versions, clock=SystemClock())
    assert "\n" not in str(raised.value)
    assert await columns(database_url) == ["id"]


async def test_a_migration_that_is_killed_changes_nothing_and_blocks_nobody(database_url: str, versions: Path) -> None:
    await migrate(database_url, "exec_risk", versions, clock=SystemClock())
    second = versions / "0002_second.py"
    second.write_text(SECOND.format(statement="SELECT pg_sleep(300)"))
    victim = await asyncio.create_subprocess_exec(sys.executable, "-c", MIGRATES, database_url, str(versions))
    sleeping = "SELECT 1 FROM pg_stat_activity WHERE query LIKE '%pg_sleep(300)%' AND pid <> pg_backend_pid()"
    await eventually(lambda: query(database_url, sleeping), what="the migration in the middle")
    victim.kill()
    await victim.wait()
    second.write_text(SECOND.format(statement="SELECT 1"))
    await asyncio.wait_for(migrate(database_url, "exec_risk", versions, clock=SystemClock()), 20)
    assert await columns(database_url) == ["id", "price"]


@pytest.mark.parametrize("wrong", ["password", "database"])
async def test_a_migration_does_not_wait_for_what_waiting_cannot_mend(
    database_url: str, versions: Path, wrong: str
) -> None:
    with pytest.raises(ConfigurationError) as raised:
        await migrate(spoilt(database_url, wrong), "exec_risk", versions, clock=SystemClock())
    assert "wrong-word" not in str(raised.value)
    assert "\n" not in str(raised.value)


async def test_a_migration_waits_for_a_server_that_is_not_up_yet(versions: Path) -> None:
    clock = ManualClock(datetime(2025, 5, 4, tzinfo=UTC))
    url = f"postgresql://a:b@127.0.0.1:{free_port()}/c"
    migrating = asyncio.create_task(migrate(url, "exec_risk", versions, clock=clock))
    await eventually(lambda: clock._sleepers, what="the first wait")
    assert not migrating.done()
    migrating.cancel()


async def test_values_come_back_as_they_were_sent(database_url: str) -> None:
    pool = PostgresPool(database_url.replace("postgresql://", "postgresql+asyncpg://"), clock=SystemClock())
    await pool.start()
    sent = {"trade": {"price": "1.10"}, "legs": [1, 2]}
    moment = datetime(2025, 5, 4, 12, tzinfo=UTC)
    row = await pool.pool.fetchrow(
        "SELECT $1::jsonb AS j, $2::numeric AS n, $3::timestamptz AS t", sent, Decimal("1.10"), moment
    )
    assert row["j"] == sent
    assert row["n"] == Decimal("1.10")
    assert isinstance(row["n"], Decimal)
    assert row["t"] == moment
    assert row["t"].utcoffset().total_seconds() == 0
    assert 0 < await pool.ping() < 10_000
    await pool.stop()
    with pytest.raises(ConnectionLostError, match="not open"):
        await pool.ping()


async def test_names_are_looked_up_in_the_schema_of_the_service(database_url: str, versions: Path) -> None:
    await migrate(database_url, "exec_risk", versions, clock=SystemClock())
    pool = PostgresPool(database_url, clock=SystemClock(), schema="exec_risk")
    await pool.start()
    assert await pool.pool.fetchval("SELECT id FROM orders") == 1
    await pool.stop()


async def test_the_pool_waits_for_a_server_that_is_not_up_yet() -> None:
    clock = ManualClock(datetime(2025, 5, 4, tzinfo=UTC))
    pool = PostgresPool(f"postgresql://a:b@127.0.0.1:{free_port()}/c", clock=clock)
    starting = asyncio.create_task(pool.start())
    await eventually(lambda: clock._sleepers, what="the first wait")
    assert not starting.done()
    starting.cancel()
    await pool.stop()


@pytest.mark.parametrize("wrong", ["password", "database"])
async def test_what_waiting_cannot_mend_is_refused_at_once(database_url: str, wrong: str) -> None:
    with pytest.raises(ConfigurationError, match="POSTGRES_URL") as raised:
        await PostgresPool(spoilt(database_url, wrong), clock=SystemClock()).start()
    assert "wrong-word" not in str(raised.value)
    assert "\n" not in str(raised.value)


async def test_a_ping_to_a_dead_connection_is_a_lost_connection(database_url: str, postgres_url: str) -> None:
    pool = PostgresPool(database_url, clock=SystemClock(), max_size=1)
    await pool.start()
    name = database_url.rpartition("/")[2]
    await query(postgres_url, f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS false")
    await query(postgres_url, f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
    with pytest.raises(ConnectionLostError):
        await pool.ping()
    await query(postgres_url, f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS true")
    assert await pool.ping() > 0
    await pool.stop()
