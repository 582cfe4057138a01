"""redis-py clients that lead where the process's own connection leads, for commands that are rare.

Their retries are off: redis-py would send a command again whose answer was lost, and it would run twice.
"""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, cast

from redis.asyncio import Connection, ConnectionPool, Redis, RedisCluster, UnixDomainSocketConnection
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from shared.redis_links.link import USUAL
from shared.redis_topology import ClusterSeeds, Endpoint, OneServer, SentinelGroup, TlsOptions, Topology, tls_context

#: An idle connection is checked with PING before use after this long.
HEALTH_CHECK_SECONDS = 15

#: Tells where the master is at present.
Locate = Callable[[], Awaitable[Endpoint]]


def new_client(topology: Topology, locate: Locate) -> Redis:
    """Return a client with connections of its own; a cluster's takes the same commands.

    Args:
        topology: What to connect to.
        locate: Asked before every connection to a master that sentinels know; its ConnectionLostError goes through.
    """
    if isinstance(topology, ClusterSeeds):
        return cast("Redis", _cluster_client(topology))
    server = topology.endpoint if isinstance(topology, OneServer) else topology.server
    usual: dict[str, Any] = {**_usual(server), "db": server.database, "retry": Retry(NoBackoff(), 0)}
    if server.path is not None:
        return Redis.from_pool(ConnectionPool(UnixDomainSocketConnection, path=server.path, **usual))
    usual |= {"host": server.host, "port": server.port, "tls": server.tls}
    if isinstance(topology, SentinelGroup):
        usual["locate"] = locate
    return Redis.from_pool(ConnectionPool(_MasterConnection, **usual))


async def disconnect(client: Redis) -> None:
    """Close the client's connections: what they led to is no longer the master."""
    if isinstance(client.connection_pool, ConnectionPool):
        await client.connection_pool.disconnect()


class _MasterConnection(Connection):
    """A connection that asks where to go before it connects."""

    def __init__(self, *, tls: TlsOptions | None, locate: Locate | None = None, **settings: Any) -> None:
        super().__init__(**settings)
        self._tls = tls
        self._locate = locate

    async def _connect(self) -> None:
        if self._locate is not None:
            master = await self._locate()
            self.host, self.port = master.host, master.port
        await super()._connect()  # type: ignore[no-untyped-call]

    def _connection_arguments(self) -> Mapping[str, str | int | ssl.SSLContext]:
        secure = {"ssl": tls_context(self._tls)} if self._tls else {}
        return {**super()._connection_arguments(), **secure}


def _cluster_client(cluster: ClusterSeeds) -> RedisCluster:
    server = cluster.seeds[0]
    tls: dict[str, Any] = {}
    if server.tls:
        tls = {
            "ssl": True,
            "ssl_ca_certs": server.tls.ca_certs,
            "ssl_certfile": server.tls.certfile,
            "ssl_keyfile": server.tls.keyfile,
            "ssl_cert_reqs": server.tls.cert_reqs,
            "ssl_check_hostname": server.tls.check_hostname,
        }
    return RedisCluster(
        startup_nodes=[ClusterNode(seed.host, seed.port) for seed in cluster.seeds],
        retry=Retry(NoBackoff(), 0),
        **_usual(server),
        **tls,
    )


def _usual(server: Endpoint) -> dict[str, Any]:
    return {
        "username": server.username,
        "password": server.password,
        "socket_timeout": USUAL.answer_seconds,
        "socket_connect_timeout": USUAL.connect_seconds,
        "health_check_interval": HEALTH_CHECK_SECONDS,
        "protocol": 2,
    }
