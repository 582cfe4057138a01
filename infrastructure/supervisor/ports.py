"""Which loopback port each process of a run listens on."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields

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
        ConfigurationError: A port in the environment is no port number, or a chosen port is busy.
    """
    free = iter(free_ports(len(_PORT_TABLE)) if base == 0 else [])
    chosen: dict[str, int] = {}
    for field, (owner, offset, variable) in _PORT_TABLE.items():
        port = _from_environment(variable, environment) or (next(free) if base == 0 else base + offset)
        if not 0 < port < 65536:
            raise ConfigurationError(f"port {port} for {owner} is not between 1 and 65535; choose another --port-base")
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


def free_ports(count: int) -> list[int]:
    """Return ``count`` different ports that are free now."""
    probes = [socket.socket(socket.AF_INET, socket.SOCK_STREAM) for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def as_dict(ports: Ports) -> dict[str, int]:
    """Return the ports by field name, for the state file."""
    return {field.name: getattr(ports, field.name) for field in fields(ports)}
