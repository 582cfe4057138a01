"""The processes of a chaos test: started, killed, frozen, thawed, started again; none outlives its test."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from infrastructure.embedded.child_process import ChildProcess
from tests.support.chaos_books import Effects, Findings, compare
from tests.support.chaos_consumer import ConsumerOrder
from tests.support.chaos_publisher import PublisherOrder, PublisherStatus
from tests.support.eventually import eventually

_ROOT = Path(__file__).parents[2]
#: A Python process with our imports, on a busy machine.
START_SECONDS = 60.0
_STOP_SECONDS = 30.0


class Program:
    """One of our programs, through as many lives as a test gives it."""

    def __init__(self, module: str, order: dict[str, Any], log: Path) -> None:
        self._module = module
        self._order = order
        self._log = log
        self._process: ChildProcess | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.running

    def launch(self) -> None:
        """Start a new life."""
        assert not self.running
        with self._log.open("ab") as log:
            self._process = ChildProcess(
                [sys.executable, "-m", self._module],
                account=None,
                directory=_ROOT,
                death_signal=signal.SIGKILL,
                output=log,
                input_text=json.dumps(self._order),
            )

    def freeze(self) -> None:
        """Let it stand still, as if the machine had forgotten it."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        os.kill(self.pid, signal.SIGCONT)

    async def kill(self) -> None:
        """End it without a word, and wait until it is gone."""
        assert self._process is not None
        await asyncio.to_thread(self._process.stop)

    async def stop(self) -> None:
        """Ask it to end; fail when it does not end well."""
        assert self._process is not None
        await asyncio.to_thread(self._process.stop, (signal.SIGTERM, _STOP_SECONDS))
        assert self._process.exit_code == 0, self.last_words()

    def require_alive(self) -> None:
        """Fail with its last words when it ended."""
        assert self.running, self.last_words()

    def last_words(self) -> str:
        """Return how it ended and the end of its log."""
        code = self._process.exit_code if self._process is not None else None
        return f"{self._module} ended with {code}: {self._log.read_text(errors='replace')[-2000:]}"


class PublisherProgram(Program):
    """``chaos_publisher`` with its ledger."""

    def __init__(self, order: PublisherOrder) -> None:
        super().__init__("tests.support.chaos_publisher", asdict(order), Path(order.folder) / f"{order.name}.log")
        self.order = order
        self.ledger = order.ledger

    def status(self) -> PublisherStatus:
        """Return what it told last."""
        return PublisherStatus.load(self.order.status_file)

    async def has_told(self, count: int) -> None:
        """Wait until ``count`` events are published as far as it knows."""
        await self.until(lambda: self.ledger.count() >= count, f"{count} published events")

    async def goes_on(self, count: int = 100) -> None:
        """Wait until it was told of ``count`` events more than now."""
        await self.has_told(min(self.ledger.count() + count, self.order.total))

    async def until(self, condition: Any, what: str, timeout: float = 120.0) -> None:
        """Wait for ``condition`` for as long as the program lives."""

        def probe() -> bool:
            if condition():
                return True
            self.require_alive()
            return False

        await eventually(probe, timeout=timeout, what=f"{self.order.name}: {what}")

    async def finished(self) -> PublisherStatus:
        """Wait until all is published and the buffer is empty."""
        await self.until(lambda: self.status().finished, "everything published and drained")
        return self.status()


class ConsumerProgram(Program):
    """``chaos_consumer`` with its effects."""

    def __init__(self, order: ConsumerOrder) -> None:
        super().__init__("tests.support.chaos_consumer", asdict(order), Path(order.folder) / f"{order.name}.log")
        self.order = order
        self.effects = Effects(order.effects_file)

    async def start(self) -> None:
        """Launch it and wait until it consumes."""
        self.launch()

        def ready() -> bool:
            self.require_alive()
            return self.effects.is_consuming(self.pid)

        await eventually(ready, timeout=START_SECONDS, what=f"{self.order.name} consuming")

    async def has_had(self, count: int, timeout: float = 120.0) -> None:
        """Wait until its service had ``count`` effects."""
        await eventually(
            lambda: self.effects.count() >= count, timeout=timeout, what=f"{count} effects of {self.order.service}"
        )


class Crew:
    """All programs of one test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._programs: list[Program] = []

    def publisher(self, url: str, **order: Any) -> PublisherProgram:
        """Return a publisher that is not running yet; see ``PublisherOrder``."""
        program = PublisherProgram(PublisherOrder(url=url, folder=str(self.folder), **{"name": "publisher", **order}))
        self._programs.append(program)
        return program

    def consumer(
        self, url: str, service: str = "exec-risk-service", instance: str = "one", **order: Any
    ) -> ConsumerProgram:
        """Return a consumer that is not running yet; see ``ConsumerOrder``."""
        program = ConsumerProgram(
            ConsumerOrder(url=url, folder=str(self.folder), service=service, instance=instance, **order)
        )
        self._programs.append(program)
        return program

    async def end(self) -> None:
        """Kill what still runs."""
        for program in self._programs:
            if program.running:
                await program.kill()
            if isinstance(program, ConsumerProgram):
                program.effects.close()


def tell(figures: str) -> None:
    """Show measured figures to whoever runs the tests with ``-s``."""
    sys.stdout.write(f"\n{figures}\n")


def findings(publishers: Sequence[PublisherProgram], consumer: ConsumerProgram) -> Findings:
    """Compare what the publishers were told with the effects that the consumer's service had."""
    return compare(
        (event for publisher in publishers for event in publisher.ledger.events()), consumer.effects.events()
    )
