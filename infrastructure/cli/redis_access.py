"""Finds the Redis of the running system, else the one that the environment names."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from infrastructure.supervisor.environment import configured, read_environment
from infrastructure.supervisor.run_state import StateFile
from shared.clock import Clock
from shared.errors import ConfigurationError, ConnectionLostError, InvalidInputError, NotRunningError
from shared.redis_connection import RedisConnection
from shared.redis_topology import secrets_of, sentinel_url
from shared.telemetry.masking import Masker, use_masker

_DEFAULT_MASTER = "mymaster"


@asynccontextmanager
async def open_redis(state_dir: Path, *, clock: Clock) -> AsyncIterator[RedisConnection]:
    """Give a connection for the block; what is shown from then on holds none of its secrets.

    Raises:
        NotRunningError: Nothing runs and REDIS_URL is not set.
        ConfigurationError: The URL cannot be used.
        ConnectionLostError: Redis cannot be reached.
    """
    url = _redis_url(state_dir, read_environment())
    connection = RedisConnection(url, clock=clock)
    use_masker(Masker(secrets_of(url)))
    try:
        try:
            await connection.connect()
        except ConnectionLostError as error:
            raise ConnectionLostError(f"{error}; is it running, and is REDIS_URL right?") from error
        yield connection
    finally:
        await connection.stop()


def _redis_url(state_dir: Path, environment: Mapping[str, str]) -> str:
    state, named = StateFile(state_dir).read(), configured("REDIS_URL", environment)
    running = state.urls.get("redis") if state is not None else None
    url = running or named
    if not url:
        raise NotRunningError(
            f"no system is running from {state_dir} and REDIS_URL is not set; start one with: quantum-trader up"
        )
    hosts = environment.get("REDIS_SENTINEL_HOSTS")
    if hosts is None or url != named:
        return url
    try:
        return sentinel_url(
            url,
            hosts=hosts,
            master_name=environment.get("REDIS_SENTINEL_MASTER", _DEFAULT_MASTER),
            sentinel_password=configured("REDIS_SENTINEL_PASSWORD", environment),
        )
    except InvalidInputError as error:
        raise ConfigurationError(f"REDIS_SENTINEL_HOSTS={hosts} is wrong: {error}") from error
