"""The figures of Redis that a health page shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from shared.circuit_breaker import BreakerState
from shared.redis_wire import ErrorReply, Reply


@dataclass(frozen=True, slots=True)
class RedisHealth:
    """Figures of the servers and of the connection; those of the servers are the last ones that could be had.

    Attributes:
        latency_ms: Round trip just now; None when there is no answer.
        error: Why there is none; None when all is well.
        version: Of the servers, the oldest one; empty while none was ever reached.
        role: ``master``, or what a server says of itself that should be one.
        uptime_seconds: Of the server that started last.
        used_memory_bytes: Of all masters together.
        connected_clients: Of all masters together.
        masters: Servers that hold the data: 1, or those of a cluster.
        open_connections: Connections of this process, readers included.
        breaker: State of the circuit breaker.
        reconnects: Connections that took the place of lost ones, since the start.
        last_check: When this was asked, aware UTC.
    """

    latency_ms: float | None
    error: str | None
    version: str
    role: str
    uptime_seconds: int
    used_memory_bytes: int
    connected_clients: int
    masters: int
    open_connections: int
    breaker: BreakerState
    reconnects: int
    last_check: datetime


@dataclass(frozen=True, slots=True)
class ServerFigures:
    """What the masters say of themselves; attributes as in ``RedisHealth``."""

    version: str = ""
    role: str = ""
    uptime_seconds: int = 0
    used_memory_bytes: int = 0
    connected_clients: int = 0
    masters: int = 0

    @classmethod
    def of(cls, answers: Sequence[Reply]) -> ServerFigures:
        """Read what every master answered to INFO; an ACL may hide it, then the figures stay empty."""
        servers = [_fields(answer) for answer in answers if not isinstance(answer, ErrorReply)]
        if not servers:
            return cls(masters=len(answers))
        roles = sorted({server.get("role", "") for server in servers} - {"master"})
        return cls(
            version=min((server["redis_version"] for server in servers), key=version_number),
            role=roles[0] if roles else "master",
            uptime_seconds=min(int(server["uptime_in_seconds"]) for server in servers),
            used_memory_bytes=sum(int(server["used_memory"]) for server in servers),
            connected_clients=sum(int(server["connected_clients"]) for server in servers),
            masters=len(answers),
        )


def version_number(version: str) -> tuple[int, int]:
    """Return the first two parts of a server's version as numbers."""
    major, minor, *_ = version.split(".")
    return int(major), int(minor)


def _fields(answer: bytes) -> dict[str, str]:
    lines = (line.partition(":") for line in answer.decode().splitlines() if not line.startswith("#"))
    return {name: value for name, separator, value in lines if separator}
