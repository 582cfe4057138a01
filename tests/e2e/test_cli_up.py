"""A system that a user starts, looks at, and stops; and the ways in which it ends by itself."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

from tests.support.command_line import run_command, start_command
from tests.support.eventually import eventually
from tests.support.live_run import LiveRun

pytestmark = [pytest.mark.timeout(240), pytest.mark.xdist_group("whole-runs")]

PROGRAMS = ("redis", "postgres", "paper-exchange", "analytics-os-service", "exec-risk-service", "ai-service")


@asynccontextmanager
async def up(folder: Path, *options: str, environment: Mapping[str, str] | None = None) -> AsyncIterator[LiveRun]:
    """Start one market of the made-up kind; what still runs at the end is stopped."""
    command = await start_command(
        *("up", "--symbols", "BTC/USDT:USDT", "--port-base", "0", *options), cwd=folder, environment=environment
    )
    try:
        yield LiveRun(command, folder / "var")
    finally:
        await command.stop()


def pids(live: LiveRun) -> dict[str, int]:
    """Return the processes that run by now, children of programs included."""
    programs = live.state().get("programs", {})
    found = {name: entry["pid"] for name, entry in programs.items() if entry["pid"]}
    for name, pid in list(found.items()):
        try:
            found |= {f"{name} {child.pid}": child.pid for child in psutil.Process(pid).children(recursive=True)}
        except psutil.NoSuchProcess:
            continue
    return found


def still_running(processes: Mapping[str, int]) -> list[str]:
    """Return the names of processes that are alive; a zombie is dead and only waits for its parent."""
    alive = []
    for name, pid in processes.items():
        try:
            if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                alive.append(name)
        except psutil.NoSuchProcess:
            continue
    return alive


async def test_a_system_can_be_looked_at_while_it_runs_and_stops_cleanly(tmp_path: Path) -> None:
    async with up(tmp_path, "--speed", "3600", "--json") as live:
        await live.ready()
        processes = pids(live)

        status = (await run_command("status", "--json", cwd=tmp_path)).json()
        assert tuple(status["services"]) == PROGRAMS
        assert {entry["state"] for entry in status["services"].values()} == {"READY"}
        assert {entry["restarts"] for entry in status["services"].values()} == {0}
        assert status["services"]["ai-service"]["health"] in ("OK", "DEGRADED")
        secret = live.state()["urls"]["postgres"].split(":")[2].split("@")[0]
        assert secret not in json.dumps(status)

        shown = await run_command("status", cwd=tmp_path)
        assert shown.exit_code == 0
        assert all(program in shown.stdout for program in PROGRAMS)

        second = await run_command("up", "--port-base", "0", cwd=tmp_path)
        assert second.exit_code == 1
        assert status["run_id"] in second.stderr

        await eventually(lambda: archived(tmp_path, "candle.closed"), what="an archived candle")

        following = await start_command("events", "--follow", "--json", cwd=tmp_path)
        await eventually(lambda: has_connected(following.pid), what="a reader of the archive")
        following.send(signal.SIGINT)
        followed = await following.ended()
        assert (followed.exit_code, followed.stderr) == (0, "")

        live.command.send(signal.SIGINT)
        finished = await live.command.ended()

    assert finished.exit_code == 0, finished.stderr
    assert finished.json()["run_id"] == status["run_id"]
    assert still_running(processes) == []
    assert (await run_command("status", cwd=tmp_path)).exit_code == 3
    # Without a running system the archive is read through an embedded server of its own.
    assert await archived(tmp_path, "candle.closed")


def has_connected(pid: int) -> bool:
    return any(connection.status == psutil.CONN_ESTABLISHED for connection in psutil.Process(pid).net_connections())


async def archived(folder: Path, event_type: str) -> bool:
    listed = await run_command("events", "--type", event_type, "--limit", "3", "--json", cwd=folder)
    assert listed.exit_code in (0, 1), listed.stderr
    return listed.exit_code == 0 and {event["event_type"] for event in listed.json_lines()} == {event_type}


def trains(processes: Mapping[str, int]) -> bool:
    return any(name.startswith("ai-service ") for name in processes)


async def test_nothing_survives_when_the_supervisor_is_killed(tmp_path: Path) -> None:
    async with up(tmp_path) as live:
        await eventually(lambda: live.state().get("programs", {}).get("ai-service", {}).get("pid"), timeout=100.0)
        # ai-service starts a process of its own for the training, which must not stay behind either.
        await eventually(lambda: trains(pids(live)), timeout=60.0, what="the training")
        processes = pids(live)
        assert processes.keys() > set(PROGRAMS)

        os.kill(live.command.pid, signal.SIGKILL)

        await eventually(lambda: not still_running(processes), what="every process gone")
    # What the killed run left behind does not keep the next one out.
    assert (await run_command("status", cwd=tmp_path)).exit_code == 3


async def test_an_interrupted_timed_run_says_so_and_leaves_nothing(tmp_path: Path) -> None:
    async with up(tmp_path, "--for", "600", "--json") as live:
        await eventually(lambda: {"redis", "postgres"} <= pids(live).keys(), timeout=60.0)
        processes = pids(live)

        live.command.send(signal.SIGTERM)
        finished = await live.command.ended()

    assert finished.exit_code == 130
    assert finished.stdout == ""
    assert finished.stderr.splitlines()[-1] == "interrupted before the report"
    assert still_running(processes) == []


async def test_the_death_of_the_exchange_ends_the_run_with_one_clear_line(tmp_path: Path) -> None:
    async with up(tmp_path) as live:
        await eventually(lambda: live.pid("paper-exchange"), timeout=60.0, what="the exchange")
        live.kill("paper-exchange")

        finished = await live.command.ended()

    assert finished.exit_code == 1
    last = finished.stderr.splitlines()[-1]
    assert last.startswith("quantum-trader: paper-exchange was ended by signal 9; its orders and positions are lost")


async def test_a_setting_that_a_service_refuses_ends_the_run_with_that_services_line(tmp_path: Path) -> None:
    async with up(tmp_path, environment={"LOG_LEVEL": "loud"}) as live:
        finished = await live.command.ended()

    assert finished.exit_code == 4, finished.stderr
    assert "LOG_LEVEL=loud" in finished.stderr.splitlines()[-1]
    assert "Traceback" not in finished.stderr


async def test_the_doctor_finds_nothing_on_a_machine_that_runs_the_tests(tmp_path: Path) -> None:
    examined = await run_command("doctor", "--json", cwd=tmp_path)

    checks = {check["check"]: check["verdict"] for check in examined.json()["checks"]}
    assert {"python", "packages", "redis", "postgres", "ports", "state folder", "settings", "disk"} <= checks.keys()
    # Ports 8001 and up may be in use on the machine of a developer.
    assert {name: verdict for name, verdict in checks.items() if verdict == "fail" and name != "ports"} == {}


async def test_the_doctor_names_what_is_wrong_and_what_to_do(tmp_path: Path) -> None:
    wrong = {"REDIS_URL": "redis://127.0.0.1:1/0", "LOG_LEVEL": "loud"}

    as_json, shown = await asyncio.gather(
        run_command("doctor", "--json", cwd=tmp_path, environment=wrong),
        run_command("doctor", cwd=tmp_path, environment=wrong),
    )

    assert as_json.exit_code == shown.exit_code == 1
    checks = {check["check"]: check for check in as_json.json()["checks"]}
    assert checks["redis"]["verdict"] == checks["settings"]["verdict"] == "fail"
    assert "LOG_LEVEL=loud" in checks["settings"]["detail"]
    assert all(check["advice"] for check in checks.values() if check["verdict"] == "fail")
    assert "fail" in shown.stdout
