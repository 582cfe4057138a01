"""A real Redis Cluster on loopback: masters without persistence, each with as many replicas as a test wants."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis

from infrastructure.embedded.loopback import HOST, PORT_TRIES
from infrastructure.embedded.redis_server import EmbeddedRedis
from shared.errors import ConfigurationError
from tests.support.eventually import eventually

SLOTS = 16384
_PASSWORD = "cluster-password"
#: A node talks to the others on a port that lies this much above the one for clients.
_BUS_PORT_OFFSET = 10_000


@dataclass(frozen=True, slots=True)
class SlotRange:
    """Slots from ``first`` to ``last``, both included."""

    first: int
    last: int


class RedisClusterServers:
    """The processes of one cluster.

    Attributes:
        masters: Servers that hold slots at the start.
        replicas: ``replicas[i]`` follows ``masters[i % len(masters)]``.
    """

    def __init__(self, folder: Path, *, masters: int = 3, replicas: int = 0, node_timeout_ms: int = 5000) -> None:
        self._folder = folder
        self._count = (masters, replicas)
        self._directives = {
            "cluster-enabled": "yes",
            "cluster-config-file": "nodes.conf",
            "cluster-node-timeout": str(node_timeout_ms),
            "cluster-replica-validity-factor": "0",
            "appendonly": "no",
            "repl-diskless-sync": "yes",
            "repl-diskless-sync-delay": "0",
        }
        self.masters: list[EmbeddedRedis] = []
        self.replicas: list[EmbeddedRedis] = []

    @property
    def url(self) -> str:
        """What ``REDIS_URL`` would say."""
        hosts = ",".join(f"{HOST}:{port_of(server)}" for server in self.masters)
        return f"redis+cluster://:{_PASSWORD}@{hosts}"

    async def start(self) -> None:
        """Start the servers and join them; returns when every one of them serves all slots."""
        masters, replicas = self._count
        servers = await asyncio.gather(*(self._started(f"node-{number}") for number in range(masters + replicas)))
        self.masters, self.replicas = servers[:masters], servers[masters:]
        for slots, master in zip(self._shares(), self.masters, strict=True):
            with client_of(master) as client:
                client.execute_command("CLUSTER ADDSLOTS", *range(slots.first, slots.last + 1))
                for other in servers:
                    client.execute_command("CLUSTER MEET", HOST, port_of(other))
        await eventually(lambda: all(_knows(server, len(servers)) for server in servers), what="nodes that met")
        for number, replica in enumerate(self.replicas):
            with client_of(replica) as client:
                client.execute_command("CLUSTER REPLICATE", node_id(self.masters[number % len(self.masters)]))
        await self.wait_until_whole()

    async def _started(self, name: str) -> EmbeddedRedis:
        for tries_left in reversed(range(PORT_TRIES)):
            server = EmbeddedRedis(
                self._folder / name, port=_free_node_port(), password=_PASSWORD, directives=self._directives
            )
            try:
                await server.start()
            except ConfigurationError:  # the port was taken in the meantime
                if not tries_left:
                    raise
                continue
            return server
        raise AssertionError

    async def wait_until_whole(self, *, timeout: float = 30.0) -> None:
        """Wait until every running node finds the cluster in order and every replica follows its master."""
        running = [server for server in (*self.masters, *self.replicas) if server.running]
        await eventually(lambda: all(_is_whole(server) for server in running), timeout=timeout, what="a whole cluster")

    async def stop(self) -> None:
        for server in (*self.replicas, *self.masters):
            await server.stop()

    def clear(self) -> None:
        """Remove all data, and bring slots that a test has moved back to where they belong."""
        for master in self.masters:
            with client_of(master) as client:
                client.flushall()
        owners = self._owners()
        for slots, master in zip(self._shares(), self.masters, strict=True):
            strayed = [slot for slot in range(slots.first, slots.last + 1) if owners[slot] != port_of(master)]
            for slot in strayed:
                self.assign(slot, master)

    def owner(self, slot: int) -> EmbeddedRedis:
        """Return the master that holds ``slot``, by what the first one knows."""
        port = self._owners()[slot]
        return next(server for server in (*self.masters, *self.replicas) if port_of(server) == port)

    def assign(self, slot: int, target: EmbeddedRedis) -> None:
        """Move an empty ``slot`` to ``target``."""
        source = self.owner(slot)
        if source is target:
            return
        # Who takes over a slot that it was importing gets a new epoch, so that no node's older word counts.
        _set_slot(target, slot, "IMPORTING", node_id(source))
        for server in (target, source, *(server for server in self.masters if server not in {target, source})):
            _set_slot(server, slot, "NODE", node_id(target))

    def _owners(self) -> dict[int, int]:
        with client_of(self.masters[0]) as client:
            client.set_response_callback("CLUSTER SLOTS", lambda rows, **_: rows)
            rows = client.execute_command("CLUSTER SLOTS")
        return {slot: port for first, last, (_, port, *_), *_ in rows for slot in range(first, last + 1)}

    def _shares(self) -> Iterator[SlotRange]:
        count = len(self.masters)
        for number in range(count):
            yield SlotRange(number * SLOTS // count, (number + 1) * SLOTS // count - 1)


def port_of(server: EmbeddedRedis) -> int:
    """Return where ``server`` listens."""
    return int(server.url.rpartition(":")[2].partition("/")[0])


def node_id(server: EmbeddedRedis) -> str:
    """Return the name of a node among all."""
    with client_of(server) as client:
        return str(client.execute_command("CLUSTER MYID").decode())


@contextmanager
def client_of(server: EmbeddedRedis) -> Iterator[Any]:
    """Give a client of exactly this server. Any: redis-py types its answers as unions one would have to take apart."""
    with redis.Redis.from_url(server.url, single_connection_client=True) as client:
        yield client


def _set_slot(server: EmbeddedRedis, slot: int, *what: str) -> None:
    with client_of(server) as client:
        client.execute_command("CLUSTER SETSLOT", slot, *what)


def _knows(server: EmbeddedRedis, others: int) -> bool:
    with client_of(server) as client:
        known = client.execute_command("CLUSTER NODES")
        return len([node for node in known.values() if "handshake" not in node["flags"]]) == others


def _is_whole(server: EmbeddedRedis) -> bool:
    with client_of(server) as client:
        if client.execute_command("CLUSTER INFO")["cluster_state"] != "ok":
            return False
        replication = client.info("replication")
        return bool(replication["role"] == "master" or replication["master_link_status"] == "up")


def _free_node_port() -> int:
    """Return a port that is free together with the one on which nodes talk.

    Both lie below the range out of which the system gives ports to connections, so they stay free.
    """
    while True:
        port = random.randrange(11_000, 22_000)
        try:
            for wanted in (port, port + _BUS_PORT_OFFSET):
                with socket.socket() as probe:
                    probe.bind((HOST, wanted))
        except OSError:
            continue
        return port
