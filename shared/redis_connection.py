"""The process's connection to Redis, and the one place where errors of redis-py become ours."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from typing import ParamSpec, TypeVar

import structlog
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import MasterDownError, ReadOnlyError, RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from shared.backoff import Backoff
from shared.cancellation import end_task
from shared.clock import Clock
from shared.errors import ConfigurationError, ConnectionLostError, InvalidInputError, TransientError
from shared.redis_links.client import disconnect, new_client
from shared.redis_links.cluster import ClusterLink
from shared.redis_links.health import RedisHealth, ServerFigures, version_number
from shared.redis_links.link import BLOCKING_SECONDS, USUAL, Link, is_wrong_server, refusal_behind
from shared.redis_links.prober import Prober
from shared.redis_links.reader import BlockingReader
from shared.redis_links.sentinel import SentinelMaster
from shared.redis_links.server import FixedServer, ServerLink
from shared.redis_topology import ClusterSeeds, Endpoint, OneServer, Topology, address_of, parse_redis_url
from shared.redis_wire import Command, ErrorReply, RedisWire, Reply
from shared.settings import ServiceSettings
from shared.telemetry.metrics import Metrics

#: Longest wait for one answer. A blocking read must ask for clearly less (``BLOCK_SECONDS``), else every quiet
#: stream looks like a dead server.
SOCKET_TIMEOUT_SECONDS = USUAL.answer_seconds
CONNECT_TIMEOUT_SECONDS = USUAL.connect_seconds
#: How long a blocking read waits on the server.
BLOCK_SECONDS = BLOCKING_SECONDS
#: XPENDING with IDLE, which finds what a dead consumer left, came with this version.
OLDEST_SERVER = (6, 2)
#: Tries at the start after the first one.
MAX_RETRIES = 10

P = ParamSpec("P")
T = TypeVar("T")

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
    """One way to Redis per process: shared connections for commands, one of its own for each reader that blocks.

    Nothing is ever sent twice: a lost answer leaves open whether the command ran, and XADD and RPC must not double.
    Who calls decides what a lost connection means. One background task finds out how long an outage lasts; once it
    has failed three times, commands fail at once until it succeeds.

    Attributes:
        name: Component name.
        client: redis-py, for rare commands; safe to share between tasks. On a cluster it takes the same commands.
    """

    name = "redis"

    def __init__(
        self,
        url: str,
        *,
        clock: Clock,
        backoff: Backoff | None = None,
        max_retries: int = MAX_RETRIES,
        rng: random.Random | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        """Prepare, without connecting.

        Args:
            url: One server, a master behind Sentinel, or a cluster; see ``shared.redis_topology``.
            clock: Wall clock for waits and latencies.
            backoff: Delays between tries at the start and while the breaker is open.
            max_retries: Tries at the start after the first one.
            rng: Spreads the tries of many processes.
            metrics: Counters of the process.

        Raises:
            ConfigurationError: The URL cannot be used.
        """
        self._topology, self.address = _parsed(url)
        self._clock = clock
        self._backoff = backoff or Backoff(base_seconds=1.0, factor=2.0, cap_seconds=30.0, jitter=0.5)
        self._max_retries = max_retries
        self._rng = rng
        self._metrics = metrics
        self._link = self._new_link(self._topology)
        self._prober = Prober(
            self._link.probe,
            address=self.address,
            clock=clock,
            backoff=self._backoff,
            rng=rng,
            on_open=self._drop_everything,
        )
        self._breaker = self._prober.breaker
        self._readers: set[BlockingReader] = set()
        self._clients: list[Redis] = []
        self._leaving: set[asyncio.Task[None]] = set()
        self._reconnects = 0
        self._stopped = False
        self._figures = ServerFigures()
        self.client = self.new_client()

    @classmethod
    def from_settings(
        cls,
        settings: ServiceSettings,
        *,
        clock: Clock,
        rng: random.Random | None = None,
        metrics: Metrics | None = None,
    ) -> RedisConnection:
        """Return the connection that ``settings`` describe."""
        backoff, max_retries = settings.redis_backoff, settings.redis_max_retries
        return cls(settings.redis_url, clock=clock, backoff=backoff, max_retries=max_retries, rng=rng, metrics=metrics)

    @property
    def is_cluster(self) -> bool:
        """Whether keys lie on several masters."""
        return isinstance(self._topology, ClusterSeeds)

    @property
    def generation(self) -> int:
        """Count of the connections made for ``execute``; another number than before means that there was an outage."""
        return self._link.generation

    @property
    def connected(self) -> bool:
        """Whether ``execute`` can send at once over the connections that ``generation`` counts.

        On a cluster it is false as soon as any master's connection is lost or a key has moved.
        """
        return self._link.connected

    @property
    def available(self) -> bool:
        """Whether commands are tried at all: the circuit breaker is closed."""
        return self._breaker.is_closed

    async def wait_available(self) -> None:
        """Wait until commands are tried again."""
        await self._prober.wait_closed()

    # -- start and stop -----------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Wait until the servers answer.

        Raises:
            ConfigurationError: A server refuses the credentials or is too old: waiting cannot help.
            ConnectionLostError: None answered within the number of tries.
        """
        failures = 0
        while True:
            try:
                await self._link.connect()
                await self._check_servers()
                break
            except ConnectionLostError as error:
                if (refusal := refusal_behind(error)) is not None:
                    raise ConfigurationError(
                        f"Redis at {self.address} refuses what REDIS_URL says: {refusal}"
                    ) from error
                failures += 1
                if failures > self._max_retries:
                    raise ConnectionLostError(
                        f"Redis at {self.address} was not there in {failures} tries, see REDIS_URL: {error}"
                    ) from error
                delay = self._backoff.delay(failures, self._rng)
                log.warning("redis_unreachable", address=self.address, reason=str(error), retry_in_seconds=delay)
                await self._clock.sleep(delay)
        if not self.available:  # what was late while we tried may have opened the breaker
            self._prober.hurry()
            await self.wait_available()
        log.info("redis_connected", address=self.address)

    async def stop(self) -> None:
        """Close every connection, for good: what is sent later fails."""
        self._stopped = True
        await self._prober.stop()
        for reader in tuple(self._readers):
            await reader.close()
        await self._link.close()
        for task in tuple(self._leaving):
            await end_task(task)
        for client in self._clients:
            with suppress(TransientError), redis_errors():
                await client.aclose()

    # -- commands -----------------------------------------------------------------------------------------------------

    async def execute(self, *commands: Command, raise_on_error: bool = True) -> list[Reply]:
        """Send ``commands`` in one go over the connection that all tasks share; return their raw replies in order.

        On a cluster each goes to the master of its key.

        Args:
            commands: Each a sequence of its parts.
            raise_on_error: False leaves an error reply in the list, as ``ErrorReply``.

        Raises:
            ConnectionLostError: The server cannot be reached; any of the commands may have run.
            TransientError: The server refused one of them; the others have run.
            InvalidInputError: It is a cluster, and nobody knows where the command has its key.
        """
        replies = await self._sent(self._link.execute, commands)
        for command, reply in zip(commands, replies, strict=True):
            if isinstance(reply, ErrorReply):
                self._judge(command, reply, raise_on_error=raise_on_error)
        return replies

    async def execute_atomically(self, *commands: Command) -> list[Reply]:
        """Run ``commands`` as one transaction; return their raw replies.

        Raises:
            ConnectionLostError: The server cannot be reached; all of them may have run, or none.
            TransientError: The server refused the transaction, or one command in it.
            InvalidInputError: It is a cluster, and the keys lie in different slots.
        """
        replies = await self._sent(self._link.execute_atomically, commands)
        results = replies[-1] if isinstance(replies[-1], list) else []
        # The refusal of a single command comes first: it says more than the one of EXEC that follows from it.
        for command, reply in zip((("MULTI",), *commands, ("EXEC",), *commands), (*replies, *results), strict=False):
            if isinstance(reply, ErrorReply):
                self._judge(command, reply, raise_on_error=True)
        return results

    async def connect(self) -> None:
        """Make sure that there is a connection, so that ``generation`` tells whether it is another one than before.

        Raises:
            ConnectionLostError: There is none to be had.
        """
        await self._guarded(self._link.connect)

    def new_reader(self) -> BlockingReader:
        """Return a connection for commands that block; ``stop`` closes it."""
        reader = BlockingReader(self._link, self._prober, on_close=self._readers.discard)
        self._readers.add(reader)
        return reader

    async def new_wire(self) -> RedisWire:
        """Return a fresh connection to the server that is responsible now; on a cluster, to one of the masters.

        Raises:
            ConnectionLostError: It cannot be reached.
        """
        return await self._guarded(self._link.open_wire, None)

    def new_client(self) -> Redis:
        """Return a redis-py client with connections of its own; ``stop`` closes it."""
        client = new_client(self._topology, self._locate_master)
        self._clients.append(client)
        return client

    # -- health -------------------------------------------------------------------------------------------------------

    async def ping(self) -> float:
        """Return the round trip in milliseconds; on a cluster, to all masters at once.

        Raises:
            ConnectionLostError: No answer.
        """
        began = self._clock.monotonic()
        for reply in await self._guarded(self._link.broadcast, ("PING",)):
            if isinstance(reply, ErrorReply):
                self._judge(("PING",), reply, raise_on_error=True)
        return (self._clock.monotonic() - began) * 1000.0

    async def health(self) -> RedisHealth:
        """Return the figures of this moment; an outage is among them, not raised."""
        latency_ms, problem = None, None
        try:
            latency_ms = await self.ping()
            self._figures = ServerFigures.of(await self._guarded(self._link.broadcast, ("INFO",)))
        except TransientError as error:
            problem = str(error)
        return RedisHealth(
            latency_ms=latency_ms,
            error=problem,
            **asdict(self._figures),
            open_connections=self._link.open_wires + sum(reader.is_connected for reader in self._readers),
            breaker=self._breaker.state,
            reconnects=self._reconnects,
            last_check=self._clock.now(),
        )

    # -- inside -------------------------------------------------------------------------------------------------------

    async def _sent(
        self, send: Callable[[Sequence[Command]], Awaitable[list[Reply]]], commands: Sequence[Command]
    ) -> list[Reply]:
        if self._metrics is None:
            return await self._guarded(send, commands)
        began = self._clock.monotonic()
        replies = await self._guarded(send, commands)
        self._metrics.redis_answered(self._clock.monotonic() - began)
        return replies

    async def _guarded(self, work: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """Do ``work`` unless the breaker is open; a lost connection has the server looked at."""
        if self._stopped:
            raise ConnectionLostError(f"the connection to Redis at {self.address} was closed")
        if not self._breaker.is_closed:
            await self._prober.admit()
        try:
            return await work(*args, **kwargs)
        except ConnectionLostError:
            self._prober.wake()
            raise

    def _judge(self, command: Command, reply: ErrorReply, *, raise_on_error: bool) -> None:
        if is_wrong_server(reply):
            self._link.distrust(command, str(reply))
            self._prober.wake()
            raise ConnectionLostError(f"Redis at {self.address} cannot be used: {reply}") from reply
        if raise_on_error:
            raise TransientError(f"Redis refused {command[0]!s}: {reply}") from reply

    def _new_link(self, topology: Topology) -> Link:
        if isinstance(topology, ClusterSeeds):
            return ClusterLink(topology, on_late=self._look_at_it, on_reconnect=self._reconnected)
        locator = (
            FixedServer(topology.endpoint)
            if isinstance(topology, OneServer)
            else SentinelMaster(topology, clock=self._clock, on_switch=self._follow_the_master)
        )
        return ServerLink(locator, on_late=self._look_at_it, on_reconnect=self._reconnected)

    def _look_at_it(self) -> None:
        self._prober.wake()

    def _follow_the_master(self) -> None:
        self._drop_everything("the sentinels name another master")
        self._prober.hurry()

    def _drop_everything(self, why: str) -> None:
        self._link.drop(why)
        for reader in self._readers:
            reader.drop(why)

    def _reconnected(self, moved: bool) -> None:
        self._reconnects += 1
        if self._metrics is not None:
            self._metrics.redis_reconnected()
        log.warning("redis_reconnected", address=self.address, to_another_server=moved)
        if moved:
            for reader in self._readers:
                reader.drop("the master is another one")
            for client in self._clients:
                task = asyncio.create_task(disconnect(client))
                self._leaving.add(task)
                task.add_done_callback(self._leaving.discard)

    async def _locate_master(self) -> Endpoint:
        wire = await self._link.open_wire(None)
        wire.close()
        return wire.endpoint

    async def _check_servers(self) -> None:
        for reply in await self._link.broadcast(("PING",)):
            if isinstance(reply, ErrorReply) and not str(reply).startswith("NOPERM"):
                raise ConnectionLostError(f"Redis at {self.address} cannot be used: {reply}") from reply
        # An ACL may hide INFO; then the first command that is missing says so.
        self._figures = ServerFigures.of(await self._link.broadcast(("INFO",)))
        version = self._figures.version
        if version and version_number(version) < OLDEST_SERVER:
            raise ConfigurationError(f"Redis at {self.address} has version {version}; 6.2 or newer is needed")


def _parsed(url: str) -> tuple[Topology, str]:
    try:
        return parse_redis_url(url), address_of(url)
    except InvalidInputError as error:
        raise ConfigurationError(f"REDIS_URL cannot be used: it {error}") from error
