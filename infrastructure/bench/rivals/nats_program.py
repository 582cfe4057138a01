"""A ``nats-server`` of our own, where the machine has the program."""

from __future__ import annotations

import shutil
import signal
import socket
from pathlib import Path

from infrastructure.embedded.child_process import ChildProcess
from infrastructure.embedded.loopback import HOST, free_port
from shared.clock import Clock
from shared.errors import ConfigurationError

#: Debian puts it where only administrators look.
_FOLDERS = "/usr/sbin:/usr/local/sbin"
_LOOK_SECONDS = 0.05
_LOOKS = 200


def nats_program() -> Path | None:
    """Return the program; None where there is none."""
    found = shutil.which("nats-server") or shutil.which("nats-server", path=_FOLDERS)
    return Path(found) if found else None


class NatsProgram:
    """One server on loopback, with JetStream.

    Attributes:
        url: For clients.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = free_port()
        self._process: ChildProcess | None = None
        self.url = f"nats://{HOST}:{self._port}"

    async def start(self, clock: Clock) -> None:
        """Start it and wait until it listens.

        Raises:
            ConfigurationError: There is no program, or it does not come up.
        """
        program = nats_program()
        if program is None:
            raise ConfigurationError("there is no nats-server; on Debian: apt-get install nats-server")
        self._folder.mkdir()
        configuration = self._folder / "nats.conf"
        # A slow reader is not cut off: what waits for it is part of the measurement.
        configuration.write_text(
            f'host: {HOST}\nport: {self._port}\nmax_pending: 1GB\nwrite_deadline: "60s"\n'
            f'jetstream {{ store_dir: "{self._folder}" }}\n',
            encoding="utf-8",
        )
        with (self._folder / "nats.log").open("wb") as output:
            self._process = ChildProcess(
                [str(program), "-c", str(configuration)],
                account=None,
                directory=self._folder,
                death_signal=signal.SIGKILL,
                output=output,
            )
        for _ in range(_LOOKS):
            if _listens(self._port):
                return
            await clock.sleep(_LOOK_SECONDS)
        raise ConfigurationError(f"nats-server does not listen on {self.url}")

    def stop(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.stop((signal.SIGTERM, 5.0))


def _listens(port: int) -> bool:
    try:
        socket.create_connection((HOST, port), timeout=1.0).close()
    except OSError:
        return False
    return True
