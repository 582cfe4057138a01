"""One ``quantum-trader up`` from the first check to the last process gone."""

from __future__ import annotations

import asyncio
import os
import platform
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from importlib.metadata import version
from typing import Any

from infrastructure.cli import exit_codes
from infrastructure.cli.output import write_json
from infrastructure.cli.progress import Progress, progress_for
from infrastructure.cli.quiet_logs import silence_logs
from infrastructure.cli.report_view import show_report
from infrastructure.cli.training_watch import watch_training
from infrastructure.paper_exchange.candle_sources import open_source
from infrastructure.supervisor.conclusion import conclude
from infrastructure.supervisor.http_client import LocalHttp
from infrastructure.supervisor.market_start import market_start
from infrastructure.supervisor.paper_run import AI, PaperRun, RunOptions
from infrastructure.supervisor.ports import choose_ports
from infrastructure.supervisor.run_directory import create_run_directory, new_run_id
from infrastructure.supervisor.run_state import RunState, StateFile, own_start_time, with_program
from infrastructure.supervisor.supervisor import ProgramStatus, Supervisor
from shared.clock import Clock, ClockOrigin, SystemClock
from shared.ids import RandomIds


async def run_up(
    options: RunOptions, *, environment: Mapping[str, str], run_seconds: float | None, as_json: bool
) -> int:
    """Carry out one ``up`` and return its exit code.

    Raises:
        QuantumTraderError: The run could not start, or a program ended it.
    """
    silence_logs()
    clock, http, progress = SystemClock(), LocalHttp(), progress_for(sys.stderr)
    state_file = StateFile(options.state_dir)
    state_file.acquire()
    try:
        run = _prepare(options, environment=environment, run_seconds=run_seconds, clock=clock, http=http)
        session = RunSession(run, state_file=state_file, clock=clock, http=http, progress=progress)
        return await session.live(run_seconds, as_json=as_json)
    finally:
        progress.close()
        await http.close()
        state_file.release()


def _prepare(
    options: RunOptions,
    *,
    environment: Mapping[str, str],
    run_seconds: float | None,
    clock: Clock,
    http: LocalHttp,
) -> PaperRun:
    """Look at everything that can be wrong before the first process starts, then set the market's clock."""
    ports = choose_ports(options.port_base, environment)
    source = open_source(options.candles, options.symbols, options.timeframe, seed=options.seed)
    start = market_start(source, speed=options.speed, run_seconds=run_seconds)
    run_id = new_run_id(clock, RandomIds())
    directory = create_run_directory(options.state_dir, run_id)
    ClockOrigin(wall=clock.now(), market=start, rate=options.speed).save(directory.clock_file)
    return PaperRun(
        options,
        run_id=run_id,
        directory=directory,
        ports=ports,
        environment=environment,
        clock=clock,
        http=http,
    )


class RunSession:
    """Keeps one run alive and tells about it: to people, and to other commands through the state file."""

    def __init__(
        self, run: PaperRun, *, state_file: StateFile, clock: Clock, http: LocalHttp, progress: Progress
    ) -> None:
        self._run = run
        self._state_file = state_file
        self._clock = clock
        self._http = http
        self._progress = progress
        self._state = _first_state(run, clock)
        self._supervisor = Supervisor(run.programs(), clock=clock, on_change=self._changed)

    async def live(self, run_seconds: float | None, *, as_json: bool) -> int:
        """Start, work, stop; return the exit code."""
        loop = asyncio.get_running_loop()
        work = asyncio.create_task(self._work(run_seconds, as_json=as_json))
        failed = asyncio.create_task(self._supervisor.failed())
        heard = _stop_signals()
        for number in heard:
            loop.add_signal_handler(number, work.cancel)
        try:
            await asyncio.wait((work, failed), return_when=asyncio.FIRST_COMPLETED)
        finally:
            # From here on a second Ctrl-C ends this process at once, and the kernel ends the others.
            for number in heard:
                loop.remove_signal_handler(number)
            await self._stop(work, failed)
        if failed.done() and not failed.cancelled():
            failed.result()
        if not work.cancelled():
            return work.result()
        if run_seconds is not None:
            self._progress.say("interrupted before the report")
            return exit_codes.INTERRUPTED
        if as_json:
            write_json({"run_id": self._state.run_id, "services": self._state.programs})
        return exit_codes.OK

    async def _work(self, run_seconds: float | None, *, as_json: bool) -> int:
        self._progress.say(f"run {self._state.run_id}; logs in {self._state.run_dir}/logs")
        await self._start()
        self._update(phase="ready")
        self._show_urls(run_seconds)
        if run_seconds is None:
            await asyncio.Event().wait()
        assert run_seconds is not None
        await self._clock.sleep(run_seconds)
        self._progress.say("time is up: no new signals; waiting for what is under way, then comparing the books")
        report = await conclude(self._run, self._supervisor, http=self._http, clock=self._clock)
        show_report(report, as_json=as_json, progress=self._progress)
        return exit_codes.OK if report.is_good else exit_codes.ERROR

    async def _start(self) -> None:
        training = asyncio.create_task(
            watch_training(self._http, self._run.service_urls[AI], progress=self._progress, clock=self._clock)
        )
        try:
            await self._supervisor.start()
        finally:
            training.cancel()
            await asyncio.gather(training, return_exceptions=True)

    async def _stop(self, *tasks: asyncio.Task[Any]) -> None:
        self._update(phase="stopping")
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._supervisor.stop()

    def _show_urls(self, run_seconds: float | None) -> None:
        urls = self._run.service_urls
        rows = [(name, status.state.value, urls.get(name, "")) for name, status in self._supervisor.statuses().items()]
        self._progress.table("Quantum Trader is running on paper", ("process", "state", "url"), rows)
        until = "Ctrl-C stops everything" if run_seconds is None else f"a report follows in {run_seconds:g} s"
        self._progress.say(f"{until}; see also: quantum-trader status, quantum-trader events --follow")

    def _changed(self, status: ProgramStatus) -> None:
        self._progress.changed(status)
        entry = {"state": status.state.value, "pid": status.pid, "restarts": status.restarts}
        self._state = with_program(self._state, status.name, entry)
        self._update(urls=self._run.urls)

    def _update(self, **changes: Any) -> None:
        self._state = replace(self._state, **changes)
        # A full disk must not end a run that trades; the next change tries again.
        with suppress(OSError):
            self._state_file.write(self._state)


def _stop_signals() -> list[signal.Signals]:
    """Return the signals that stop a run; a hang-up only where nobody asked to ignore it, as nohup does."""
    hang_up = [] if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else [signal.SIGHUP]
    return [signal.SIGINT, signal.SIGTERM, *hang_up]


def _first_state(run: PaperRun, clock: Clock) -> RunState:
    options = run.options
    return RunState(
        pid=os.getpid(),
        pid_started=own_start_time(),
        run_id=run.run_id,
        run_dir=str(run.directory.path.absolute()),
        phase="starting",
        started_at=clock.now().isoformat(),
        settings={
            "trading_mode": "paper",
            "candles": options.candles,
            "symbols": list(options.symbols),
            "timeframe": options.timeframe,
            "speed": options.speed,
            "seed": options.seed,
        },
        urls=run.urls,
        versions={"quantum_trader": version("quantum-trader"), "python": platform.python_version()},
    )
