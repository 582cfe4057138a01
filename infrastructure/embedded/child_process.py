"""Children that run unprivileged and die with this process, even when it is killed with SIGKILL."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, TypeVar

import psutil

from infrastructure.embedded.account import Account

T = TypeVar("T")
_LAUNCHER = Path(__file__).with_name("launcher.py")


class ChildProcess:
    """A server program that this process started.

    Args:
        command: Program (absolute path) and arguments.
        account: User to run as; None to stay who we are.
        directory: Working folder, which must be reachable for ``account``.
        death_signal: What the kernel sends to the child when this process ends in any way.
        output: Where its stdout and stderr go.
        input_text: What it reads on stdin: the way for secrets, which arguments would show to everyone.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        account: Account | None,
        directory: Path,
        death_signal: signal.Signals,
        output: BinaryIO | None,
        input_text: str = "",
    ) -> None:
        uid, gid = (account.uid, account.gid) if account else (-1, -1)
        launch = [sys.executable, "-I", "-S", str(_LAUNCHER)]
        launch += [str(number) for number in (os.getpid(), uid, gid, int(death_signal))]
        self._process = _in_lasting_thread(
            lambda: subprocess.Popen(  # noqa: S603 - argument list, no shell
                [*launch, *command],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT if output else None,
                cwd=directory,
                # Nothing of our environment: it holds the keys of the exchange.
                env={"LC_ALL": "C", "TZ": "UTC", "PATH": os.defpath},
                # Out of the terminal's group: Ctrl-C reaches us, and we stop the servers when nobody needs them.
                start_new_session=True,
            )
        )
        self._write_input(input_text)

    @property
    def pid(self) -> int:
        """Process id; the program's own, because the launcher becomes the program."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """How it ended, negative for a signal; None while it runs."""
        return self._process.poll()

    def ended_within(self, seconds: float) -> bool:
        """Wait up to ``seconds`` for its end and tell whether it came."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def stop(self, *steps: tuple[signal.Signals, float]) -> None:
        """Send each signal in turn, waiting the given seconds after it, until the process has ended."""
        for step, seconds in (*steps, (signal.SIGKILL, 10.0)):
            if not self.running:
                return
            self._process.send_signal(step)
            if self.ended_within(seconds):
                return

    def _write_input(self, text: str) -> None:
        stdin = self._process.stdin
        assert stdin is not None
        with suppress(BrokenPipeError):  # it ended already; whoever waits for it will see that
            stdin.write(text.encode())
            stdin.flush()
        with suppress(BrokenPipeError):
            stdin.close()


def end_leftover(pid_file: Path, directory: Path, stop_signal: signal.Signals) -> None:
    """End a server of an earlier life that still runs in ``directory``, and remove its pid file.

    The caller holds the lock of the folder, so whatever still runs there has lost its parent. A pid in the file that
    now belongs to someone else is left alone: the working folder tells.
    """
    with suppress(OSError, ValueError, IndexError, psutil.Error):
        process = psutil.Process(int(pid_file.read_text(encoding="utf-8").split()[0]))
        if Path(process.cwd()) == directory:
            process.send_signal(stop_signal)
            _wait_then_kill(process)
    pid_file.unlink(missing_ok=True)


def _wait_then_kill(process: psutil.Process) -> None:
    try:
        process.wait(10.0)
    except psutil.TimeoutExpired:
        process.kill()
        process.wait(10.0)


class _LastingThread:
    """A thread that lives until the process ends.

    The kernel sends the death signal when the *thread* that forked ends, so a child that a short-lived worker thread
    started would die with that thread.
    """

    def __init__(self) -> None:
        self.process_id = os.getpid()
        self._work: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        threading.Thread(target=self._run, name="child-starter", daemon=True).start()

    def run(self, work: Callable[[], T]) -> T:
        result: Future[T] = Future()

        def carry_out() -> None:
            try:
                result.set_result(work())
            except BaseException as error:  # noqa: BLE001 - raised again where it was asked for
                result.set_exception(error)

        self._work.put(carry_out)
        return result.result()

    def _run(self) -> None:
        while True:
            self._work.get()()


_guard = threading.Lock()
_threads: list[_LastingThread] = []


def _in_lasting_thread(work: Callable[[], T]) -> T:
    with _guard:
        # A fork copies the list but not the thread.
        if not _threads or _threads[0].process_id != os.getpid():
            _threads[:] = [_LastingThread()]
        thread = _threads[0]
    return thread.run(work)
