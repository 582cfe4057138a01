"""Free ports on loopback."""

from __future__ import annotations

import socket

HOST = "127.0.0.1"
#: Another program can take a port between our look and the server's start; then the next one is tried.
PORT_TRIES = 5


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def is_busy_port(text: str) -> bool:
    """Tell whether a server's log says that its port was taken."""
    return "Address already in use" in text or "could not bind" in text


def is_still_held(text: str) -> bool:
    """Tell whether a server's log says that what is left of an earlier one holds its data."""
    return "pre-existing shared memory block" in text
