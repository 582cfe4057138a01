"""The process's connections to PostgreSQL."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import asyncpg
import orjson
import structlog

from shared.backoff import Backoff
from shared.clock import Clock
from shared.errors import ConfigurationError, ConnectionLostError

log = structlog.get_logger(__name__)

#: What asyncpg raises while a server is away, starting or shutting down.
CONNECTION_ERRORS = (
    OSError,
    asyncpg.InterfaceError,
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.OperatorInterventionError,
    asyncpg.TooManyConnectionsError,
)
_REFUSALS = (
    asyncpg.InvalidPasswordError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
)
_COMMAND_TIMEOUT_SECONDS = 30.0


class PostgresPool:
    """A pool as a component; JSON columns are Python values, numeric columns are Decimal.

    Attributes:
        name: Component name.
    """

    name = "postgres"

    def __init__(self, url: str, *, clock: Clock, max_size: int = 8, backoff: Backoff | None = None) -> None:
        """Prepare, without connecting.

        Args:
            url: ``postgresql://`` URL.
            clock: Wall clock for waits and latencies.
            max_size: Most connections at the same time.
            backoff: Delays between tries while the server is away at the start.
        """
        self._url = url
        self._clock = clock
        self._max_size = max_size
        self._backoff = backoff or Backoff(base_seconds=0.1, factor=2.0, cap_seconds=5.0)
        self._pool: Any = None

    @property
    def pool(self) -> Any:
        """The ``asyncpg.Pool``.

        Raises:
            ConnectionLostError: ``start`` has not finished.
        """
        if self._pool is None:
            raise ConnectionLostError("PostgreSQL is not connected yet")
        return self._pool

    @property
    def address(self) -> str:
        """Where the server is, without credentials."""
        parts = urlsplit(self._url)
        return f"{parts.netloc.rpartition('@')[2]}{parts.path}"

    async def start(self) -> None:
        """Wait until the server takes connections.

        Raises:
            ConfigurationError: The server refuses the credentials or has no such database: waiting cannot help.
        """
        failures = 0
        while self._pool is None:
            try:
                self._pool = await asyncpg.create_pool(
                    self._url,
                    min_size=1,
                    max_size=self._max_size,
                    command_timeout=_COMMAND_TIMEOUT_SECONDS,
                    init=_use_json,
                )
            except _REFUSALS as error:
                raise ConfigurationError(f"PostgreSQL at {self.address} refuses POSTGRES_URL: {error}") from error
            except CONNECTION_ERRORS as error:
                failures += 1
                delay = self._backoff.delay(failures)
                log.warning("postgres_unreachable", address=self.address, error=str(error), retry_in_seconds=delay)
                await self._clock.sleep(delay)
        log.info("postgres_connected", address=self.address)

    async def stop(self) -> None:
        """Close every connection."""
        if self._pool is not None:
            pool, self._pool = self._pool, None
            await pool.close()

    async def ping(self) -> float:
        """Return the round trip in milliseconds.

        Raises:
            ConnectionLostError: No answer.
        """
        began = self._clock.monotonic()
        try:
            await self.pool.fetchval("SELECT 1")
        except CONNECTION_ERRORS as error:
            raise ConnectionLostError(f"PostgreSQL cannot be reached: {error}") from error
        return (self._clock.monotonic() - began) * 1000.0


async def _use_json(connection: Any) -> None:
    for kind in ("json", "jsonb"):
        await connection.set_type_codec(
            kind, schema="pg_catalog", encoder=lambda value: orjson.dumps(value).decode(), decoder=orjson.loads
        )
