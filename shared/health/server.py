"""Runs a service as a process: settings, logs, and its HTTP application until it is asked to stop."""

from __future__ import annotations

import errno
import signal
import socket
from collections.abc import Callable
from typing import TypeVar

import structlog
import uvicorn
from starlette.applications import Starlette

from shared.errors import ConfigurationError
from shared.health.routes import WRONG_CONFIGURATION
from shared.settings import ServiceSettings, load_settings
from shared.telemetry.logs import configure_logging

log = structlog.get_logger(__name__)

_GRACE_SECONDS = 5

S = TypeVar("S", bound=ServiceSettings)


def run_service(name: str, settings_type: type[S], create_app: Callable[[S], Starlette]) -> int:
    """Run the service ``name`` and return the exit code of the process.

    0 after a clean stop, 1 when the start failed, 4 with one line in the log when a setting is wrong.

    Args:
        name: Stands on every line of the log.
        settings_type: What is read from environment and ``.env``.
        create_app: Wires the service.
    """
    try:
        settings = load_settings(settings_type)
        configure_logging(name, settings.log_level, settings.secret_values())
        return serve(create_app(settings), host=settings.host, port=settings.port)
    except ConfigurationError as error:
        configure_logging(name)
        log.critical("configuration_wrong", error=str(error))
        return WRONG_CONFIGURATION


def serve(app: Starlette, *, host: str, port: int) -> int:
    """Serve ``app`` until SIGINT or SIGTERM; return the exit code of the process.

    Raises:
        ConfigurationError: The port is taken.
    """
    listener = _listen(host, port)
    config = uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=_GRACE_SECONDS)
    server = uvicorn.Server(config)

    def stop_server() -> None:
        server.should_exit = True

    app.state.stop_server = stop_server
    # Ours hold before uvicorn sets its own, and after: it repeats the signal at the end, and a clean stop is code 0.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop_server())
    server.run(sockets=[listener])
    return int(app.state.exit_code)


def _listen(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        why = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be opened: {error.strerror}"
        raise ConfigurationError(f"port {port} on {host} {why}; stop what uses it or set QT_PORT") from error
    return listener
