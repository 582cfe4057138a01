"""Brings a service's own schema to the newest version when the service starts."""

from __future__ import annotations

from pathlib import Path

import asyncpg
import structlog
from alembic import command, op
from alembic.config import Config
from sqlalchemy import Connection, text
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool
from sqlalchemy.util import await_only

from shared.backoff import Backoff
from shared.clock import Clock
from shared.errors import ConfigurationError, ConnectionLostError, DeadlineExceededError, QuantumTraderError
from shared.postgres.pool import CONNECT_TIMEOUT_SECONDS, CONNECTION_ERRORS, plain_url

#: One lock for all services: their migrations run one after the other.
_LOCK_KEY = 0x51_54_33_01
_LOCK_SECONDS = 60
_LOCK_NOT_AVAILABLE = "55P03"

log = structlog.get_logger(__name__)


class SchemaMigration:
    """Component that brings a service's schema to its newest version before anybody reads it.

    Attributes:
        name: Component name.
    """

    name = "schema"

    def __init__(self, url: str, schema: str, versions: Path, *, clock: Clock) -> None:
        """Prepare; the arguments are those of ``migrate``."""
        self._url = url
        self._schema = schema
        self._versions = versions
        self._clock = clock

    async def start(self) -> None:
        await migrate(self._url, self._schema, self._versions, clock=self._clock)

    async def stop(self) -> None:
        """Nothing to release."""


async def migrate(url: str, schema: str, versions: Path, *, clock: Clock, backoff: Backoff | None = None) -> None:
    """Run every migration in ``versions`` that ``schema`` has not had; all of them or, after a failure, none.

    Everything happens in one transaction under an advisory lock, so two services may start at once and either may be
    killed at any moment. The schema is made when missing, and names without a schema mean this one. Waits while the
    server is away.

    Args:
        url: ``postgresql://`` URL.
        schema: Schema that belongs to the service; it also holds the table ``schema_version``.
        versions: Folder of alembic version files, in plain SQL (``op.execute`` or ``run_script``).
        clock: Wall clock for waits.
        backoff: Delays between tries while the server is away.

    Raises:
        ConfigurationError: The server refuses the URL, or a migration failed.
        DeadlineExceededError: Another process has been migrating for a minute.
    """
    backoff = backoff or Backoff(base_seconds=0.1, factor=2.0, cap_seconds=5.0)
    failures = 0
    while True:
        try:
            await _migrate_once(url, schema, versions)
            break
        except ConnectionLostError as error:
            failures += 1
            delay = backoff.delay(failures)
            log.warning("postgres_unreachable", schema=schema, error=str(error), retry_in_seconds=delay)
            await clock.sleep(delay)
    log.info("schema_migrated", schema=schema)


async def _migrate_once(url: str, schema: str, versions: Path) -> None:
    engine = create_async_engine(
        _sqlalchemy_url(url),
        poolclass=NullPool,
        connect_args={
            "timeout": CONNECT_TIMEOUT_SECONDS,
            # Without it the server would finish the statement of a client that was killed, and keep its lock.
            "server_settings": {"client_connection_check_interval": "1s", "application_name": f"migrate-{schema}"},
        },
    )
    try:
        async with engine.begin() as connection:
            await connection.run_sync(_upgrade, schema, versions)
    except DBAPIError as error:
        raise _translated(error, schema) from error
    except CONNECTION_ERRORS as error:
        raise ConnectionLostError(f"PostgreSQL cannot be reached: {' '.join(str(error).split())}") from error
    except (asyncpg.PostgresError, ArgumentError) as error:
        raise _refused(error, schema) from error
    finally:
        await engine.dispose()


def _sqlalchemy_url(url: str) -> str:
    return f"postgresql+asyncpg://{plain_url(url).partition('://')[2]}"


def _translated(error: DBAPIError, schema: str) -> QuantumTraderError:
    if getattr(error.orig, "sqlstate", None) == _LOCK_NOT_AVAILABLE:
        return DeadlineExceededError(
            f"schema {schema}: another process has been migrating for {_LOCK_SECONDS} s; look what it does"
        )
    if error.connection_invalidated:
        return ConnectionLostError(f"schema {schema}: PostgreSQL ended the connection; nothing was changed")
    return _refused(error.orig or error, schema)


def _refused(error: BaseException, schema: str) -> ConfigurationError:
    reason = " ".join(str(error).split())
    return ConfigurationError(f"schema {schema} cannot be migrated, nothing was changed: {reason}")


def run_script(sql: str) -> None:
    """Run several statements of plain SQL; for version files, where ``op.execute`` takes one statement each."""
    driver = op.get_bind().connection.driver_connection
    assert driver is not None
    await_only(driver.execute(sql))


def _upgrade(connection: Connection, schema: str, versions: Path) -> None:
    connection.execute(text(f"SET LOCAL lock_timeout = '{_LOCK_SECONDS}s'"))
    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK_KEY})
    connection.execute(text("SET LOCAL lock_timeout = 0"))
    connection.execute(text(f'CREATE SCHEMA IF NOT EXISTS "{schema}"'))
    connection.execute(text(f'SET LOCAL search_path TO "{schema}"'))
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "environment").replace("%", "%%"))
    config.set_main_option("version_locations", str(versions.absolute()).replace("%", "%%"))
    config.set_main_option("path_separator", "newline")
    config.attributes["connection"] = connection
    config.attributes["schema"] = schema
    command.upgrade(config, "head")
