"""Events that nobody can digest are put aside with a reason while the rest flows, and come back when asked."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import orjson
import pytest

from infrastructure.embedded.redis_server import EmbeddedRedis
from shared.bus.dead_letters import DeadLetter, DeadLetterBox
from shared.clock import SystemClock
from shared.events.streams import event_stream
from shared.redis_connection import RedisConnection
from tests.support.chaos_books import ALL_IS_WELL
from tests.support.chaos_consumer import KILLS, RAISES
from tests.support.chaos_events import Lane, symbols
from tests.support.chaos_programs import ConsumerProgram, Crew, findings, tell
from tests.support.chaos_redis import RedisView
from tests.support.eventually import eventually

TYPE = "order.updated"
STREAM = event_stream(TYPE)
SERVICE = "exec-risk-service"
#: Tries that end badly, and tries that end the process.
ATTEMPTS = 3
DELIVERIES = 4

GARBAGE = {b"\xff": b"\x00\xff{"}
NOT_UTF_8 = {b"metadata": b'{"event_id": "\xff\xfe"}', b"payload": b"{}"}
FROM_THE_FUTURE = {
    b"metadata": orjson.dumps(
        {
            "event_id": "from-the-future",
            "event_type": TYPE,
            "trace_id": "trace",
            "causation_id": None,
            "timestamp": "2026-01-01T00:00:00+00:00",
            "source": "exec-risk-service",
            "version": "99.0",
            "sequence": 1,
        }
    ),
    b"payload": orjson.dumps(Lane(TYPE, "BTCUSDT").payload(1).model_dump(mode="json")),
}
UNREADABLE = (GARBAGE, NOT_UTF_8, FROM_THE_FUTURE)


@pytest.fixture
async def box(server: EmbeddedRedis) -> AsyncIterator[DeadLetterBox]:
    connection = RedisConnection(server.url, clock=SystemClock())
    yield DeadLetterBox(connection)
    await connection.stop()


async def keep_alive_until_settled(consumer: ConsumerProgram, view: RedisView) -> int:
    """Start the consumer again whenever it dies, as a supervisor would; return how often it died."""
    deaths = 0

    async def settled() -> bool:
        nonlocal deaths
        if not consumer.running:
            deaths += 1
            consumer.launch()
        return (await view.group(SERVICE)).settled

    await eventually(settled, timeout=100.0, what="everything handled or put aside")
    return deaths


def letters_about(letters: Sequence[DeadLetter], symbol: str) -> list[DeadLetter]:
    return [letter for letter in letters if symbol.encode() in letter.fields.get(b"payload", b"")]


async def test_poison_is_put_aside_while_the_rest_flows_and_is_handled_when_mended(
    crew: Crew, server: EmbeddedRedis, view: RedisView, box: DeadLetterBox
) -> None:
    healthy = crew.publisher(server.url, name="healthy", event_types=[TYPE], keys=symbols(10), last=50)
    raising = crew.publisher(server.url, name="raising", event_types=[TYPE], keys=[RAISES], last=2)
    killing = crew.publisher(server.url, name="killing", event_types=[TYPE], keys=[KILLS], last=1)
    for fields in UNREADABLE:
        await view.append_raw(STREAM, fields)
    for publisher in (raising, killing, healthy):
        publisher.launch()
    for publisher in (raising, killing, healthy):
        await publisher.finished()

    choking = crew.consumer(
        server.url, patterns=[TYPE], behaviour="choke", max_attempts=ATTEMPTS, max_deliveries=DELIVERIES
    )
    choking.launch()
    deaths = await keep_alive_until_settled(choking, view)
    await choking.stop()

    letters = await box.page(SERVICE, limit=100)
    raised, killed = letters_about(letters, RAISES), letters_about(letters, KILLS)
    assert findings([healthy], choking) == ALL_IS_WELL
    assert choking.effects.count() == healthy.order.total
    assert deaths == DELIVERIES
    assert [letter.fields for letter in letters if letter.fields in UNREADABLE] == list(UNREADABLE)
    assert [(letter.attempts, letter.error) for letter in raised] == [
        (ATTEMPTS, f"RuntimeError: cannot digest event {number}") for number in (1, 2)
    ]
    assert ["may crash its consumer" in letter.error for letter in killed] == [True]
    assert len(letters) == len(UNREADABLE) + len(raised) + len(killed)

    mended = crew.consumer(server.url, patterns=[TYPE])
    await mended.start()
    for letter in (*raised, *killed):
        await box.redrive(letter)
    state = await view.is_settled(SERVICE)
    await mended.stop()

    assert findings([healthy, raising, killing], mended) == ALL_IS_WELL
    assert mended.effects.count() == healthy.order.total + 3
    assert state.dead_letters == len(UNREADABLE)
    tell(
        f"Poison: {len(UNREADABLE)} unreadable, {len(raised)} that always fail, 1 that killed its process {deaths} "
        f"times: {len(letters)} put aside, {healthy.order.total} of {healthy.order.total} others handled; sent again "
        f"after the handler was mended: {len(raised) + len(killed)} handled, {state.dead_letters} left"
    )
