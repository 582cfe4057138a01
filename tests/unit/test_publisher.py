from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from shared.bus.publisher import Publisher
from shared.bus.transport import NewEntry
from shared.clock import ManualClock
from shared.disk_buffer import Remembered
from shared.errors import ConnectionLostError, TransientError
from shared.events.codec import decode
from shared.events.streams import StreamNames
from shared.ids import SeededIds
from shared.telemetry.metrics import Metrics
from tests.support.event_payloads import START, candle


class FlakyAppender:
    """Keeps what is appended, and fails when told to; it answers late, so that publishes overlap."""

    def __init__(self) -> None:
        self.sequences: list[int] = []
        self.fail_next = False

    generation = 0
    connected = True

    async def connect(self) -> None: ...

    async def wait_available(self) -> None: ...

    async def missing(self, remembered: Sequence[Remembered]) -> list[Remembered]:
        return []

    async def append(self, entries: Sequence[NewEntry]) -> list[str | TransientError]:
        await asyncio.sleep(0)
        if self.fail_next:
            self.fail_next = False
            raise ConnectionLostError("away")
        self.sequences += [decode(entry.fields).metadata.sequence for entry in entries]
        return [str(number) for number in range(len(entries))]


def publisher(appender: FlakyAppender, metrics: Metrics | None = None) -> Publisher:
    return Publisher(
        appender,
        service="ai-service",
        producer="one",
        clock=ManualClock(START),
        ids=SeededIds(1),
        streams=StreamNames(),
        metrics=metrics,
    )


async def test_a_failed_append_leaves_no_gap() -> None:
    appender = FlakyAppender()
    publishes = publisher(appender)
    await publishes.publish("candle.closed", candle())
    appender.fail_next = True
    with pytest.raises(ConnectionLostError):
        await publishes.publish("candle.closed", candle())

    event = await publishes.publish("candle.closed", candle())

    assert event.metadata.sequence == 2
    assert appender.sequences == [1, 2]


async def test_overlapping_publishes_keep_the_sequence_even_when_their_batch_fails() -> None:
    appender = FlakyAppender()
    appender.fail_next = True
    publishes = publisher(appender)

    async def five() -> list[object]:
        publishing = [publishes.publish("candle.closed", candle(number=n)) for n in range(5)]
        return list(await asyncio.gather(*publishing, return_exceptions=True))

    failed = await five()
    await five()

    assert [type(result) for result in failed] == [ConnectionLostError] * 5
    assert appender.sequences == [1, 2, 3, 4, 5]


async def test_a_cancelled_publish_leaves_no_gap() -> None:
    appender = FlakyAppender()
    publishes = publisher(appender)
    cancelled = asyncio.create_task(publishes.publish("candle.closed", candle()))
    await asyncio.sleep(0)
    cancelled.cancel()

    await publishes.publish("candle.closed", candle())

    assert appender.sequences == [1, 2], "what is on its way stays on its way; only nobody waits for it"


async def test_only_what_was_appended_is_counted() -> None:
    metrics = Metrics("ai-service", ManualClock(START))
    appender = FlakyAppender()
    publishes = publisher(appender, metrics)
    await publishes.publish("candle.closed", candle())
    appender.fail_next = True
    with pytest.raises(ConnectionLostError):
        await publishes.publish("candle.closed", candle())

    labels = {"service": "ai-service", "event_type": "candle.closed"}
    assert metrics.registry.get_sample_value("events_published_total", labels) == 1
