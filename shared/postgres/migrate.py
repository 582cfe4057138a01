"""Brings a service's schema up to date with Alembic, one process at a time, all or nothing."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import structlog
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, pool, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import create_async_engine

from shared.backoff import Backoff
from shared.clock import Clock
from shared.errors import ConnectionLostError, QuantumTraderError

log = structlog.get_logger(__name__)

_ENVIRONMENT = Path(__file__).parent / "environment"
#: Namespace of our advisory locks; the second half is the hash of the schema's name.
_LOCK_CLASS = 0x5174
_BACKOFF = Backoff(base_seconds=0.1, factor=2.0, cap_seconds=5.0)


async def migrate(url: str, schema: str, versions: Path, *, clock: Clock) -> None:
    """Create ``schema`` and run the migrations in ``versions`` that it has not seen.

    Waits for a server that is away, and for another process that migrates the same schema. DDL is transactional in
    PostgreSQL: a process that dies in the middle leaves the schema as it was.

    Args:
        url: ``postgresql://`` URL.
        schema: Name of the schema; its version table lives inside it.
        versions: Folder of Alembic version files.
        clock: Wall clock of waits.

    Raises:
        QuantumTraderError: A migration cannot be applied.
    """
    failures = 0
    while True:
        try:
            await _migrate_once(url, schema, versions)
            return
        except ConnectionLostError as error:
            failures += 1
            delay = _BACKOFF.delay(failures)
            log.warning("migration_delayed", schema=schema, error=str(error), retry_in_seconds=delay)
            await clock.sleep(delay)


async def _migrate_once(url: str, schema: str, versions: Path) -> None:
    engine = create_async_engine(_for_asyncpg(url), poolclass=pool.NullPool)
    try:
        async with engine.connect() as connection:
            await connection.run_sync(_upgrade, schema, versions)
    except (OSError, DBAPIError) as error:
        if isinstance(error, OSError) or error.connection_invalidated or _is_away(error):
            raise ConnectionLostError(f"PostgreSQL cannot be reached: {_one_line(error)}") from error
        raise QuantumTraderError(f"schema {schema} cannot be migrated: {_one_line(error)}") from error
    except SQLAlchemyError as error:
        raise QuantumTraderError(f"schema {schema} cannot be migrated: {_one_line(error)}") from error
    finally:
        await engine.dispose()
    await asyncio.sleep(0)  # lets asyncpg's transport close before a short-lived loop ends


def _upgrade(connection: Connection, schema: str, versions: Path) -> None:
    """Upgrade to the newest version inside one transaction that holds the lock until its end."""
    with connection.begin():
        connection.execute(
            text("SELECT pg_advisory_xact_lock(:klass, hashtext(:schema))").bindparams(klass=_LOCK_CLASS, schema=schema)
        )
        connection.execute(text(f'CREATE SCHEMA IF NOT EXISTS "{schema}"'))
        command.upgrade(_config(connection, schema, versions), "head")


def _config(connection: Connection, schema: str, versions: Path) -> Config:
    config = Config()
    config.set_main_option("script_location", str(_ENVIRONMENT))
    config.set_main_option("path_separator", "newline")
    config.set_main_option("version_locations", str(versions))
    attributes: dict[str, Any] = config.attributes
    attributes.update(connection=connection, schema=schema)
    return config


def _for_asyncpg(url: str) -> str:
    return f"postgresql+asyncpg://{url.partition('://')[2]}"


def _is_away(error: DBAPIError) -> bool:
    """Tell whether the server is starting up or shutting down (SQLSTATE classes 08 and 57P)."""
    state = str(getattr(error.orig, "sqlstate", "") or "")
    return state.startswith(("08", "57P"))


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
