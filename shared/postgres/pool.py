"""The process's connections to PostgreSQL, and the one place where errors of asyncpg become ours."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import orjson
import structlog

from shared.backoff import Backoff
from shared.clock import Clock
from shared.errors import ConfigurationError, ConnectionLostError

#: Longest wait for one statement.
STATEMENT_TIMEOUT_SECONDS = 10.0
CONNECT_TIMEOUT_SECONDS = 5.0
#: A process that stops in the middle of a transaction must not hold its locks: the server ends its session.
IDLE_IN_TRANSACTION_SECONDS = 5.0

#: Waiting does not help against these: wrong password, unknown role, unknown database, no entry in pg_hba.conf.
_REFUSALS = (
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.InsufficientPrivilegeError,
)
#: What asyncpg raises when the server is away, ends the connection, or does not answer in time.
CONNECTION_ERRORS = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.TooManyConnectionsError,
    asyncpg.ObjectNotInPrerequisiteStateError,  # the database takes no connections at the moment
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # the server's farewell came between two messages of a statement
)

log = structlog.get_logger(__name__)


@contextmanager
def postgres_errors() -> Iterator[None]:
    """Translate what asyncpg raises inside the block when the server is away; errors of SQL pass.

    Raises:
        ConnectionLostError: The server cannot be reached, ended the connection, or did not answer in time.
    """
    try:
        yield
    except CONNECTION_ERRORS as error:
        reason = " ".join(str(error).split())
        raise ConnectionLostError(f"PostgreSQL cannot be reached: {type(error).__name__}: {reason}") from error


def plain_url(url: str) -> str:
    """Return ``url`` as asyncpg reads it: without SQLAlchemy's ``+driver``."""
    scheme, separator, rest = url.partition("://")
    return f"{scheme.partition('+')[0]}{separator}{rest}"


class PostgresPool:
    """A bounded set of connections; ``numeric`` is Decimal, ``json`` and ``jsonb`` are Python values.

    Attributes:
        name: Component name.
    """

    name = "postgres"

    def __init__(
        self,
        url: str,
        *,
        clock: Clock,
        schema: str | None = None,
        max_size: int = 10,
        backoff: Backoff | None = None,
    ) -> None:
        """Prepare, without connecting.

        Args:
            url: ``postgresql://user:password@host:port/database``.
            clock: Wall clock for waits and latencies.
            schema: Where names without a schema are looked up; the server's default when None.
            max_size: Largest number of connections.
            backoff: Delays between tries while the server is away at the start.
        """
        self._url = plain_url(url)
        self._clock = clock
        self._schema = schema
        self._max_size = max_size
        self._backoff = backoff or Backoff(base_seconds=0.1, factor=2.0, cap_seconds=5.0)
        self._pool: asyncpg.Pool | None = None

    @property
    def pool(self) -> asyncpg.Pool:
        """The pool.

        Raises:
            ConnectionLostError: It is not open: before ``start`` and after ``stop``.
        """
        if self._pool is None:
            raise ConnectionLostError("the connections to PostgreSQL are not open")
        return self._pool

    @property
    def address(self) -> str:
        """Where the server is, without credentials."""
        parts = urlsplit(self._url)
        return f"{parts.hostname}:{parts.port or 5432}{parts.path}"

    async def start(self) -> None:
        """Wait until the server takes a connection.

        Raises:
            ConfigurationError: The server refuses the credentials or has no such database: waiting cannot help.
        """
        failures = 0
        while self._pool is None:
            try:
                with postgres_errors():
                    self._pool = await self._connect()
            except ConnectionLostError as error:
                failures += 1
                delay = self._backoff.delay(failures)
                log.warning("postgres_unreachable", address=self.address, error=str(error), retry_in_seconds=delay)
                await self._clock.sleep(delay)
        log.info("postgres_connected", address=self.address)

    async def stop(self) -> None:
        """Close the connections; those that are still in use after a second are cut."""
        if self._pool is None:
            return
        pool, self._pool = self._pool, None
        try:
            async with asyncio.timeout(1.0):
                await pool.close()
        except TimeoutError:
            pool.terminate()

    async def ping(self) -> float:
        """Return the round trip in milliseconds.

        Raises:
            ConnectionLostError: No answer, or the pool is not open.
        """
        with postgres_errors():
            async with self.pool.acquire() as connection:
                # Opening a connection, which happens now and then, says nothing about the server's speed.
                began = self._clock.monotonic()
                await connection.execute("SELECT 1")
                return (self._clock.monotonic() - began) * 1000.0

    async def _connect(self) -> asyncpg.Pool:
        settings = {
            "application_name": "quantum-trader",
            "timezone": "UTC",
            "idle_in_transaction_session_timeout": str(int(IDLE_IN_TRANSACTION_SECONDS * 1000)),
        }
        if self._schema:
            settings["search_path"] = self._schema
        try:
            pool = await asyncpg.create_pool(
                self._url,
                # None kept open for its own sake: the pool would chase it with tracebacks while the server is away.
                min_size=0,
                max_size=self._max_size,
                timeout=CONNECT_TIMEOUT_SECONDS,
                command_timeout=STATEMENT_TIMEOUT_SECONDS,
                server_settings=settings,
                init=_teach_json,
            )
            await pool.execute("SELECT 1")
        except _REFUSALS as error:
            raise ConfigurationError(f"PostgreSQL at {self.address} refuses POSTGRES_URL: {error}") from error
        except ValueError as error:
            raise ConfigurationError(f"POSTGRES_URL cannot be used: {error}") from error
        return pool


async def _teach_json(connection: Any) -> None:
    for name in ("json", "jsonb"):
        await connection.set_type_codec(
            name, schema="pg_catalog", encoder=_json_text, decoder=orjson.loads, format="text"
        )


def _json_text(value: Any) -> str:
    return orjson.dumps(value, default=str).decode()
