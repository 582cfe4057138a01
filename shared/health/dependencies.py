"""Checks of what a service depends on: Redis, PostgreSQL, HTTP; and the round trip from which on each is slow."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Protocol
from urllib.parse import urlsplit

import httpx

from shared.clock import Clock
from shared.errors import ConnectionLostError
from shared.health.checks import DependencyCheck
from shared.health.contract import DependencyHealth, HealthStatus
from shared.redis_links.health import RedisHealth

#: Slower round trips than these make a dependency DEGRADED.
REDIS_SLOW_MS = 100.0
POSTGRES_SLOW_MS = 200.0
HTTP_SLOW_MS = 500.0
_OPENING_LOOK_SECONDS = 0.05


class Pings(Protocol):
    """Something whose other side can be asked for a sign of life."""

    async def ping(self) -> float:
        """Return the round trip in milliseconds; raise when there is no answer."""
        ...


class OpensAtStart(Pings, Protocol):
    """A pool of connections that is opened when the service starts."""

    @property
    def pool(self) -> object:
        """The connections; raises ConnectionLostError while they are not open."""
        ...


class TellsRedisHealth(Protocol):
    """A connection to Redis that knows how it is."""

    async def health(self) -> RedisHealth:
        """Return the figures of this moment; an outage is among them, not raised."""
        ...


def redis_check(connection: TellsRedisHealth) -> DependencyCheck:
    """Return the check of Redis; nothing works without it."""

    async def probe() -> DependencyHealth:
        figures = asdict(await connection.health())
        latency_ms, error = figures.pop("latency_ms"), figures.pop("error")
        return DependencyHealth(
            status=HealthStatus.OK if error is None else HealthStatus.DOWN,
            latency_ms=None if latency_ms is None else round(latency_ms, 3),
            error=error,
            details=figures,
        )

    return DependencyCheck(probe, slow_ms=REDIS_SLOW_MS)


def postgres_check(pool: OpensAtStart) -> DependencyCheck:
    """Return the check of PostgreSQL; a service that has a database can do nothing without it."""

    async def probe() -> float:
        # The pool opens while the service starts: that is a reason to wait for it, and for an alarm only if it lasts.
        while not _is_open(pool):  # noqa: ASYNC110 - the pool has no event to wait for
            await asyncio.sleep(_OPENING_LOOK_SECONDS)
        return await pool.ping()

    return DependencyCheck(probe, slow_ms=POSTGRES_SLOW_MS)


def http_check(endpoint: Pings, *, is_critical: bool = False) -> DependencyCheck:
    """Return the check of an HTTP service: the exchange's client, or an ``HttpEndpoint``.

    Args:
        endpoint: Who to ask.
        is_critical: The service can do nothing without it. Not so by default: what is far away is away at times, and
            no restart of ours brings it back.
    """
    return DependencyCheck(endpoint.ping, slow_ms=HTTP_SLOW_MS, is_critical=is_critical)


def _is_open(pool: OpensAtStart) -> bool:
    try:
        return pool.pool is not None
    except ConnectionLostError:
        return False


class HttpEndpoint:
    """A URL that answers GET with success while its service is well; also a component, for its connection.

    Attributes:
        name: Component name.
    """

    def __init__(self, url: str, *, clock: Clock, name: str = "http-endpoint") -> None:
        """Prepare, without connecting.

        Args:
            url: For example ``http://127.0.0.1:8100/fapi/v1/ping``.
            clock: Wall clock for the round trip.
            name: Component name.
        """
        self.name = name
        self._url = url
        self._clock = clock
        self._client: httpx.AsyncClient | None = None
        self._opening = asyncio.Lock()

    async def start(self) -> None:
        """Nothing to do: the connection is made at the first use."""

    async def stop(self) -> None:
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    async def ping(self) -> float:
        """Return the round trip in milliseconds.

        Raises:
            ConnectionLostError: No answer, or another one than success.
        """
        client = await self._opened()
        began = self._clock.monotonic()
        try:
            answer = await client.get(self._url)
        except httpx.HTTPError as error:
            raise ConnectionLostError(f"{self._place} cannot be reached: {type(error).__name__}: {error}") from error
        if not answer.is_success:
            raise ConnectionLostError(f"{self._place} answers {answer.status_code}")
        return (self._clock.monotonic() - began) * 1000.0

    @property
    def _place(self) -> str:
        """The URL without user, password and query: it is shown to everyone."""
        parts = urlsplit(self._url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"

    async def _opened(self) -> httpx.AsyncClient:
        async with self._opening:
            if self._client is None:
                # Reading the certificates of the system takes longer than the loop may be held.
                self._client = await asyncio.to_thread(httpx.AsyncClient, follow_redirects=False)
            return self._client
