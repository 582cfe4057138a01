"""Every benchmark runs, with every rival, for a moment; how fast anything is decides nothing here."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import psutil
import pytest

from infrastructure.bench.benchmarks import BENCHMARKS
from infrastructure.bench.rivals.nats_program import nats_program
from infrastructure.bench.runner import run_benchmarks
from infrastructure.bench.stage import open_stage
from shared.clock import SystemClock
from tests.support.command_line import run_command, start_command
from tests.support.eventually import eventually

SECONDS = 0.2


async def test_one_row_as_the_command_line_prints_it(tmp_path: Path) -> None:
    finished = await run_command(
        *("bench", "--only", "policy_cached_read_us", "--seconds", "0.1", "--rounds", "1", "--json"), cwd=tmp_path
    )

    assert finished.exit_code == 0, finished.stderr
    (row,) = json.loads(finished.stdout)
    assert list(row)[:8] == ["name", "value", "unit", "target", "ok", "rival", "rival_value", "ratio"]
    assert row["name"] == "policy_cached_read_us"
    assert row["value"] > 0
    assert row["ratio"] == pytest.approx(row["value"] / row["rival_value"], rel=0.01)
    assert "round 1 of 1: quantum-trader" in finished.stderr


@pytest.mark.long
@pytest.mark.parametrize("name", BENCHMARKS)
async def test_every_contestant_plays_its_part(name: str) -> None:
    benchmark = BENCHMARKS[name]
    told: list[str] = []

    (row,) = await run_benchmarks([benchmark], rounds=1, seconds=SECONDS, clock=SystemClock(), tell=told.append)

    assert row.value is not None, row.notes
    assert row.value > 0
    present = {rival.name for rival in benchmark.rivals if not rival.needs_nats or nats_program() is not None}
    compared = {one.rival for one in (row.first, *row.others) if one.rival_value}
    assert compared == present, row.notes
    assert all(details["count"] > 0 for details in row.details.values())
    assert len(told) == 1 + len(present)


@pytest.mark.long
async def test_a_profile_has_a_table_per_process(tmp_path: Path) -> None:
    async with open_stage(SystemClock(), profile_to=tmp_path / "bus") as stage:
        await BENCHMARKS["bus_e2e_events_per_s"].ours.perform(stage, SECONDS)

    tables = _texts(tmp_path)
    assert set(tables) == {"bus.consumer.txt", "bus.producer-1.txt"}
    assert "publish" in tables["bus.producer-1.txt"]
    assert "decode" in tables["bus.consumer.txt"]


@pytest.mark.long
async def test_nothing_is_left_of_a_stage() -> None:
    async with open_stage(SystemClock()) as stage:
        folder, pid = stage.folder, stage.redis.process_id
        assert folder.exists()

    assert not folder.exists()
    assert pid is not None
    assert not psutil.pid_exists(pid)


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_bench_that_is_stopped_leaves_nothing(number: signal.Signals, server_folder: Path) -> None:
    folder = server_folder / f"bench-{number.name}"
    folder.mkdir()
    command = await start_command(
        *("bench", "--only", "log_lines_per_s", "--seconds", "60"), cwd=folder, environment={"TMPDIR": str(folder)}
    )
    try:
        await eventually(lambda: list(folder.glob("quantum-trader-bench-*/files")), what="the stage")
        command.send(number)
        finished = await command.ended()
    finally:
        await command.stop()

    assert finished.exit_code == 130
    assert finished.stdout == ""
    assert list(folder.iterdir()) == []


def _texts(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}
