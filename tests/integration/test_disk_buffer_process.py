"""What the disk buffer promised holds when its process is killed, and when its disk is full."""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from shared.clock import SystemClock
from shared.disk_buffer import BufferedEntry, DiskBuffer
from tests.support.eventually import eventually

ROOT = Path(__file__).parents[2]
MEBIBYTE = 1024**2


class Buffer:
    """A buffer in a process of its own; see ``tests.support.buffer_program``."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the buffer, on a disk with room
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> dict[str, Any]:
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.support.buffer_program", str(self._path)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            cwd=ROOT,
        )
        return await self.answer()

    def order(self, **order: Any) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order).encode() + b"\n")

    async def answer(self) -> dict[str, Any]:
        assert self._process is not None
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        assert line, "the process ended"
        answer: dict[str, Any] = json.loads(line)
        return answer

    async def told(self, **order: Any) -> dict[str, Any]:
        self.order(**order)
        return await self.answer()

    async def kill(self) -> list[dict[str, Any]]:
        """End it without a word; return what it had told before."""
        assert self._process is not None
        assert self._process.stdout is not None
        if self._process.returncode is None:
            self._process.kill()
        rest = await self._process.stdout.read()
        await self._process.wait()
        return [json.loads(line) for line in rest.splitlines() if line.endswith(b"}")]

    async def stop(self) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.close()
        assert await self._process.wait() == 0

    def logged(self) -> list[dict[str, Any]]:
        """Return the lines of its log."""
        self._log.seek(0)
        return [json.loads(line) for line in self._log]

    def alarms(self) -> list[str]:
        return [line["event"] for line in self.logged() if "alarm" in line["event"] or "well" in line["event"]]

    def forget(self) -> None:
        self._log.close()


@pytest.fixture
async def ends() -> AsyncIterator[list[Buffer]]:
    """Buffers whose processes end with the test."""
    buffers: list[Buffer] = []
    yield buffers
    for buffer in buffers:
        await buffer.kill()
        buffer.forget()


async def entries_in(path: Path) -> list[BufferedEntry]:
    buffer = DiskBuffer(path, clock=SystemClock(), service="ai-service")
    await buffer.start()
    entries = await buffer.oldest(1_000_000)
    assert buffer.events == len(entries)
    await buffer.stop()
    return entries


# -- killed -----------------------------------------------------------------------------------------------------------


async def test_a_kill_in_the_middle_of_appends_takes_nothing_that_was_promised(
    tmp_path: Path, ends: list[Buffer]
) -> None:
    callers = 8
    promised: set[int] = set()
    generator = random.Random(7)
    for life in range(4):
        path = tmp_path / f"{life}.buffer"
        buffer = Buffer(path)
        ends.append(buffer)
        await buffer.start()
        buffer.order(append_for_ever=callers)
        promised = {(await buffer.answer())["kept"][0] for _ in range(generator.randrange(20, 800))}
        promised |= {answer["kept"][0] for answer in await buffer.kill()}

        kept = [int(one.event_id) for one in await entries_in(path)]

        assert promised <= set(kept)
        assert len(kept) == len(set(kept)), "nothing is there twice"
        assert len(kept) - len(promised) <= callers, "what was not promised was on its way"
        for caller in range(callers):
            own = [number for number in kept if number % callers == caller]
            assert own == [caller + callers * place for place in range(len(own))], "in order, without a hole"


async def test_a_killed_process_leaves_its_lock_to_the_next(tmp_path: Path, ends: list[Buffer]) -> None:
    path = tmp_path / "events.buffer"
    for life in range(3):
        buffer = Buffer(path)
        ends.append(buffer)
        assert (await buffer.start())["events"] == 2 * life
        await buffer.told(append=[10 * life + 1, 10 * life + 2], size=100)
        await buffer.told(remember=[10 * life + 3])
        await buffer.kill()

    entries = await entries_in(path)
    assert [one.event_id for one in entries] == ["1", "2", "11", "12", "21", "22"]
    assert [one.number for one in entries] == sorted({one.number for one in entries})
    after = DiskBuffer(path, clock=SystemClock(), service="ai-service")
    await after.start()
    assert [one.entry.event_id for one in await after.remembered()] == ["3", "13", "23"]
    await after.stop()


async def test_two_processes_cannot_have_one_file(tmp_path: Path, ends: list[Buffer]) -> None:
    path = tmp_path / "events.buffer"
    first, second = Buffer(path), Buffer(path)
    ends += [first, second]
    await first.start()

    with pytest.raises(AssertionError, match="the process ended"):
        await second.start()

    assert any("is held by process" in str(line) for line in second.logged())
    assert (await first.told(append=[1], size=100))["kept"] == [1]


# -- a disk that is full ----------------------------------------------------------------------------------------------


async def test_a_file_that_may_not_grow(tmp_path: Path, ends: list[Buffer]) -> None:
    """The bound on the size of files stands in for a full disk where nothing can be mounted."""
    buffer = Buffer(tmp_path / "events.buffer")
    ends.append(buffer)
    await buffer.start()

    await buffer.told(file_size=MEBIBYTE)
    kept = await fill(buffer)
    full = await buffer.told()
    await buffer.told(file_size=None)
    await is_well_again(buffer)
    kept += (await buffer.told(append=[9001], size=1000))["kept"]
    await buffer.stop()

    assert "the disk refuses" in full["alarm"]
    assert full["events"] == len(kept) - 1
    assert [int(one.event_id) for one in await entries_in(tmp_path / "events.buffer")] == kept
    assert buffer.alarms() == ["disk_buffer_alarm", "disk_buffer_well_again"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of four mebibytes."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)], capture_output=True, text=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"no small disk can be mounted here: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


async def test_a_full_disk(small_disk: Path, ends: list[Buffer]) -> None:
    path = small_disk / "events.buffer"
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(2 * MEBIBYTE))
    buffer = Buffer(path)
    ends.append(buffer)
    await buffer.start()
    kept = await fill(buffer)
    assert "the disk is full" in (full := await buffer.told())["alarm"]
    assert full["events"] == len(kept)

    # Redis is back: what goes out leaves the backlog, though the disk cannot be told.
    settled = await buffer.told(settle=10)
    assert settled["events"] == len(kept) - 10
    assert (await buffer.told(settle=5))["events"] == len(kept) - 15
    assert (await buffer.told(remember=[1, 2, 3]))["alarm"] is not None

    ballast.unlink()
    await is_well_again(buffer)
    kept = kept[15:] + (await buffer.told(append=[9001], size=1000))["kept"]
    await buffer.stop()

    assert [int(one.event_id) for one in await entries_in(path)] == kept
    assert buffer.alarms() == ["disk_buffer_alarm", "disk_buffer_well_again"]


async def test_a_kill_on_a_full_disk(small_disk: Path, ends: list[Buffer]) -> None:
    path = small_disk / "events.buffer"
    buffer = Buffer(path)
    ends.append(buffer)
    await buffer.start()
    kept = await fill(buffer)
    await buffer.kill()

    # It starts on the full disk, knows its backlog, and can be drained.
    buffer = Buffer(path)
    ends.append(buffer)
    assert (await buffer.start())["events"] == len(kept)
    assert (await buffer.told(settle=len(kept)))["events"] == 0
    await is_well_again(buffer)
    await buffer.stop()


async def fill(buffer: Buffer) -> list[int]:
    """Append until the disk takes no more, and then some; return what was kept."""
    kept: list[int] = []
    number = 1
    refusals = 0
    while refusals < 3:
        numbers = list(range(number, number + 20))
        number += 20
        answer = await buffer.told(append=numbers, size=2000)
        assert sorted(answer["kept"] + answer["refused"]) == numbers
        kept += answer["kept"]
        refusals += bool(answer["refused"])
        assert bool(answer["refused"]) <= bool(answer["alarm"])
    return kept


async def is_well_again(buffer: Buffer) -> None:
    async def has_no_alarm() -> bool:
        return (await buffer.told())["alarm"] is None

    await eventually(has_no_alarm)
