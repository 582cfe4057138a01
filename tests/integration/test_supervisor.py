"""The supervisor over real child processes: order, restarts, ends of a run, and nothing left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import textwrap
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from infrastructure.supervisor.plan import Program, Running
from infrastructure.supervisor.restart_policy import RestartPolicy
from infrastructure.supervisor.supervisor import ProgramState, ProgramStatus, Supervisor
from shared.backoff import Backoff
from shared.clock import SystemClock
from shared.errors import ConfigurationError, DeadlineExceededError, QuantumTraderError
from tests.support.dummy_plan import dummy, journal
from tests.support.eventually import eventually

ROOT = Path(__file__).resolve().parents[2]


@asynccontextmanager
async def supervised(
    programs: Sequence[Program], on_change: Callable[[ProgramStatus], None] = lambda _: None
) -> AsyncIterator[Supervisor]:
    supervisor = Supervisor(programs, clock=SystemClock(), on_change=on_change)
    try:
        yield supervisor
    finally:
        await supervisor.stop()


def pid_of(supervisor: Supervisor, name: str) -> int:
    pid = supervisor.statuses()[name].pid
    assert pid is not None
    return pid


async def test_programs_start_after_what_they_need_and_stop_before_it(tmp_path: Path) -> None:
    programs = [
        dummy("service", tmp_path, depends_on=("redis", "exchange")),
        dummy("exchange", tmp_path, depends_on=("redis",)),
        dummy("redis", tmp_path),
    ]

    async with supervised(programs) as supervisor:
        await supervisor.start()
        assert journal(tmp_path) == ["ready redis", "ready exchange", "ready service"]
        assert {status.state for status in supervisor.statuses().values()} == {ProgramState.READY}

    assert journal(tmp_path)[3:] == ["stopped service", "stopped exchange", "stopped redis"]
    assert {status.state for status in supervisor.statuses().values()} == {ProgramState.STOPPED}


async def test_a_killed_program_comes_back_and_is_counted(tmp_path: Path) -> None:
    seen: list[ProgramState] = []
    async with supervised([dummy("service", tmp_path)], lambda status: seen.append(status.state)) as supervisor:
        await supervisor.start()
        first = pid_of(supervisor, "service")
        seen.clear()

        os.kill(first, signal.SIGKILL)

        await eventually(lambda: ProgramState.READY in seen, what="ready again")
        assert seen[0] is ProgramState.RESTARTING
        assert supervisor.statuses()["service"].restarts == 1
        assert pid_of(supervisor, "service") != first


async def test_a_program_that_dies_on_its_way_up_is_tried_again(tmp_path: Path) -> None:
    async with supervised([dummy("service", tmp_path, behaviour="crash-once")]) as supervisor:
        await supervisor.start()

        assert supervisor.statuses()["service"].restarts == 1


async def test_too_many_deaths_end_the_run_with_the_last_words(tmp_path: Path) -> None:
    async with supervised([dummy("service", tmp_path, behaviour="crash")]) as supervisor:
        with pytest.raises(QuantumTraderError, match=r"service ended with exit code 1 .* 3 times .* out of luck"):
            await supervisor.start()

        assert supervisor.statuses()["service"].state is ProgramState.FAILED


async def test_a_wrong_setting_ends_the_run_at_once_with_its_own_line(tmp_path: Path) -> None:
    programs = [dummy("redis", tmp_path), dummy("service", tmp_path, behaviour="misconfigured")]
    async with supervised(programs) as supervisor:
        with pytest.raises(ConfigurationError, match=r"^QT_SPEED='fast' is no number$"):
            await supervisor.start()

        assert supervisor.statuses()["service"].restarts == 0
    assert journal(tmp_path)[-1:] in (["stopped redis"], [])


async def test_a_program_that_may_not_be_restarted_ends_the_run(tmp_path: Path) -> None:
    only_life = RestartPolicy(max_restarts=0, irreplaceable_because="its order book is lost")
    async with supervised([dummy("paper-exchange", tmp_path, restart=only_life)]) as supervisor:
        await supervisor.start()

        os.kill(pid_of(supervisor, "paper-exchange"), signal.SIGKILL)

        with pytest.raises(QuantumTraderError, match="paper-exchange was ended by signal 9; its order book is lost"):
            await supervisor.failed()


async def test_a_program_that_never_gets_ready_ends_the_start(tmp_path: Path) -> None:
    async with supervised([dummy("service", tmp_path, behaviour="hang", start_timeout_seconds=0.3)]) as supervisor:
        with pytest.raises(DeadlineExceededError, match="service was not ready within"):
            await supervisor.start()


async def test_a_program_that_cannot_even_be_launched_ends_the_run(tmp_path: Path) -> None:
    async def launch() -> Running:
        raise LookupError("no such thing")

    programs = [dummy("redis", tmp_path), replace(dummy("service", tmp_path), launch=launch)]
    async with supervised(programs) as supervisor:
        with pytest.raises(QuantumTraderError, match="service could not be started: LookupError: no such thing"):
            await supervisor.start()


async def test_a_stubborn_program_is_killed_after_its_grace(tmp_path: Path) -> None:
    async with supervised([dummy("service", tmp_path, behaviour="stubborn", grace_seconds=0.2)]) as supervisor:
        await supervisor.start()
        pid = pid_of(supervisor, "service")

    assert not psutil.pid_exists(pid)


async def test_what_a_program_started_itself_goes_with_it(tmp_path: Path) -> None:
    async with supervised([dummy("service", tmp_path, behaviour="parent")]) as supervisor:
        await supervisor.start()
        grandchild = int((tmp_path / "service.child").read_text())
        assert psutil.pid_exists(grandchild)

    await eventually(lambda: not is_running(grandchild), what="grandchild gone")


async def test_a_program_ended_on_purpose_stays_down(tmp_path: Path) -> None:
    programs = [dummy("redis", tmp_path), dummy("service", tmp_path)]
    async with supervised(programs) as supervisor:
        await supervisor.start()

        await supervisor.stop_program("service")

        statuses = supervisor.statuses()
        assert (statuses["service"].state, statuses["service"].restarts) == (ProgramState.STOPPED, 0)
        assert statuses["redis"].state is ProgramState.READY


async def test_stopping_while_a_program_waits_for_its_next_launch_does_not_wait(tmp_path: Path) -> None:
    patient = RestartPolicy(backoff=Backoff(base_seconds=3600.0, cap_seconds=3600.0))
    async with supervised([dummy("service", tmp_path, restart=patient)]) as supervisor:
        await supervisor.start()
        os.kill(pid_of(supervisor, "service"), signal.SIGKILL)
        await eventually(
            lambda: supervisor.statuses()["service"].state is ProgramState.RESTARTING, what="waiting for its restart"
        )

    assert supervisor.statuses()["service"].state is ProgramState.STOPPED


async def test_nothing_survives_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    script = textwrap.dedent(
        f"""
        import asyncio, pathlib
        from infrastructure.supervisor.supervisor import Supervisor
        from shared.clock import SystemClock
        from tests.support.dummy_plan import dummy

        async def main():
            folder = pathlib.Path({str(tmp_path)!r})
            plan = [dummy("redis", folder), dummy("service", folder, depends_on=("redis",), behaviour="stubborn")]
            supervisor = Supervisor(plan, clock=SystemClock())
            await supervisor.start()
            (folder / "pids").write_text(" ".join(str(status.pid) for status in supervisor.statuses().values()))
            await supervisor.failed()

        asyncio.run(main())
        """
    )
    killed = await asyncio.create_subprocess_exec(sys.executable, "-c", script, cwd=ROOT)
    pids = [int(pid) for pid in (await eventually(lambda: _text_of(tmp_path / "pids"), what="both ready")).split()]
    assert all(is_running(pid) for pid in pids)

    killed.kill()
    await killed.wait()

    await eventually(lambda: not any(is_running(pid) for pid in pids), what="children gone")


def _text_of(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
