"""A program that consumes numbered events, and has the effect of each in SQLite.

It reads its order as JSON on stdin, consumes until SIGTERM, and can be told to stall, to choke on certain events, or
to die of them.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared.backoff import Backoff
from shared.bus.consumer import ConsumerOptions
from shared.bus.delivery_policy import DeliveryPolicy
from shared.bus.event_bus import Handler
from shared.bus.redis_streams import RedisStreamsBus
from shared.clock import SystemClock
from shared.events.envelope import Event
from shared.ids import RandomIds
from shared.redis_connection import RedisConnection
from shared.telemetry.logs import configure_logging
from tests.support.chaos_books import Effects
from tests.support.chaos_events import lane_and_number, symbols

#: Symbols that a choking handler cannot bear.
RAISES = "RAISESUSDT"
KILLS = "KILLSUSDT"
#: Symbols at which a stalling handler has its effect first.
HAD_BEFORE_THE_STALL = frozenset(symbols(100)[::2])


@dataclass(frozen=True, slots=True)
class ConsumerOrder:
    """What to consume, and how to behave.

    Attributes:
        url: Redis.
        folder: Where effects and log lie.
        service: Consumer group; its replicas share one file of effects.
        instance: Name of the consumer.
        patterns: What to subscribe.
        behaviour: ``work``; ``stall`` never returns, from some before and from some after their effect; ``choke``
            raises at the symbol ``RAISES`` and ends the process at ``KILLS``.
        work_seconds: How long a handler takes before its effect.
        claim_idle_seconds: From when on a silent consumer's entries are taken over; on a cluster, its partitions.
        max_attempts: Failed tries until an entry is put aside.
        max_deliveries: Begun tries until an entry is put aside.
    """

    url: str
    folder: str
    service: str
    instance: str
    patterns: Sequence[str]
    behaviour: str = "work"
    work_seconds: float = 0.0
    claim_idle_seconds: float = 60.0
    max_attempts: int = 5
    max_deliveries: int = 10

    @property
    def name(self) -> str:
        return f"{self.service}-{self.instance}"

    @property
    def effects_file(self) -> Path:
        return Path(self.folder) / f"{self.service}.effects"

    @property
    def options(self) -> ConsumerOptions:
        return ConsumerOptions(
            policy=DeliveryPolicy(
                max_attempts=self.max_attempts,
                max_deliveries=self.max_deliveries,
                backoff=Backoff(base_seconds=0.02, cap_seconds=0.5),
            ),
            claim_idle_seconds=self.claim_idle_seconds,
            lease_seconds=self.claim_idle_seconds,
        )


class ChaosConsumer:
    """Consumes as ordered."""

    def __init__(self, order: ConsumerOrder) -> None:
        self._order = order
        self._clock = SystemClock()
        self._effects = Effects(order.effects_file)
        self._connection = RedisConnection(order.url, clock=self._clock)
        self._bus = RedisStreamsBus(
            self._connection,
            service=order.service,
            instance=order.instance,
            clock=self._clock,
            ids=RandomIds(),
            market_clock=self._clock,
            options=order.options,
        )
        behaviours: Mapping[str, Handler] = {"work": self._work, "stall": self._stall, "choke": self._choke}
        for pattern in order.patterns:
            self._bus.subscribe(pattern, behaviours[order.behaviour])
        self._bus.on_expired(self._refuse)

    async def run(self) -> None:
        """Consume until SIGTERM."""
        asked_to_stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asked_to_stop.set)
        await self._connection.start()
        await self._bus.start()
        self._effects.begin_life()
        await asked_to_stop.wait()
        await self._bus.stop()
        await self._connection.stop()
        self._effects.close()

    async def _work(self, event: Event[Any]) -> None:
        if self._order.work_seconds:
            await self._clock.sleep(self._order.work_seconds)
        self._have_effect(event)

    async def _stall(self, event: Event[Any]) -> None:
        lane, _ = lane_and_number(event)
        if lane.key in HAD_BEFORE_THE_STALL:
            self._have_effect(event)
        await asyncio.Event().wait()

    async def _choke(self, event: Event[Any]) -> None:
        lane, number = lane_and_number(event)
        if lane.key == RAISES:
            raise RuntimeError(f"cannot digest event {number}")
        if lane.key == KILLS:
            os._exit(70)
        self._have_effect(event)

    async def _refuse(self, event: Event[Any]) -> None:
        self._effects.refuse(event.metadata.event_id)

    def _have_effect(self, event: Event[Any]) -> None:
        lane, number = lane_and_number(event)
        self._effects.record(event.metadata.event_id, lane, number)


if __name__ == "__main__":
    configure_logging("chaos-consumer")
    asyncio.run(ChaosConsumer(ConsumerOrder(**json.load(sys.stdin))).run())
