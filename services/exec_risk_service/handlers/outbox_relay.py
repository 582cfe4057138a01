"""Publishes what the ledger stored, in order and under the ids it was given; recovery takes the same path."""

from __future__ import annotations

import asyncio

from services.exec_risk_service.ports import OrderJournal
from shared.bus.event_bus import EventBus
from shared.telemetry.trace import TraceContext, use_trace

_BATCH = 200


class OutboxRelay:
    """Moves events from the journal's outbox to the bus. A crash in between publishes again, with the same ids."""

    def __init__(self, journal: OrderJournal, bus: EventBus) -> None:
        self._journal = journal
        self._bus = bus
        self._turn = asyncio.Lock()

    async def drain(self) -> int:
        """Publish everything that waits; return how many events that were.

        Raises:
            TransientError: Journal or bus cannot be reached; what is left waits for the next call.
        """
        count = 0
        async with self._turn:
            while waiting := await self._journal.unpublished(_BATCH):
                published: list[int] = []
                try:
                    for stored in waiting:
                        fact = stored.fact
                        with use_trace(TraceContext(fact.trace_id, fact.causation_id)):
                            await self._bus.publish(
                                fact.event_type,
                                fact.payload,
                                trace_id=fact.trace_id,
                                causation_id=fact.causation_id,
                                event_id=fact.event_id,
                            )
                        published.append(stored.position)
                finally:
                    if published:
                        await self._journal.mark_published(published)
                count += len(published)
        return count
