"""Real Sentinels on loopback, with the master and the replicas that they watch."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import BinaryIO

from infrastructure.embedded.account import unprivileged_account
from infrastructure.embedded.child_process import ChildProcess
from infrastructure.embedded.loopback import HOST
from infrastructure.embedded.place import Place
from infrastructure.embedded.redis_server import EmbeddedRedis
from tests.support.eventually import eventually
from tests.support.redis_cluster import client_of, port_of

MASTER_NAME = "mymaster"
_PASSWORD = "server-password"
_SENTINEL_PASSWORD = "sentinel-password"


class EmbeddedSentinel(EmbeddedRedis):
    """The same program as a sentinel: it keeps what it knows in its configuration, so that must be a file."""

    def __init__(self, folder: Path, *, master_port: int, quorum: int, down_after_ms: int) -> None:
        super().__init__(folder, password=_SENTINEL_PASSWORD)
        self._monitor = [
            f"sentinel monitor {MASTER_NAME} {HOST} {master_port} {quorum}",
            f"sentinel auth-pass {MASTER_NAME} {_PASSWORD}",
            f"sentinel down-after-milliseconds {MASTER_NAME} {down_after_ms}",
            f"sentinel failover-timeout {MASTER_NAME} 4000",
            f"sentinel sentinel-pass {_SENTINEL_PASSWORD}",
        ]

    def _launch(self, place: Place, port: int, output: BinaryIO) -> ChildProcess:
        account, file = unprivileged_account(), place.data / f"sentinel-{port}.conf"
        if not file.exists():
            lines = [f"port {port}", f"bind {HOST}", f"requirepass {self._password}", f'dir "{place.data}"']
            file.write_text("\n".join([*lines, *self._monitor, ""]), encoding="utf-8")
            if account:
                os.chown(file, account.uid, account.gid)
        return ChildProcess(
            [str(self._program), str(file), "--sentinel"],
            account=account,
            directory=place.data,
            death_signal=signal.SIGKILL,
            output=output,
        )


class SentinelServers:
    """Three sentinels, a master, its replicas.

    Sentinels ping once a second; with less than that for ``down_after_ms`` they find a new master dead at once.

    Attributes:
        servers: The master of the beginning first, then its replicas.
        sentinels: Who watches them.
    """

    def __init__(self, folder: Path, *, replicas: int = 1, down_after_ms: int = 1500) -> None:
        self._folder = folder
        self._replicas = replicas
        self._down_after_ms = down_after_ms
        self.servers: list[EmbeddedRedis] = []
        self.sentinels: list[EmbeddedSentinel] = []

    @property
    def url(self) -> str:
        """What ``REDIS_URL`` would say."""
        hosts = ",".join(f"{HOST}:{port_of(sentinel)}" for sentinel in self.sentinels)
        return f"redis+sentinel://:{_PASSWORD}@{hosts}/{MASTER_NAME}/0?sentinel_password={_SENTINEL_PASSWORD}"

    async def start(self) -> None:
        """Start all; returns when the replicas follow and every sentinel knows the others and the replicas."""
        usual = {"repl-diskless-sync": "yes", "repl-diskless-sync-delay": "0", "appendonly": "no"}
        master = EmbeddedRedis(self._folder / "server-0", password=_PASSWORD, directives=usual)
        await master.start()
        follow = {**usual, "replicaof": f"{HOST} {port_of(master)}"}
        replicas = [
            EmbeddedRedis(self._folder / f"server-{number}", password=_PASSWORD, directives=follow)
            for number in range(1, 1 + self._replicas)
        ]
        self.servers = [master, *replicas]
        await asyncio.gather(*(replica.start() for replica in replicas))
        # A sentinel asks the master for its replicas when it starts, and then every ten seconds only.
        await eventually(lambda: all(map(_is_in_step, self.servers[1:])), what="replicas in step with the master")
        self.sentinels = [
            EmbeddedSentinel(
                self._folder / f"sentinel-{number}",
                master_port=port_of(master),
                quorum=2,
                down_after_ms=self._down_after_ms,
            )
            for number in range(3)
        ]
        await asyncio.gather(*(sentinel.start() for sentinel in self.sentinels))
        await self.wait_until_whole()

    async def wait_until_whole(self, *, timeout: float = 30.0) -> None:
        """Wait until a failover could be carried out."""
        replicas = len(self.servers) - 1
        await eventually(
            lambda: all(_is_ready(sentinel, replicas) for sentinel in self.sentinels),
            timeout=timeout,
            what="sentinels that know each other and the replicas",
        )

    def master(self) -> EmbeddedRedis:
        """Return the master by what the first sentinel says."""
        return next(server for server in self.servers if port_of(server) == _master_port(self.sentinels[0]))

    async def stop(self) -> None:
        for server in (*self.sentinels, *self.servers):
            await server.stop()


def _is_in_step(replica: EmbeddedRedis) -> bool:
    with client_of(replica) as client:
        return bool(client.info("replication")["master_link_status"] == "up")


def _master_port(sentinel: EmbeddedSentinel) -> int:
    with client_of(sentinel) as client:
        return int(client.execute_command("SENTINEL GET-MASTER-ADDR-BY-NAME", MASTER_NAME)[1])


def _is_ready(sentinel: EmbeddedSentinel, replicas: int) -> bool:
    with client_of(sentinel) as client:
        master = client.sentinel_masters()[MASTER_NAME]
        ready = [replica for replica in client.sentinel_slaves(MASTER_NAME) if _follows(replica)]
    return master["num-other-sentinels"] == 2 and "master" in master["flags"].split(",") and len(ready) >= replicas


def _follows(replica: dict[str, str]) -> bool:
    return replica["master-link-status"] == "ok" and replica["flags"] == "slave"
