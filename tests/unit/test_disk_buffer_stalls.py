"""A disk that does not answer holds up the callers of the disk buffer for a while, and nobody else."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from shared.errors import BufferFullError, TransientError
from tests.support.buffer_stage import Stage, entry, names
from tests.support.eventually import eventually


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    stage = Stage(tmp_path)
    yield stage
    await stage.end()


async def test_a_stalled_disk_holds_up_nobody_for_long(stage: Stage) -> None:
    file = stage.shy_file()
    buffer = await stage.open(storage=file)
    await buffer.append([entry("before")])
    (before,) = await buffer.oldest(1)
    file.may_work.clear()
    on_its_way = asyncio.create_task(buffer.append([entry("on its way")]))
    await eventually(lambda: len(file.commits) == 2)
    behind = asyncio.create_task(buffer.append([entry("behind")]))
    settling = asyncio.create_task(buffer.settle([before], ["1-0"]))
    await asyncio.sleep(0)
    buffer.remember([entry("acknowledged")], ["1-1"])
    assert buffer.alarm is None

    with capture_logs() as lines:
        await stage.time_passes_until(lambda: buffer.alarm)
        results = await asyncio.gather(on_its_way, behind, settling, return_exceptions=True)
        with pytest.raises(BufferFullError, match="does not answer"):
            await buffer.append([entry("late")])
        with pytest.raises(TransientError, match="does not answer"):
            await buffer.oldest(1)

    assert [type(result) for result in results] == [BufferFullError, BufferFullError, TransientError]
    assert [line["event"] for line in lines] == ["disk_buffer_alarm"]

    file.may_work.set()
    await stage.time_passes_until(lambda: buffer.alarm is None)
    await buffer.append([entry("after")])
    assert names(await buffer.oldest(10)) == ["on its way", "after"]
    assert [one.entry_id for one in await buffer.remembered()] == ["1-0", "1-1"]


async def test_what_is_settled_while_the_disk_stalls_does_not_come_out_again(stage: Stage) -> None:
    file = stage.shy_file()
    buffer = await stage.open(storage=file)
    await buffer.append([entry("a"), entry("b")])
    oldest = await buffer.oldest(1)
    file.may_work.clear()
    stalled = asyncio.create_task(buffer.remembered())
    await stage.time_passes_until(lambda: buffer.alarm)
    assert await stalled == []

    with pytest.raises(TransientError, match="does not answer"):
        await buffer.settle(oldest, ["1-0"])
    file.may_work.set()
    await stage.time_passes_until(lambda: buffer.alarm is None)

    assert names(await buffer.oldest(10)) == ["b"]


async def test_remembering_never_waits_and_never_takes_all_the_memory(stage: Stage) -> None:
    file = stage.shy_file()
    buffer = await stage.open(storage=file)
    file.may_work.clear()
    stalled = asyncio.create_task(buffer.remembered())
    await eventually(lambda: file.commits)

    many = [entry("many")] * 1000
    for number in range(100):
        buffer.remember([entry(f"{number}"), *many[1:]], ["1-0"] * 1000)
    file.may_work.set()
    await stalled

    written = await buffer.remembered()
    assert [one.entry.event_id for one in written if one.entry.event_id != "many"] == [str(n) for n in range(50, 100)]


async def test_a_stalled_disk_does_not_keep_a_process_from_stopping(stage: Stage) -> None:
    file = stage.shy_file()
    buffer = await stage.open(storage=file)
    file.may_work.clear()
    append = asyncio.create_task(buffer.append([entry("a")]))
    await eventually(lambda: file.commits)

    stopping = asyncio.create_task(buffer.stop())
    await stage.time_passes_until(stopping.done)

    with pytest.raises(BufferFullError):
        await append
    file.may_work.set()


async def test_what_wakes_up_while_the_file_is_closed_does_not_open_it_again(stage: Stage) -> None:
    file = stage.shy_file()
    of_others = set(threading.enumerate())
    buffer = await stage.open(storage=file)
    buffer.remember([entry("lingers")], ["1-0"])
    file.may_end.clear()
    stopping = asyncio.create_task(buffer.stop())
    await eventually(lambda: file.is_closed)
    buffer.remember([entry("late")], ["1-1"])
    for _ in range(5):
        stage.clock.advance(0.5)
        await asyncio.sleep(0)

    file.may_end.set()
    await stopping
    await eventually(lambda: all(one.name != "disk-buffer" for one in set(threading.enumerate()) - of_others))

    assert len(file.commits) == 1
    await stage.open()
