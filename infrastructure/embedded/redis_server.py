"""A Redis of our own, for a machine that has none."""

from __future__ import annotations

import signal
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from infrastructure.embedded.account import unprivileged_account
from infrastructure.embedded.binaries import reachable_redis, redis_program
from infrastructure.embedded.child_process import ChildProcess, end_leftover
from infrastructure.embedded.embedded_server import EmbeddedServer
from infrastructure.embedded.loopback import HOST
from infrastructure.embedded.place import Place


class EmbeddedRedis(EmbeddedServer):
    """Redis with a password, an append-only file, and no eviction.

    Args:
        directory: Folder of data and log; made when missing.
        program: The ``redis-server`` to run; found on PATH or in the wheel when None.
        port: Where to listen; a free port when None.
        password: Shared with other servers, which a replica or a cluster needs; one of its own when None.
        directives: Lines of configuration beside the usual ones, or instead of them: what makes it a replica
            (``replicaof``) or a node of a cluster (``cluster-enabled``).
    """

    name = "redis"
    _stop_steps = ((signal.SIGTERM, 15.0),)

    def __init__(
        self,
        directory: Path,
        *,
        program: Path | None = None,
        port: int | None = None,
        password: str | None = None,
        directives: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(directory)
        self._port = port
        self._wanted_program = program
        self._wanted_password = password
        self._directives = directives or {}
        self._program = Path()

    def _url(self, port: int, password: str) -> str:
        return f"redis://:{password}@{HOST}:{port}/0"

    def _prepare(self, place: Place) -> None:
        self._password = self._wanted_password or self._password
        program = self._wanted_program or redis_program()
        self._program = reachable_redis(program, unprivileged_account(), place.path)
        data = place.make_data()
        end_leftover(data / "redis.pid", data, signal.SIGTERM)

    def _launch(self, place: Place, port: int, output: BinaryIO) -> ChildProcess:
        return ChildProcess(
            [str(self._program), "-"],
            account=unprivileged_account(),
            directory=place.data,
            # Nothing acknowledged is lost by SIGKILL: it was written to the file before the answer.
            death_signal=signal.SIGKILL,
            output=output,
            input_text=self._configuration(place.data, port),
        )

    def _is_ready(self, place: Place, port: int, process: ChildProcess) -> bool:
        return _pings(port, self._password)

    def _configuration(self, data: Path, port: int) -> str:
        lines = {
            "bind": HOST,
            "port": str(port),
            "requirepass": self._password,
            "masterauth": self._password,
            "dir": f'"{data}"',
            "pidfile": f'"{data / "redis.pid"}"',
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": '""',
            "maxmemory-policy": "noeviction",
            **self._directives,
        }
        return "".join(f"{name} {value}\n" for name, value in lines.items())


def _pings(port: int, password: str) -> bool:
    """Ask by hand: the server's readiness is no reason to import a client library."""
    try:
        with socket.create_connection((HOST, port), timeout=1.0) as connection:
            connection.sendall(f"AUTH {password}\r\nPING\r\n".encode())
            answer = b""
            while answer.count(b"\r\n") < 2:
                received = connection.recv(256)
                if not received:
                    return False
                answer += received
    except OSError:
        return False
    return answer == b"+OK\r\n+PONG\r\n"
