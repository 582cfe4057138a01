"""What the embedded Redis and the embedded PostgreSQL have in common: folder, port, start, stop."""

from __future__ import annotations

import asyncio
import signal
import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, ClassVar

from infrastructure.embedded.account import unprivileged_account
from infrastructure.embedded.child_process import ChildProcess
from infrastructure.embedded.loopback import PORT_TRIES, free_port, is_busy_port, is_still_held
from infrastructure.embedded.place import Place
from infrastructure.embedded.server_log import ServerLog
from shared.errors import ConfigurationError, DeadlineExceededError, NotRunningError

_PROBE_SECONDS = 0.02
#: Longest wait for the remains of a killed server to let go of its data.
_RELEASE_SECONDS = 10.0
_RELEASE_LOOK_SECONDS = 0.2
#: Long enough for recovery after a crash on a busy day.
START_SECONDS = 120.0


class EmbeddedServer(ABC):
    """A server program on a free loopback port that needs a password.

    It runs as an unprivileged user when this process is root, and dies with this process. A second ``start``
    (after a crash, or in a later process) finds the data again; within one object the URL stays the same.

    Attributes:
        name: For logs and the supervisor.
    """

    name: ClassVar[str]
    _stop_steps: ClassVar[Sequence[tuple[signal.Signals, float]]]

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._turn = threading.Lock()
        self._place: Place | None = None
        self._process: ChildProcess | None = None
        self._port: int | None = None
        self._password = ""

    @property
    def url(self) -> str:
        """URL with the password.

        Raises:
            NotRunningError: It was never started.
        """
        if self._port is None:
            raise NotRunningError(f"the embedded {self.name} was not started")
        return self._url(self._port, self._password)

    @property
    def running(self) -> bool:
        """Whether the server process is alive."""
        return self._process is not None and self._process.running

    @property
    def process_id(self) -> int | None:
        """Process id of the server; None before the first start."""
        return self._process.pid if self._process else None

    @property
    def folder(self) -> Path:
        """Where data and log really are: the given folder, or a stand-in that the server's user can reach."""
        return self._opened_place().path

    async def start(self) -> str:
        """Start the server, wait until it answers, return its URL; does nothing when it runs.

        Raises:
            ConfigurationError: There is no program for this machine, the folder is in use or was made by another
                version, or the server refused.
            DeadlineExceededError: It was not ready in time.
        """
        return await asyncio.to_thread(self._start)

    async def stop(self) -> None:
        """End the server; its data stays. Safe to call at any time, also twice."""
        await asyncio.to_thread(self._stop)

    @abstractmethod
    def _url(self, port: int, password: str) -> str: ...

    @abstractmethod
    def _prepare(self, place: Place) -> None:
        """Make everything ready in the folder, which is locked for us."""

    @abstractmethod
    def _launch(self, place: Place, port: int, output: BinaryIO) -> ChildProcess: ...

    @abstractmethod
    def _is_ready(self, place: Place, port: int, process: ChildProcess) -> bool: ...

    def _start(self) -> str:
        with self._turn:
            if self.running:
                return self.url
            try:
                place = self._opened_place()
                place.acquire()
                self._password = place.secret("password")
                self._prepare(place)
                self._run(place)
            except OSError as error:
                self._end()
                raise ConfigurationError(
                    f"the embedded {self.name} cannot use the folder {self._directory}: {error}"
                ) from error
            except BaseException:
                self._end()
                raise
            return self.url

    def _run(self, place: Place) -> None:
        """Start on the port of the last time, or on free ones until one is not taken."""
        log = self._log(place)
        ports = [self._port] if self._port else [free_port() for _ in range(PORT_TRIES)]
        patience = round(_RELEASE_SECONDS / _RELEASE_LOOK_SECONDS)
        while ports:
            with log.open() as output:
                self._process = self._launch(place, ports[0], output)
            if self._becomes_ready(place, ports[0], self._process):
                self._port = ports[0]
                return
            if is_busy_port(log.since_start()):
                ports.pop(0)
            elif is_still_held(log.since_start()) and patience > 0:
                # The processes of a server that was killed let go of it one by one.
                patience -= 1
                threading.Event().wait(_RELEASE_LOOK_SECONDS)
            else:
                break
        raise ConfigurationError(f"the embedded {self.name} did not start: {log.reason()} (see {log.path})")

    def _becomes_ready(self, place: Place, port: int, process: ChildProcess) -> bool:
        """Wait until the server answers; False when it ended instead."""
        for _ in range(round(START_SECONDS / _PROBE_SECONDS)):
            if self._is_ready(place, port, process):
                return True
            if process.ended_within(_PROBE_SECONDS):
                return False
        raise DeadlineExceededError(f"the embedded {self.name} did not answer within {START_SECONDS:.0f} s")

    def _opened_place(self) -> Place:
        if self._place is None:
            self._place = Place(self._directory, unprivileged_account())
        return self._place

    def _log(self, place: Place) -> ServerLog:
        return ServerLog(place.path / f"{self.name}.log")

    def _stop(self) -> None:
        with self._turn:
            self._end()

    def _end(self) -> None:
        if self._process:
            self._process.stop(*self._stop_steps)
        if self._place:
            self._place.release()
