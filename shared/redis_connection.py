"""The process's connection to Redis, and the one place where errors of redis-py become ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

import structlog
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    MasterDownError,
    NoPermissionError,
    ReadOnlyError,
    RedisError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from shared.backoff import Backoff
from shared.clock import Clock
from shared.errors import ConfigurationError, ConnectionLostError, TransientError

#: Longest wait for one answer. A blocking read must ask for clearly less (``BLOCK_SECONDS``), else every quiet
#: stream looks like a dead server.
SOCKET_TIMEOUT_SECONDS = 10.0
CONNECT_TIMEOUT_SECONDS = 5.0
#: How long a blocking read waits on the server.
BLOCK_SECONDS = 2.0
#: An idle connection is checked with PING before use after this long.
HEALTH_CHECK_SECONDS = 15
#: XPENDING with IDLE, which finds what a dead consumer left, came with this version.
OLDEST_SERVER = (6, 2)

log = structlog.get_logger(__name__)


@contextmanager
def redis_errors() -> Iterator[None]:
    """Translate what redis-py raises inside the block.

    Raises:
        ConnectionLostError: The server cannot be reached, did not answer in time, or is no master any more.
        TransientError: The server refused the command.
    """
    try:
        yield
    except (RedisConnectionError, RedisTimeoutError, ReadOnlyError, MasterDownError, OSError) as error:
        raise ConnectionLostError(f"Redis cannot be reached: {type(error).__name__}: {error}") from error
    except RedisError as error:
        raise TransientError(f"Redis refused a command: {error}") from error


class RedisConnection:
    """One client per process for short commands, and clients of their own for readers that block.

    redis-py's retries are off: a lost reply would run the command twice, and XADD and RPC must not double.
    Who calls decides what a lost connection means. ``new_client`` is the one place that makes a client, so
    Sentinel or a circuit breaker can be put in front of every user at once.

    Attributes:
        name: Component name.
        client: For commands that answer at once; safe to share between tasks.
    """

    name = "redis"

    def __init__(self, url: str, *, clock: Clock, backoff: Backoff | None = None) -> None:
        """Prepare, without connecting.

        Args:
            url: ``redis://``, ``rediss://`` or ``unix://``.
            clock: Wall clock for waits and latencies.
            backoff: Delays between tries while the server is away at the start.

        Raises:
            ConfigurationError: The URL cannot be used.
        """
        self._url = url
        self._clock = clock
        self._backoff = backoff or Backoff(base_seconds=0.1, factor=2.0, cap_seconds=5.0)
        self._clients: list[Redis] = []
        self.client = self.new_client()

    @property
    def address(self) -> str:
        """Where the server is, without credentials."""
        parts = urlsplit(self._url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"

    def new_client(self) -> Redis:
        """Return a client with connections of its own; a reader that blocks needs one. ``stop`` closes it."""
        try:
            client = Redis.from_url(
                self._url,
                retry=Retry(NoBackoff(), 0),
                socket_timeout=SOCKET_TIMEOUT_SECONDS,
                socket_connect_timeout=CONNECT_TIMEOUT_SECONDS,
                health_check_interval=HEALTH_CHECK_SECONDS,
                protocol=2,
                **({} if self._url.startswith("unix:") else {"socket_keepalive": True}),
            )
        except ValueError as error:
            raise ConfigurationError(f"REDIS_URL {self.address!r} cannot be used: {error}") from error
        self._clients.append(client)
        return client

    async def start(self) -> None:
        """Wait until the server answers.

        Raises:
            ConfigurationError: The server refuses the credentials or is too old: waiting cannot help.
        """
        failures = 0
        while True:
            try:
                await self.ping()
                await self._check_version()
                break
            except ConnectionLostError as error:
                self._refuse_wrong_credentials(error)
                failures += 1
                delay = self._backoff.delay(failures)
                log.warning("redis_unreachable", address=self.address, error=str(error), retry_in_seconds=delay)
                await self._clock.sleep(delay)
        log.info("redis_connected", address=self.address)

    async def stop(self) -> None:
        """Close every connection."""
        for client in self._clients:
            with suppress(TransientError), redis_errors():
                await client.aclose()

    async def ping(self) -> float:
        """Return the round trip in milliseconds.

        Raises:
            ConnectionLostError: No answer.
        """
        began = self._clock.monotonic()
        with redis_errors():
            await self.client.ping()
        return (self._clock.monotonic() - began) * 1000.0

    def _refuse_wrong_credentials(self, error: ConnectionLostError) -> None:
        if isinstance(error.__cause__, AuthenticationError | AuthorizationError):
            raise ConfigurationError(
                f"Redis at {self.address} refuses the credentials in REDIS_URL: {error.__cause__}"
            ) from error

    async def _check_version(self) -> None:
        try:
            with redis_errors():
                info = await self.client.info("server")
        except TransientError as error:
            if isinstance(error.__cause__, NoPermissionError):
                return  # an ACL may hide INFO; then the first command that is missing says so
            raise
        version = str(info["redis_version"])
        if tuple(int(part) for part in version.split(".")[:2]) < OLDEST_SERVER:
            raise ConfigurationError(f"Redis at {self.address} has version {version}; 6.2 or newer is needed")
