"""Which loopback port each process of a run listens on."""

from __future__ import annotations

import errno
import itertools
import secrets
import socket
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass

from shared.errors import ConfigurationError

#: Field of ``Ports`` -> (name of the process, distance from the base, environment variable that overrides it).
_PORT_TABLE: Mapping[str, tuple[str, int, str]] = {
    "ai": ("ai-service", 1, "QT_AI_PORT"),
    "exec_risk": ("exec-risk-service", 2, "QT_EXEC_RISK_PORT"),
    "analytics": ("analytics-os-service", 3, "QT_ANALYTICS_PORT"),
    "exchange": ("paper-exchange", 100, "QT_EXCHANGE_PORT"),
    "exchange_admin": ("paper-exchange (admin)", 101, "QT_EXCHANGE_ADMIN_PORT"),
}
DEFAULT_PORT_BASE = 8000
_SAFE_PORTS = range(10_000, 32_000)


@dataclass(frozen=True, slots=True)
class Ports:
    """The ports of one run, all on 127.0.0.1."""

    ai: int
    exec_risk: int
    analytics: int
    exchange: int
    exchange_admin: int


def choose_ports(base: int, environment: Mapping[str, str]) -> Ports:
    """Return the ports of a run: those that the environment names, else ``base`` + 1, 2, 3, 100 and 101.

    A base of 0 takes any free ports.

    Raises:
        ConfigurationError: A port in the environment is no port number or named twice, or a chosen port is busy.
    """
    named = {field: _from_environment(variable, environment) for field, (_, _, variable) in _PORT_TABLE.items()}
    free = iter(free_ports(len(_PORT_TABLE), but_not={port for port in named.values() if port}) if base == 0 else ())
    chosen: dict[str, int] = {}
    for field, (owner, offset, variable) in _PORT_TABLE.items():
        port = named[field] or (next(free) if base == 0 else base + offset)
        if port in chosen.values():
            raise ConfigurationError(f"port {port} is wanted twice, also for {owner}; set {variable} to another one")
        if not is_free(port):
            raise ConfigurationError(
                f"port {port} for {owner} is busy; end what listens there, or set {variable} or --port-base "
                "(--port-base 0 takes free ports)"
            )
        chosen[field] = port
    return Ports(**chosen)


def busy_ports(base: int, environment: Mapping[str, str]) -> list[tuple[str, int]]:
    """Return (process, port) for each default port that something else listens on."""
    wanted = [
        (owner, _from_environment(variable, environment) or base + offset) for owner, offset, variable in _table()
    ]
    return [(owner, port) for owner, port in wanted if not is_free(port)]


def _table() -> Iterable[tuple[str, int, str]]:
    return ((owner, offset, variable) for owner, offset, variable in _PORT_TABLE.values())


def _from_environment(variable: str, environment: Mapping[str, str]) -> int | None:
    text = environment.get(variable, "")
    if not text:
        return None
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise ConfigurationError(f"{variable}={text!r} is no port number; give one between 1 and 65535")
    return int(text)


def is_free(port: int) -> bool:
    """Tell whether 127.0.0.1:``port`` can be listened on."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # Without this a port that was used seconds ago counts as busy, though servers can bind it.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen(1)
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return False
            raise
    return True


def free_ports(count: int, *, but_not: Container[int] = ()) -> list[int]:
    """Return ``count`` different ports that are free now.

    They lie below the range from which the system gives ports to outgoing connections: one of ours could otherwise
    be taken by a client of Redis before its service listens, or while it restarts.
    """
    first = _SAFE_PORTS.start + secrets.randbelow(len(_SAFE_PORTS))
    candidates = (_SAFE_PORTS[(first + step) % len(_SAFE_PORTS)] for step in range(len(_SAFE_PORTS)))
    found = list(itertools.islice((port for port in candidates if port not in but_not and is_free(port)), count))
    if len(found) < count:
        raise ConfigurationError(f"no {count} free ports between {_SAFE_PORTS.start} and {_SAFE_PORTS.stop}")
    return found
