"""Redis is away and the disk of the buffer fills up: a clear alarm, the most important facts as long as possible."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from infrastructure.embedded.redis_server import EmbeddedRedis
from tests.support.chaos_books import ALL_IS_WELL
from tests.support.chaos_events import symbols
from tests.support.chaos_programs import Crew, PublisherProgram, findings, tell
from tests.support.chaos_redis import RedisView, is_gone, kill_server

#: Rank 1, 3 and 4 in the buffer.
ORDERS, CANDLES, HEARTBEATS = TYPES = ("order.updated", "candle.closed", "service.heartbeat")
#: Most of it may be SQLite's write-ahead log, which grows to a thousand pages of 4 KB.
DISK_BYTES = 12 * 1024**2
PADDING_BYTES = 4000

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]


class SmallDisk:
    """A file system of its own that is soon full."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    async def mount(self) -> str | None:
        """Return why it cannot be had; None when it is there."""
        self.folder.mkdir()
        return await _run("mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(self.folder))

    async def grow(self) -> None:
        """Make room."""
        assert await _run("mount", "-o", f"remount,size={16 * DISK_BYTES}", str(self.folder)) is None

    async def unmount(self) -> None:
        assert await _run("umount", str(self.folder)) is None


async def _run(*command: str) -> str | None:
    try:
        process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
    except FileNotFoundError:
        return f"there is no {command[0]}"
    _, said = await process.communicate()
    return said.decode().strip() if process.returncode else None


@pytest.fixture
async def small_disk(tmp_path: Path) -> AsyncIterator[SmallDisk]:
    disk = SmallDisk(tmp_path / "disk")
    if (reason := await disk.mount()) is not None:
        pytest.skip(f"a small file system needs the right to mount one: {reason}")
    yield disk
    await disk.unmount()


@pytest.fixture
async def crew(small_disk: SmallDisk, tmp_path: Path) -> AsyncIterator[Crew]:
    """Programs that end before their disk goes."""
    crew = Crew(tmp_path)
    yield crew
    await crew.end()


def told_by_type(publisher: PublisherProgram) -> Counter[str]:
    """Return how many events of each type are published as far as the publisher knows."""
    return Counter(lane.event_type for lane, _ in publisher.ledger.events())


def refusal(publisher: PublisherProgram, event_type: str) -> str | None:
    """Return what the first refused publish of ``event_type`` said."""
    return next((said for said in publisher.status().errors if said.startswith(event_type)), None)


async def test_the_least_important_goes_first_and_orders_use_the_disk_to_the_end(
    crew: Crew, server: EmbeddedRedis, view: RedisView, small_disk: SmallDisk
) -> None:
    publisher = crew.publisher(
        server.url,
        event_types=TYPES,
        keys=symbols(4),
        last=1200,
        padding_bytes=PADDING_BYTES,
        buffer_folder=str(small_disk.folder),
        buffer_bytes=DISK_BYTES // 8,
    )
    consumer = crew.consumer(server.url, patterns=TYPES)
    await consumer.start()
    kill_server(server)
    await is_gone(server)
    publisher.launch()

    await publisher.until(lambda: refusal(publisher, HEARTBEATS) and refusal(publisher, CANDLES), "refused candles")
    at_the_limit = told_by_type(publisher)
    assert refusal(publisher, ORDERS) is None
    await publisher.until(lambda: refusal(publisher, ORDERS), "a refused order")
    at_the_end = told_by_type(publisher)
    full = publisher.status()
    await server.start()

    await publisher.finished()
    state = await view.is_settled(consumer.order.service)
    await consumer.stop()
    found = findings([publisher], consumer)
    lost = Counter(lane.event_type for lane, _ in found.missing)
    assert full.alarm is not None
    assert "has reached its limit" in str(refusal(publisher, HEARTBEATS))
    assert "disk is full" in str(refusal(publisher, ORDERS))
    assert at_the_end[ORDERS] > at_the_limit[ORDERS]
    assert lost[ORDERS] == 0
    assert (found.doubled, found.overtaken) == ((), ())
    assert consumer.effects.count() == publisher.order.total - len(found.missing)
    assert state.dead_letters == 0
    tell(
        f"Buffer at its limit, then its disk full: {at_the_limit[ORDERS]} orders kept at the limit, "
        f"{at_the_end[ORDERS]} at the end, none lost; {lost[CANDLES]} candles and {lost[HEARTBEATS]} heartbeats "
        f"dropped; alarm: {full.alarm}"
    )


async def test_with_the_disk_as_the_only_bound_nothing_told_is_lost(
    crew: Crew, server: EmbeddedRedis, view: RedisView, small_disk: SmallDisk
) -> None:
    publisher = crew.publisher(
        server.url,
        event_types=TYPES,
        keys=symbols(4),
        last=600,
        padding_bytes=PADDING_BYTES,
        buffer_folder=str(small_disk.folder),
    )
    consumer = crew.consumer(server.url, patterns=TYPES)
    await consumer.start()
    kill_server(server)
    await is_gone(server)
    publisher.launch()

    await publisher.until(lambda: publisher.status().refusals > 0, "a refused publish")
    full = publisher.status()
    kept = publisher.ledger.count()
    await small_disk.grow()
    await publisher.until(lambda: publisher.status().alarm is None, "the end of the alarm")
    await publisher.goes_on()
    await server.start()

    await publisher.finished()
    state = await view.is_settled(consumer.order.service)
    await consumer.stop()
    assert full.alarm is not None
    assert "disk is full" in full.alarm
    assert findings([publisher], consumer) == ALL_IS_WELL
    assert consumer.effects.count() == publisher.order.total
    assert state.dead_letters == 0
    tell(
        f"Disk of the buffer full after {kept} events: after room and Redis were back {publisher.order.total} "
        f"published, {consumer.effects.count()} effects; alarm: {full.alarm}"
    )
