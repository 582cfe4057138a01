"""What a Redis knows of the bus, seen from outside: entries, groups, dead letters."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import orjson
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import ConstantBackoff
from redis.exceptions import ConnectionError as RedisConnectionError

from infrastructure.embedded.redis_server import EmbeddedRedis
from shared.events.streams import dead_letter_stream
from tests.support.eventually import eventually
from tests.support.redis_cluster import client_of

EVERY_STREAM = "quantum:stream:*"
#: A server that is promoted, or restarted, drops its clients.
_LOOKING_AGAIN_IS_HARMLESS = Retry(ConstantBackoff(0.05), 100)


@dataclass(frozen=True, slots=True)
class GroupState:
    """How far one service is.

    Attributes:
        streams: Streams on which its group exists.
        pending: Entries delivered and not settled.
        has_unread: Whether there are entries that were never delivered.
        dead_letters: Entries put aside.
    """

    streams: int
    pending: int
    has_unread: bool
    dead_letters: int

    @property
    def settled(self) -> bool:
        return self.streams > 0 and self.pending == 0 and not self.has_unread


class RedisView:
    """Looks at one Redis, or at all masters of a cluster."""

    def __init__(self, *urls: str) -> None:
        # Any: redis-py types its answers as unions that every test would have to take apart.
        self._nodes: list[Any] = [Redis.from_url(url, retry=_LOOKING_AGAIN_IS_HARMLESS) for url in urls]

    async def close(self) -> None:
        for node in self._nodes:
            await node.aclose()

    async def group(self, service: str) -> GroupState:
        """Return the state of the group of ``service``."""
        streams = pending = letters = 0
        has_unread = False
        for node in self._nodes:
            letters += sum([await node.xlen(key) for key in await _keys(node, dead_letter_stream(service))])
            for stream in await _keys(node, EVERY_STREAM):
                for group in await node.xinfo_groups(stream):
                    if group["name"].decode() == service:
                        streams += 1
                        pending += group["pending"]
                        read_to = group["last-delivered-id"].decode()
                        has_unread |= bool(await node.xrange(stream, f"({read_to}", count=1))
        return GroupState(streams, pending, has_unread, letters)

    async def is_settled(self, service: str, timeout: float = 120.0) -> GroupState:
        """Wait until the service has nothing pending and nothing unread; return its state."""

        async def settled() -> GroupState | None:
            state = await self.group(service)
            return state if state.settled else None

        state = await eventually(settled, timeout=timeout, what=f"{service} with nothing unsettled")
        assert state is not None
        return state

    async def event_ids(self) -> list[str]:
        """Return the id of every event that lies on a stream, doubled ones twice."""
        return [
            orjson.loads(fields[b"metadata"])["event_id"]
            for node in self._nodes
            for stream in await _keys(node, EVERY_STREAM)
            for _, fields in await node.xrange(stream)
        ]

    async def length(self) -> int:
        """Return the number of entries on all streams of events."""
        return sum([await node.xlen(stream) for node in self._nodes for stream in await _keys(node, EVERY_STREAM)])

    async def append_raw(self, stream: str, fields: dict[bytes, bytes]) -> None:
        """Add an entry that no publisher of ours would write."""
        await self._nodes[0].xadd(stream, fields)


async def _keys(node: Any, pattern: str) -> list[str]:
    """Return the keys that this node has; on a cluster it would send who asks for others elsewhere."""
    return [key.decode() async for key in node.scan_iter(pattern)]


def kill_server(server: EmbeddedRedis) -> None:
    """End the server as a crash of its program would; what it acknowledged lies in its file."""
    assert server.process_id is not None
    os.kill(server.process_id, signal.SIGKILL)


def freeze_server(server: EmbeddedRedis) -> None:
    """Let the server stand still: its connections stay open, and nothing answers."""
    assert server.process_id is not None
    os.kill(server.process_id, signal.SIGSTOP)


def thaw_server(server: EmbeddedRedis) -> None:
    """Let it go on."""
    assert server.process_id is not None
    os.kill(server.process_id, signal.SIGCONT)


async def is_gone(server: EmbeddedRedis) -> None:
    """Wait until a killed server is gone."""
    await eventually(lambda: not server.running, what="the end of a killed server")


def cut_replication(replica: EmbeddedRedis) -> None:
    """Cut ``replica`` off from its master for good: it cannot authenticate any more. It can still be promoted."""
    with client_of(replica) as client:
        client.config_set("masterauth", "no longer the password")
        client.execute_command("CLIENT", "KILL", "TYPE", "master")


def replicates(replica: EmbeddedRedis) -> bool:
    """Tell whether ``replica`` is connected to its master."""
    with client_of(replica) as client:
        return str(client.info("replication").get("master_link_status")) == "up"


def replicated_ids(replica: EmbeddedRedis) -> set[str]:
    """Return the ids of the events that a replica in a cluster has got."""
    with client_of(replica) as client:
        client.execute_command("READONLY")
        rows = [row for stream in client.scan_iter(EVERY_STREAM) for row in client.xrange(stream)]
    return {orjson.loads(fields[b"metadata"])["event_id"] for _, fields in rows}


def is_master(server: EmbeddedRedis) -> bool:
    """Tell whether ``server`` takes writes; one that is being promoted drops its clients."""
    with suppress(RedisConnectionError), client_of(server) as client:
        return str(client.info("replication")["role"]) == "master"
    return False
