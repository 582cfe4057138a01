"""An embedded Redis or PostgreSQL as one program of a plan."""

from __future__ import annotations

from infrastructure.embedded.embedded_server import EmbeddedServer
from infrastructure.supervisor.last_words import last_words
from infrastructure.supervisor.plan import Program, Running
from shared.clock import Clock

#: Seconds between two looks at whether the server still lives.
_LOOK_INTERVAL_SECONDS = 0.2


class _RunningServer:
    """A started server until its process ends."""

    def __init__(self, server: EmbeddedServer, clock: Clock) -> None:
        self._server = server
        self._clock = clock
        self._pid = server.process_id or 0

    @property
    def pid(self) -> int:
        return self._pid

    async def wait(self) -> int:
        while self._server.running:
            await self._clock.sleep(_LOOK_INTERVAL_SECONDS)
        return 1

    async def stop(self, grace_seconds: float) -> None:
        # Each server knows itself how long its data needs.
        await self._server.stop()

    def last_words(self) -> str:
        return last_words(self._server.folder / f"{self._server.name}.log")


def embedded_program(server: EmbeddedServer, clock: Clock) -> Program:
    """Return the plan's line for ``server``; it is ready when its start returns."""

    async def launch() -> Running:
        await server.start()
        return _RunningServer(server, clock)

    async def ready() -> bool:
        return server.running

    return Program(name=server.name, launch=launch, ready=ready)
