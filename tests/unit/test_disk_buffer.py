"""The disk buffer keeps what it took, in order and within its bounds, and says so when it cannot."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from shared.disk_buffer import BufferedEntry, DiskBuffer
from shared.errors import BufferFullError, ConfigurationError, TransientError
from shared.telemetry.metrics import Metrics
from tests.support.buffer_stage import LIMIT, Stage, entry, names
from tests.support.event_payloads import START
from tests.support.eventually import eventually


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    stage = Stage(tmp_path)
    yield stage
    await stage.end()


# -- the backlog ------------------------------------------------------------------------------------------------------


async def test_entries_come_out_as_they_went_in_and_in_their_order(stage: Stage) -> None:
    buffer = await stage.open()
    odd = BufferedEntry("quantum:stream:a:{p1}", {b"metadata": b"\x00\xff", b"": b"", b"x" * 300: b"y"}, "é", 2)
    await buffer.append([entry("first"), odd])
    await buffer.append([entry("last")])

    first, second, last = await buffer.oldest(10)

    assert names([first, second, last]) == ["first", "é", "last"]
    assert (second.stream, second.fields, second.priority) == (odd.stream, odd.fields, 2)
    assert first.number < second.number < last.number
    assert names(await buffer.oldest(2)) == ["first", "é"]


async def test_what_was_appended_outlives_the_process(stage: Stage) -> None:
    buffer = await stage.open()
    await buffer.append([entry("a"), entry("b")])
    size = buffer.bytes

    buffer = await stage.reopen()

    assert (buffer.events, buffer.bytes) == (2, size)
    assert size > 200
    assert names(await buffer.oldest(10)) == ["a", "b"]


async def test_what_is_settled_leaves_the_backlog_and_is_remembered(stage: Stage) -> None:
    buffer = await stage.open()
    await buffer.append([entry("a"), entry("b"), entry("c")])
    oldest = await buffer.oldest(2)

    await buffer.settle(oldest, ["7-0", "7-1"])

    assert buffer.events == 1
    assert names(await buffer.oldest(10)) == ["c"]
    remembered = await buffer.remembered()
    assert [(one.entry.event_id, one.entry_id, one.at) for one in remembered] == [
        ("a", "7-0", START.timestamp()),
        ("b", "7-1", START.timestamp()),
    ]
    assert remembered[0].entry.fields == oldest[0].fields


async def test_numbers_are_never_given_twice(stage: Stage) -> None:
    buffer = await stage.open()
    await buffer.append([entry("a"), entry("b")])
    before = await buffer.oldest(10)
    await buffer.settle(before, ["1-0", "1-1"])

    buffer = await stage.reopen()
    await buffer.append([entry("c")])

    (after,) = await buffer.oldest(10)
    assert after.number > before[-1].number


async def test_callers_that_come_while_the_disk_is_busy_share_a_transaction(stage: Stage) -> None:
    file = stage.shy_file()
    buffer = await stage.open(storage=file)
    file.may_work.clear()

    appends = [asyncio.create_task(buffer.append([entry(str(number))])) for number in range(50)]
    await eventually(lambda: file.commits, what="the first transaction")
    await asyncio.sleep(0)
    assert not any(append.done() for append in appends)
    file.may_work.set()
    await asyncio.gather(*appends)

    assert [len(changes.appends) for changes in file.commits] == [1, 49]
    assert names(await buffer.oldest(100)) == [str(number) for number in range(50)]


async def test_a_caller_that_no_longer_waits_disturbs_nobody(stage: Stage) -> None:
    file = stage.shy_file()
    buffer = await stage.open(storage=file)
    file.may_work.clear()
    impatient = asyncio.create_task(buffer.append([entry("a")]))
    patient = asyncio.create_task(buffer.append([entry("b")]))
    await eventually(lambda: file.commits)

    impatient.cancel()
    file.may_work.set()
    await patient

    assert names(await buffer.oldest(10)) == ["a", "b"]


async def test_settling_twice_counts_once(stage: Stage) -> None:
    metrics = Metrics("ai-service", stage.clock)
    buffer = await stage.open(metrics=metrics)
    await buffer.append([entry("a"), entry("b")])
    first = await buffer.oldest(1)

    await buffer.settle(first, ["1-0"])
    await buffer.settle(first, ["1-0"])

    assert buffer.events == 1
    assert metrics.registry.get_sample_value("disk_buffer_flushed_total", {"service": "ai-service"}) == 1


async def test_the_figures(stage: Stage) -> None:
    metrics = Metrics("ai-service", stage.clock)
    buffer = await stage.open(metrics=metrics)
    await buffer.append([entry("a"), entry("b")])

    labels = {"service": "ai-service"}
    assert metrics.registry.get_sample_value("disk_buffer_events", labels) == 2
    assert metrics.registry.get_sample_value("disk_buffer_bytes", labels) == buffer.bytes > 200


async def test_a_buffer_that_is_not_open_takes_nothing(stage: Stage) -> None:
    buffer = DiskBuffer(stage.path, clock=stage.clock, service="ai-service")
    with pytest.raises(BufferFullError, match="is not open"):
        await buffer.append([entry("a")])
    with pytest.raises(TransientError, match="is not open"):
        await buffer.oldest(1)
    assert await buffer.remembered() == []
    await buffer.stop()

    buffer = await stage.open()
    await buffer.stop()
    await buffer.stop()
    with pytest.raises(BufferFullError, match="is not open"):
        await buffer.append([entry("a")])


# -- the limit --------------------------------------------------------------------------------------------------------


async def test_the_least_important_go_first_and_of_those_the_oldest(stage: Stage) -> None:
    metrics = Metrics("ai-service", stage.clock)
    buffer = await stage.open(metrics=metrics)
    for number in range(5):
        await buffer.append([entry(f"{priority}-{number}", priority, 390) for priority in (1, 2, 3, 4)])
    full = names(await buffer.oldest(100))
    size = buffer.bytes // 20
    assert 20 * size < LIMIT < 21 * size

    with capture_logs() as lines:
        for number in range(7):
            await buffer.append([entry(f"n-{number}", 1, 390)])

    dropped = {"4-0", "4-1", "4-2", "4-3", "4-4", "3-0", "3-1"}
    left = [name for name in full if name not in dropped] + [f"n-{number}" for number in range(7)]
    assert names(await buffer.oldest(100)) == left
    assert buffer.bytes <= LIMIT
    assert buffer.alarm is None
    assert [(line["event"], line["priority"]) for line in lines] == [
        ("disk_buffer_drops_entries", 4),
        ("disk_buffer_drops_entries", 3),
    ]
    for priority, count in (("4", 5), ("3", 2)):
        labels = {"service": "ai-service", "priority": priority}
        assert metrics.registry.get_sample_value("disk_buffer_dropped_total", labels) == count


async def test_how_many_were_dropped_is_told_when_the_backlog_is_gone(stage: Stage) -> None:
    buffer = await stage.open()
    for number in range(30):
        await buffer.append([entry(str(number), 4, 900)])
    oldest = await buffer.oldest(100)

    with capture_logs() as lines:
        await buffer.settle(oldest, ["1-0"] * len(oldest))

    assert [(line["event"], line["by_priority"]) for line in lines] == [
        ("disk_buffer_dropped_entries", {4: 30 - len(oldest)})
    ]


async def test_what_is_never_dropped_goes_beyond_the_limit_and_keeps_the_rest_out(stage: Stage) -> None:
    buffer = await stage.open()
    with capture_logs() as lines:
        for number in range(30):
            await buffer.append([entry(str(number), 1, 450)])
        for priority in (2, 3, 4):
            with pytest.raises(BufferFullError, match=r"limit of 10000 bytes"):
                await buffer.append([entry("no", priority)])

    assert buffer.events == 30
    assert buffer.bytes > LIMIT
    assert buffer.alarm is not None
    assert "limit of 10000 bytes" in buffer.alarm
    assert [line["event"] for line in lines] == ["disk_buffer_alarm"]

    with capture_logs() as lines:
        while buffer.alarm:
            await buffer.settle(await buffer.oldest(1), ["1-0"])
    assert buffer.bytes <= LIMIT
    assert [line["event"] for line in lines] == ["disk_buffer_well_again"]
    await buffer.append([entry("yes", 4)])


async def test_nothing_is_dropped_for_what_matters_less(stage: Stage) -> None:
    buffer = await stage.open()
    for number in range(20):
        await buffer.append([entry(str(number), 3, 450)])
    before = names(await buffer.oldest(100))

    with pytest.raises(BufferFullError):
        await buffer.append([entry("heartbeat", 4, 3000)])

    assert names(await buffer.oldest(100)) == before
    await buffer.append([entry("its like", 3, 3000)])
    assert names(await buffer.oldest(100))[-1] == "its like"


async def test_one_call_is_kept_as_a_whole_or_not_at_all(stage: Stage) -> None:
    buffer = await stage.open()
    for number in range(18):
        await buffer.append([entry(str(number), 1, 450)])

    with pytest.raises(BufferFullError):
        await buffer.append([entry("fits", 1), entry("does not", 2, 5000)])

    assert buffer.events == 18
    await buffer.append([entry("fits", 1)])
    assert names(await buffer.oldest(100))[-1] == "fits"


async def test_calls_of_one_transaction_are_refused_one_by_one(stage: Stage) -> None:
    buffer = await stage.open()
    await buffer.append([entry("a", 1, 9000)])

    calls = [buffer.append([entry(f"{priority}", priority, 2000)]) for priority in (2, 1, 4)]
    results = await asyncio.gather(*calls, return_exceptions=True)

    assert [type(result) for result in results] == [BufferFullError, type(None), BufferFullError]
    assert names(await buffer.oldest(10)) == ["a", "1"]


# -- what is remembered -----------------------------------------------------------------------------------------------


async def test_acknowledged_events_are_remembered_by_the_next_life(stage: Stage) -> None:
    buffer = await stage.open()
    buffer.remember([entry("a"), entry("b", 4)], ["1-0", "1-1"])
    stage.clock.advance(30)
    buffer.remember([entry("c")], ["2-0"])

    buffer = await stage.reopen()

    remembered = await buffer.remembered()
    assert [(one.entry.event_id, one.entry_id, one.entry.priority) for one in remembered] == [
        ("a", "1-0", 1),
        ("b", "1-1", 4),
        ("c", "2-0", 1),
    ]
    assert [one.entry.event_id for one in await buffer.remembered(within_seconds=10)] == ["c"]
    assert buffer.events == 0


async def test_acknowledged_events_are_written_soon_by_themselves(stage: Stage) -> None:
    file = stage.shy_file()
    buffer = await stage.open(storage=file)
    buffer.remember([entry("a")], ["1-0"])
    buffer.remember([entry("b")], ["1-1"])
    for _ in range(3):
        await buffer.oldest(1)
    assert not file.commits

    await stage.time_passes_until(lambda: file.commits)

    ((batch,),) = [changes.batches for changes in file.commits]
    assert batch.events == 2


async def test_old_events_are_forgotten_except_for_the_last_ones(stage: Stage) -> None:
    buffer = await stage.open(keep_events=3)
    for number in range(5):
        buffer.remember([entry(str(number))], [f"1-{number}"])
        await buffer.remembered()
    assert len(await buffer.remembered()) == 5

    stage.clock.advance(61)
    buffer.remember([entry("new")], ["2-0"])

    assert [one.entry.event_id for one in await buffer.remembered()] == ["3", "4", "new"]


async def test_old_events_are_forgotten_when_nothing_new_comes(stage: Stage) -> None:
    buffer = await stage.open(keep_events=1)
    for number in range(3):
        buffer.remember([entry(str(number))], [f"1-{number}"])
        await buffer.remembered()

    stage.clock.advance(61)

    async def only_the_last_is_left() -> bool:
        return [one.entry.event_id for one in await buffer.remembered()] == ["2"]

    await eventually(only_the_last_is_left)


async def test_what_is_remembered_is_bounded_by_its_size(stage: Stage) -> None:
    buffer = await stage.open(keep_bytes=10_000)
    for number in range(50):
        buffer.remember([entry(str(number), size=1000)], [f"1-{number}"])
        await buffer.remembered()

    remembered = [one.entry.event_id for one in await buffer.remembered()]

    assert 5 <= len(remembered) <= 9
    assert remembered == [str(number) for number in range(50 - len(remembered), 50)]


async def test_an_event_that_was_published_again_is_remembered_as_it_was_the_last_time(stage: Stage) -> None:
    buffer = await stage.open()
    buffer.remember([entry("a"), entry("b")], ["1-0", "1-1"])
    buffer.remember([entry("a")], ["9-0"])

    remembered = await buffer.remembered()

    assert [(one.entry.event_id, one.entry_id) for one in remembered] == [("b", "1-1"), ("a", "9-0")]


async def test_cursors_are_kept_beside_each_other(stage: Stage) -> None:
    buffer = await stage.open()
    await buffer.save_cursors({"one": "1-0", "other": "5-0"})
    await buffer.save_cursors({"one": "2-0"})
    await buffer.save_cursors({})

    buffer = await stage.reopen()

    assert await buffer.cursors() == {"one": "2-0", "other": "5-0"}


# -- whose the file is ------------------------------------------------------------------------------------------------


async def test_a_file_belongs_to_one_process_at_a_time(stage: Stage) -> None:
    buffer = await stage.open()
    with pytest.raises(ConfigurationError, match=f"process {os.getpid()}"):
        await stage.open()

    await stage.buffers[-1].stop()
    await buffer.append([entry("a")])
    await buffer.stop()
    assert (await stage.open()).events == 1
