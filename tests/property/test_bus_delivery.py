"""Whatever fails how often: nothing is lost, nothing is doubled without cause, and every key keeps its order."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from shared.backoff import Backoff
from shared.bus.delivery_policy import ACK, DeadLetter, DeliveryPolicy, Retry
from shared.bus.memory import MemoryBroker, MemoryBus
from shared.clock import ManualClock
from shared.errors import ConnectionLostError, InvalidInputError, OutcomeUnknownError, OverloadedError
from shared.events.envelope import Event
from shared.ids import SeededIds
from tests.support.bus_stage import quick
from tests.support.event_payloads import START, candle

MAX_ATTEMPTS = 3
SYMBOLS = ["BTCUSDT", "ETHUSDT", "SOLUSDT"]

#: Per event: its key, how often it fails before it works, and how many turns of the loop its handler takes.
plans = st.lists(st.tuples(st.sampled_from(SYMBOLS), st.integers(0, MAX_ATTEMPTS + 1), st.integers(0, 3)), max_size=25)


@settings(max_examples=60, deadline=None)
@given(plan=plans, concurrency=st.integers(1, 4), max_in_hand=st.integers(1, 8), restart_after=st.integers(0, 25))
def test_every_event_ends_handled_or_put_aside_in_the_order_of_its_key(
    plan: list[tuple[str, int, int]], concurrency: int, max_in_hand: int, restart_after: int
) -> None:
    asyncio.run(_run_plan(plan, concurrency=concurrency, max_in_hand=max_in_hand, restart_after=restart_after))


async def _run_plan(
    plan: list[tuple[str, int, int]], *, concurrency: int, max_in_hand: int, restart_after: int
) -> None:
    broker, clock, ids = MemoryBroker(), ManualClock(START), SeededIds(1)
    options = quick(
        policy=DeliveryPolicy(max_attempts=MAX_ATTEMPTS, backoff=Backoff(base_seconds=0.0)),
        concurrency=concurrency,
        max_in_hand=max_in_hand,
    )
    tries: Counter[int] = Counter()
    handled: list[int] = []

    async def handle(event: Event[Any]) -> None:
        number = int(event.payload.close) - 100
        _, failures, turns = plan[number]
        tries[number] += 1
        for _ in range(turns):
            await asyncio.sleep(0)
        if tries[number] <= failures:
            raise OverloadedError("not yet")
        handled.append(number)

    def new_bus() -> MemoryBus:
        bus = MemoryBus(
            broker,
            service="ai-service",
            instance="one",
            clock=clock,
            ids=ids,
            market_clock=clock,
            options=options,
        )
        bus.subscribe("candle.closed", handle)
        return bus

    bus = new_bus()
    await bus.start()
    for number, (symbol, _, _) in enumerate(plan):
        await bus.publish("candle.closed", candle(symbol, number))
        if number == restart_after:
            await bus.stop()
            bus = new_bus()
            await bus.start()
    await broker.settled()
    await bus.stop()

    # What lay in hand at a restart has one try less: reading it counted as one.
    lost_tries = 1 if restart_after < len(plan) else 0
    surely = {number for number, (_, failures, _) in enumerate(plan) if failures < MAX_ATTEMPTS - lost_tries}
    possibly = {number for number, (_, failures, _) in enumerate(plan) if failures < MAX_ATTEMPTS}
    assert surely <= set(handled) <= possibly
    assert len(handled) == len(set(handled))
    assert len(handled) + len(broker.dead_letters("ai-service")) == len(plan)
    for symbol in SYMBOLS:
        of_key = [number for number in handled if plan[number][0] == symbol]
        assert of_key == sorted(of_key)
    assert all(count <= MAX_ATTEMPTS for count in tries.values())


errors = st.sampled_from(
    [None, ValueError("x"), InvalidInputError("x"), ConnectionLostError("x"), OutcomeUnknownError("x")]
)


@given(error=errors, attempt=st.integers(1, 1000), outages=st.integers(1, 1000), max_attempts=st.integers(1, 20))
def test_a_verdict_never_raises_the_count_without_bound(
    error: Exception | None, attempt: int, outages: int, max_attempts: int
) -> None:
    policy = DeliveryPolicy(max_attempts=max_attempts)

    verdict = policy.after(error, attempt=attempt, outages=outages)

    if isinstance(verdict, Retry):
        assert verdict.attempt <= max(attempt, max_attempts)
        assert 0 <= verdict.delay_seconds <= policy.backoff.cap_seconds
    else:
        assert (verdict == ACK) == (error is None)
        assert isinstance(verdict, DeadLetter) == (error is not None)
