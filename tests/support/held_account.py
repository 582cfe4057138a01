"""A row that a test holds in PostgreSQL, so that a service stands still right before its next commit."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from tests.support.eventually import eventually


@asynccontextmanager
async def held_account(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """Lock the account's row until the block ends: nothing that exec-risk decides meanwhile can be stored."""
    connection = await asyncpg.connect(database_url)
    try:
        async with connection.transaction():
            await connection.execute("SELECT 1 FROM exec_risk.account FOR UPDATE")
            yield connection
    finally:
        await connection.close()


async def someone_waits(connection: asyncpg.Connection) -> None:
    """Wait until a backend of this database waits for a lock."""

    async def is_waiting() -> bool:
        return bool(
            await connection.fetchval(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
        )

    await eventually(is_waiting, timeout=30, what="a commit that waits")
