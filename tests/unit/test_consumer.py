from __future__ import annotations

from shared.bus.consumer import Consumer
from shared.bus.delivery import Delivery
from shared.bus.delivery_policy import ACK, Verdict
from shared.bus.memory import MemoryBroker, MemoryTransport
from shared.bus.transport import Entry, NewEntry
from shared.clock import SystemClock
from shared.events.codec import encode
from shared.events.envelope import Event, EventMetadata
from shared.events.streams import event_stream
from tests.support.bus_stage import quick
from tests.support.event_payloads import START, candle
from tests.support.eventually import eventually

STREAM = event_stream("candle.closed")


async def publish_two(transport: MemoryTransport) -> None:
    for number in (1, 2):
        metadata = EventMetadata(str(number), "candle.closed", "trace", None, START, "test", number)
        fields = encode(Event(metadata, candle(number=number)))
        await transport.append([NewEntry(STREAM, {name.encode(): value for name, value in fields.items()})])


async def test_a_fault_of_the_machinery_itself_does_not_end_the_lane() -> None:
    """A broken layer is no failing handler: no verdict exists, so the entry stays unsettled for a later claim."""
    broker = MemoryBroker()
    transport = MemoryTransport(broker, service="ai-service", instance="one")
    tried: list[str] = []

    async def broken_for_the_first(delivery: Delivery) -> Verdict:
        tried.append(delivery.entry.entry_id)
        if delivery.entry.entry_id == "1":
            raise RuntimeError("a bug in a layer")
        return ACK

    consumer = Consumer(
        transport, broken_for_the_first, streams={STREAM: "candle.closed"}, clock=SystemClock(), options=quick()
    )
    await consumer.start()
    await publish_two(transport)

    await eventually(lambda: broker.unsettled("ai-service") == 1, what="the second one settled")

    assert tried == ["1", "2"]
    assert consumer.progress().pending == 0, "what is not held any more can be claimed"
    await consumer.stop()


class StumblingTransport(MemoryTransport):
    """Its first read fails with an error that nobody foresaw."""

    stumbled = False

    async def read(self, limit: int) -> list[Entry]:
        if not self.stumbled:
            self.stumbled = True
            raise RuntimeError("nobody thought of this")
        return await super().read(limit)


async def test_an_error_that_nobody_foresaw_does_not_end_the_reading() -> None:
    broker = MemoryBroker()
    transport = StumblingTransport(broker, service="ai-service", instance="one")
    tried: list[str] = []

    async def step(delivery: Delivery) -> Verdict:
        tried.append(delivery.entry.entry_id)
        return ACK

    consumer = Consumer(transport, step, streams={STREAM: "candle.closed"}, clock=SystemClock(), options=quick())
    await consumer.start()
    await publish_two(transport)

    await eventually(lambda: tried == ["1", "2"], what="delivery after the stumble")
    await consumer.stop()
