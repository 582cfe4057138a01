"""A service is away for ten minutes of events: facts wait for it, commands do not, and its memory stays bounded."""

from __future__ import annotations

import asyncio

import psutil
import pytest

from infrastructure.embedded.redis_server import EmbeddedRedis
from tests.support.chaos_books import ALL_IS_WELL
from tests.support.chaos_events import symbols
from tests.support.chaos_programs import Crew, findings, tell
from tests.support.chaos_redis import RedisView
from tests.support.eventually import eventually

pytestmark = [pytest.mark.long, pytest.mark.timeout(400)]

FACTS = ("order.updated", "candle.closed")
COMMANDS = ("execution.request",)
TEN_MINUTES = 600.0
#: What is read and not settled is bounded, so a backlog of any length costs no more than this.
MOST_GROWTH_MB = 60.0


async def test_ten_minutes_of_events_pile_up(crew: Crew, server: EmbeddedRedis, view: RedisView) -> None:
    # Handling takes longer than reading, so that only the bound on what is in hand holds the memory.
    consumer = crew.consumer(server.url, patterns=[*FACTS, *COMMANDS], work_seconds=0.002)
    await consumer.start()
    resting_mb = rss_mb(consumer.pid)
    await consumer.stop()

    facts = crew.publisher(
        server.url, name="facts", event_types=FACTS, keys=symbols(20), last=1500, age_seconds=TEN_MINUTES
    )
    late = crew.publisher(
        server.url,
        name="late",
        event_types=COMMANDS,
        keys=symbols(20),
        last=50,
        age_seconds=TEN_MINUTES,
        youngest_seconds=61.0,
    )
    for publisher in (facts, late):
        publisher.launch()
    for publisher in (facts, late):
        await publisher.finished()

    began = asyncio.get_running_loop().time()
    await consumer.start()
    peak_mb = 0.0

    def caught_up() -> bool:
        nonlocal peak_mb
        peak_mb = max(peak_mb, rss_mb(consumer.pid))
        return consumer.effects.count() >= facts.order.total

    await eventually(caught_up, timeout=200.0, what="a service that has caught up")
    took = asyncio.get_running_loop().time() - began
    prompt = crew.publisher(server.url, name="prompt", event_types=COMMANDS, keys=["PROMPTUSDT"], last=1)
    prompt.launch()
    await prompt.finished()
    state = await view.is_settled(consumer.order.service)
    await consumer.stop()

    assert findings([facts, prompt], consumer) == ALL_IS_WELL
    assert consumer.effects.count() == facts.order.total + 1
    assert consumer.effects.refused() == {lane.event_id(number) for lane, number in late.ledger.events()}
    assert consumer.effects.count("refused") == late.order.total
    assert state.dead_letters == 0
    assert peak_mb - resting_mb < MOST_GROWTH_MB
    tell(
        f"Ten minutes of events: {facts.order.total} facts handled, {late.order.total} late commands refused, "
        f"1 prompt command carried out; caught up in {took:.1f} s ({facts.order.total / took:.0f} facts/s), "
        f"memory {resting_mb:.0f} MB at rest, {peak_mb:.0f} MB at most"
    )


def rss_mb(pid: int) -> float:
    """Return the resident memory of a process."""
    return float(psutil.Process(pid).memory_info().rss) / 1024**2
