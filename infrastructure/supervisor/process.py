"""One child process with its log file: launched, waited for, ended together with everything it started."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from infrastructure.embedded import launcher
from infrastructure.supervisor.last_words import last_words
from infrastructure.supervisor.plan import Launch, Running

#: In place of a user or group id: stay who we are.
_SAME_USER = "-1"


class ChildProcess:
    """A process of our own that leads its own session.

    The session keeps the terminal's Ctrl-C away from it (the supervisor decides the order of stopping) and
    names everything that it starts itself, so that nothing of it stays behind.
    """

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self._process = process
        self._log = log

    @property
    def pid(self) -> int:
        return self._process.pid

    async def wait(self) -> int:
        return await self._process.wait()

    async def stop(self, grace_seconds: float) -> None:
        self._signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(grace_seconds):
                await self._process.wait()
        except TimeoutError:
            pass
        # Also when it ended well: what it started and forgot goes with it.
        self._signal_session(signal.SIGKILL)
        await self._process.wait()

    def last_words(self) -> str:
        return last_words(self._log)

    def _signal(self, number: signal.Signals) -> None:
        if self._process.returncode is None:
            self._process.send_signal(number)

    def _signal_session(self, number: signal.Signals) -> None:
        try:
            os.killpg(self._process.pid, number)
        except (ProcessLookupError, PermissionError):
            return


def command_launcher(
    argv: Sequence[str], *, environment: Mapping[str, str], log: Path, working_directory: Path | None = None
) -> Launch:
    """Return a launcher that runs ``argv`` with exactly ``environment``; both its outputs are appended to ``log``.

    The process dies with the thread that launches it, hence with this process, even when this one is killed.

    Args:
        argv: Program (absolute path) and arguments.
        environment: All that the process sees.
        log: Made when missing.
        working_directory: None for ours.
    """

    async def launch() -> Running:
        with log.open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                *_tied_to_this_process(argv),
                env=dict(environment),
                cwd=working_directory,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        return ChildProcess(process, log)

    return launch


def _tied_to_this_process(argv: Sequence[str]) -> list[str]:
    """Return ``argv`` behind the launcher that asks the kernel to kill the program when we end."""
    tie = (str(os.getpid()), _SAME_USER, _SAME_USER, str(int(signal.SIGKILL)))
    return [sys.executable, "-I", "-S", launcher.__file__, *tie, *argv]
