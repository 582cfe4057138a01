"""Finds the database of the archive: the running system's, else POSTGRES_URL, else the embedded one for a moment."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg

from infrastructure.embedded.postgres_server import EmbeddedPostgres
from infrastructure.supervisor.environment import configured, read_environment
from infrastructure.supervisor.run_state import StateFile
from services.analytics_os_service.adapters.postgres_archive import PostgresArchive
from services.analytics_os_service.domain.archived_event import ArchivedEvent, EventQuery
from shared.clock import Clock
from shared.errors import DeadlineExceededError, NotRunningError, QuantumTraderError
from shared.postgres.pool import PostgresPool

_CONNECT_SECONDS = 15.0


class ArchiveReader:
    """Reads archived events of one run, or of all."""

    def __init__(self, pool: PostgresPool, run_id: str | None) -> None:
        self._archive = PostgresArchive(pool, run_id=run_id)

    async def find(self, query: EventQuery) -> list[ArchivedEvent]:
        """Return the events that match.

        Raises:
            QuantumTraderError: No run has written to this database yet.
            ConnectionLostError: The database cannot be reached.
        """
        try:
            return await self._archive.find(query)
        except asyncpg.UndefinedTableError:
            raise QuantumTraderError(
                "there are no events yet: no run has used this database; quantum-trader up"
            ) from None


@asynccontextmanager
async def open_archive(state_dir: Path, *, clock: Clock) -> AsyncIterator[ArchiveReader]:
    """Give a reader for the block.

    Raises:
        NotRunningError: Nothing runs, POSTGRES_URL is not set, and there is no embedded database.
        DeadlineExceededError: The database does not answer.
    """
    state = StateFile(state_dir).read()
    if state is not None and state.urls.get("postgres"):
        async with _reader(state.urls["postgres"], state.run_id, clock) as reader:
            yield reader
        return
    url = configured("POSTGRES_URL", read_environment())
    if url is not None:
        async with _reader(url, None, clock) as reader:
            yield reader
        return
    async with _embedded(_existing(state_dir / "postgres")) as url, _reader(url, None, clock) as reader:
        yield reader


def _existing(folder: Path) -> Path:
    if not folder.is_dir():
        raise NotRunningError(
            f"there is no archive in {folder} and POSTGRES_URL is not set; start a run with: quantum-trader up"
        )
    return folder


@asynccontextmanager
async def _embedded(folder: Path) -> AsyncIterator[str]:
    server = EmbeddedPostgres(folder)
    try:
        yield await server.start()
    finally:
        await server.stop()


@asynccontextmanager
async def _reader(url: str, run_id: str | None, clock: Clock) -> AsyncIterator[ArchiveReader]:
    pool = PostgresPool(url, clock=clock, max_size=1)
    try:
        async with asyncio.timeout(_CONNECT_SECONDS):
            await pool.start()
    except TimeoutError:
        raise DeadlineExceededError(
            f"PostgreSQL at {pool.address} did not answer within {_CONNECT_SECONDS:.0f} s; is it running?"
        ) from None
    try:
        yield ArchiveReader(pool, run_id)
    finally:
        await pool.stop()
