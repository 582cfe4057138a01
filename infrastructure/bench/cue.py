"""What the process of a contestant is told, and what it tells: lines of JSON on its stdin and stdout."""

from __future__ import annotations

import asyncio
import json
import os
import queue
import resource
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, TextIO

#: Time between two looks at whether something is done; far below what a round takes.
_LOOK_SECONDS = 0.002


class Cue:
    """One worker's side of the conversation.

    Its course: options come in, the worker prepares and says ``ready``, ``go`` comes in, it works, it tells its
    result. A worker that cannot know when its work is done asks ``expected``. When the other side goes away, the
    process ends at once.

    Attributes:
        options: What this worker is asked to do.
    """

    def __init__(self, inbox: int, outbox: TextIO) -> None:
        self._inbox = inbox
        self._outbox = outbox
        self._lines: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._expected: int | None = None
        self._began = (0.0, 0.0)
        threading.Thread(target=self._listen, name="cue", daemon=True).start()
        self.options: Mapping[str, Any] = self._lines.get()

    def wait_for_start(self, **facts: Any) -> None:
        """Say that everything is prepared, with ``facts`` that others need, and wait for the start."""
        self._say({"ready": facts})
        self._lines.get()
        self._began = _processor_seconds()

    async def started(self, **facts: Any) -> None:
        """Do what ``wait_for_start`` does without blocking the loop."""
        await asyncio.to_thread(self.wait_for_start, **facts)

    @property
    def expected(self) -> int | None:
        """How many events there are in all; None as long as nobody knows."""
        return self._expected

    async def until(self, done: Callable[[int], bool]) -> None:
        """Wait until ``done`` says so, asked again and again with the number of events that are expected.

        It is not asked before that number is known.
        """
        while self._expected is None or not done(self._expected):  # noqa: ASYNC110 - rivals set no event
            await asyncio.sleep(_LOOK_SECONDS)

    def pause(self, seconds: float) -> None:
        """Wait, when ``seconds`` is above 0: for workers without a loop."""
        if seconds > 0:
            threading.Event().wait(seconds)

    def tell(self, result: Mapping[str, Any]) -> None:
        """Tell the result, with the processor time since the start."""
        user, system = (now - then for now, then in zip(_processor_seconds(), self._began, strict=True))
        self._say({"result": {**result, "user_seconds": user, "system_seconds": system}})

    def _listen(self) -> None:
        rest = b""
        # Unbuffered: a buffered reader keeps a lock that the interpreter wants when it ends.
        while received := os.read(self._inbox, 65536):
            *lines, rest = (rest + received).split(b"\n")
            for line in lines:
                self._hear(json.loads(line))
        os._exit(1)  # nobody is left to tell

    def _hear(self, message: dict[str, Any]) -> None:
        if "expected" in message:
            self._expected = message["expected"]
        else:
            self._lines.put(message)

    def _say(self, message: Mapping[str, Any]) -> None:
        self._outbox.write(json.dumps(message) + "\n")
        self._outbox.flush()


def open_cue() -> Cue:
    """Return the cue of this process; from here on ``print`` goes to stderr."""
    outbox = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return Cue(sys.stdin.fileno(), outbox)


def seconds_now() -> float:
    """Return seconds on the machine's monotonic clock, which all processes share."""
    return time.monotonic()


def _processor_seconds() -> tuple[float, float]:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime, usage.ru_stime
