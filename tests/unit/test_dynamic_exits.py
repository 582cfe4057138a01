"""Break-even, trailing, time and advice: what each does to stop and target, and the reason that it gives."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest

from services.exec_risk_service.domain.dynamic_exits import (
    ExitView,
    advised_exits,
    moved_exits,
    with_first_exits,
)
from services.exec_risk_service.domain.orders import EntryPlan, Leg
from services.exec_risk_service.domain.positions import Origin, Position
from services.exec_risk_service.domain.protection import ExitAdvice, ExitBasis, ExitRules
from shared.trading.orders import OrderType
from shared.trading.policy import PolicyState
from shared.trading.positions import NetPosition
from tests.property.test_dynamic_exits import ENTRY, QUANTITY, history
from tests.property.test_exec_book import INSTRUMENT
from tests.support.exec_risk_checks import assert_sound
from tests.support.exec_risk_desk import NORMAL, FixedPolicy, started_desk
from tests.support.markets import BTC, START, Prices, flat

RULES = ExitRules()


def view(swing: float | None = None, *, max_loss: int | None = 100, rules: ExitRules = RULES) -> ExitView:
    past = None if swing is None else history([swing] * 60)
    loss = None if max_loss is None else Decimal(max_loss)
    return ExitView(rules, INSTRUMENT, past, timedelta(hours=48), loss, QUANTITY)


def long_position(stop_pct: str = "2", target_pct: str | None = "4") -> Position:
    return Position(
        position_id="p",
        symbol=BTC,
        origin=Origin.SIGNAL,
        trace_id="t",
        cause_event_id="c",
        is_long=True,
        net=NetPosition(BTC, QUANTITY, ENTRY),
        leverage=5,
        opened_at=START,
        opening_event_id="e",
        plan=EntryPlan(Decimal(stop_pct), None if target_pct is None else Decimal(target_pct)),
        opened_quantity=QUANTITY,
        opened_value=QUANTITY * ENTRY,
        commission=Decimal("0.25"),
    )


def exits(position: Position) -> tuple[Decimal | None, ExitBasis, Decimal | None, ExitBasis]:
    guard = position.protection
    return position.stop_price, guard.stop_basis, position.target_price, guard.target_basis


# -- first places ------------------------------------------------------------------------------------------------------


def test_a_short_history_leaves_the_percentages() -> None:
    opened = with_first_exits(long_position(), view())

    assert exits(opened) == (Decimal(49_000), ExitBasis.PLAN, Decimal(52_000), ExitBasis.PLAN)


def test_a_wild_market_gets_a_wider_stop_as_far_as_one_trade_may_lose() -> None:
    # swings of 1 %: an average true range of about 500, so a stop about 2,000 away (4 standard deviations)
    opened = with_first_exits(long_position("0.5", "1"), view(0.01))
    poor = with_first_exits(long_position("0.5", "1"), view(0.01, max_loss=8))

    risk = opened.protection.risk
    assert risk is not None
    assert 700 < risk < 1_100  # half of what was measured: the signal asked for less
    assert opened.protection.stop_basis is ExitBasis.VOLATILITY
    assert opened.protection.reward == pytest.approx(risk * 2)  # the signal's ratio
    assert poor.protection.risk == 800  # 8 USDT at 0.01 BTC


def test_a_calm_market_gets_a_closer_stop() -> None:
    opened = with_first_exits(long_position("2", "4"), view(0.0005))

    assert opened.stop_price is not None
    assert Decimal(49_700) < opened.stop_price < Decimal(49_850)


def test_a_stop_is_never_closer_than_the_least_distance() -> None:
    opened = with_first_exits(long_position("2", "4"), view(0.00001))

    assert opened.stop_price == Decimal(49_900)


# -- moves -------------------------------------------------------------------------------------------------------------


def at(position: Position, mark: int, hours: float = 1, *, look: ExitView | None = None) -> Position:
    return moved_exits(position.seen(Decimal(mark)), Decimal(mark), START + timedelta(hours=hours), look or view())


def test_at_one_r_the_stop_covers_entry_and_fees() -> None:
    opened = with_first_exits(long_position(), view())

    assert at(opened, 50_990).stop_price == Decimal(49_000)
    moved = at(opened, 51_000)
    assert (moved.stop_price, moved.protection.stop_basis) == (Decimal(50_050), ExitBasis.BREAK_EVEN)


def test_a_trailing_stop_follows_the_best_price_in_steps() -> None:
    opened = with_first_exits(long_position(), view())

    first = at(opened, 51_600)
    assert (first.stop_price, first.protection.stop_basis) == (Decimal(50_600), ExitBasis.TRAILING)
    assert at(first, 51_650) == first.seen(Decimal(51_650))  # 50 is less than a tenth of R
    second = at(first, 51_700)
    assert second.stop_price == Decimal(50_700)
    assert at(second, 51_000).stop_price == Decimal(50_700)  # the market came back: the stop stays


def test_a_trailing_stop_keeps_its_distance_from_the_market() -> None:
    opened = with_first_exits(long_position(), view(0.0005))  # a close stop, and a close trail
    spiked = opened.seen(Decimal(51_000))  # the candle's high

    moved = moved_exits(spiked, Decimal(50_500), START + timedelta(hours=1), view(0.0005))

    assert moved.stop_price == Decimal("50449.5")  # 0.1 % below the mark


def test_old_positions_lose_room_on_both_sides() -> None:
    opened = with_first_exits(long_position(), view())

    assert at(opened, 50_000, 24).stop_price == Decimal(49_000)
    moved = at(opened, 50_000, 36)  # three quarters of the holding time: 0.7 of the distances are left
    assert exits(moved) == (Decimal(49_300), ExitBasis.TIME_DECAY, Decimal(51_400), ExitBasis.TIME_DECAY)
    last = at(opened, 50_000, 48)
    assert exits(last) == (Decimal(49_600), ExitBasis.TIME_DECAY, Decimal(50_800), ExitBasis.TIME_DECAY)


def test_a_target_that_time_brings_closer_stays_beyond_the_market() -> None:
    opened = with_first_exits(long_position(), view())

    moved = at(replace(opened, protection=replace(opened.protection, is_trailing=False)), 50_900, 48)

    assert moved.target_price == Decimal("50950.9")


def test_nothing_moves_when_it_is_switched_off() -> None:
    off = view(0.01, rules=ExitRules(is_dynamic=False))
    opened = with_first_exits(long_position(), off)

    assert exits(opened) == (Decimal(49_000), ExitBasis.PLAN, Decimal(52_000), ExitBasis.PLAN)
    assert at(opened, 51_900, 47, look=off).stop_price == Decimal(49_000)


# -- advice ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stop", "target", "reason"),
    [
        ("0.1", None, "outside of 0.2 to 10 %"),
        ("11", None, "outside of 0.2 to 10 %"),
        ("9", None, "would lose 45.00 USD; one trade may lose 30.00 USD"),
        (None, "21", "beyond 20 %"),
        (None, "0.05", "too close to the mark price"),
    ],
)
def test_advice_beyond_the_limits_is_refused_with_its_reason(stop: str | None, target: str | None, reason: str) -> None:
    opened = with_first_exits(long_position(), view())
    advice = ExitAdvice(Decimal(stop) if stop else None, Decimal(target) if target else None, None)

    answer = advised_exits(opened, advice, ENTRY, view(max_loss=30))

    assert isinstance(answer, str)
    assert reason in answer


def test_a_stop_that_was_moved_closer_is_not_widened_by_advice() -> None:
    moved = at(with_first_exits(long_position(), view()), 51_000)

    answer = advised_exits(moved, ExitAdvice(Decimal(1), None, None), Decimal(51_000), view())

    assert answer == "the stop 50050.0 was moved closer (BREAK_EVEN) and stays there"


# -- on a desk ---------------------------------------------------------------------------------------------------------

CLIMB: list[Prices] = [*flat(50_000, 3), (50_000, 51_100, 50_000, 51_100), *flat(51_100, 60)]


async def test_a_moved_stop_rests_on_the_exchange_and_the_event_says_why() -> None:
    desk = await started_desk(CLIMB)
    await desk.signal("BUY")

    await desk.advance(5)
    await desk.candle()

    stops = [a.trigger_price for a in desk.venue.engine.open_algos(BTC) if a.type is OrderType.STOP_MARKET]
    assert stops == [desk.book.positions[BTC].stop_price]
    moved = desk.bus.of("position.updated")[-1].metadata["stop_moved"]
    assert (moved["from"], moved["reason"]) == ("49000.5", "BREAK_EVEN")
    assert Decimal(moved["to"]) > Decimal(50_000)
    assert len(desk.orders(Leg.STOP)) == 2
    assert_sound(desk)


async def test_the_policy_switches_it_off() -> None:
    policy = PolicyState(NORMAL.mode, replace(NORMAL.policy, enable_dynamic_tpsl=False), version=2)
    desk = await started_desk(CLIMB, policy=FixedPolicy(policy))
    await desk.signal("BUY")

    await desk.advance(5)
    await desk.candle()

    assert len(desk.orders(Leg.STOP)) == 1
    assert desk.bus.of("position.opened")[0].trailing_stop_active is False


async def test_a_trailing_stop_that_fires_is_named_in_the_end_of_the_position() -> None:
    prices: list[Prices] = [*flat(50_000, 3), (50_000, 51_800, 50_000, 51_800), *flat(51_800, 5)]
    desk = await started_desk([*prices, (51_800, 51_800, 50_000, 50_000), *flat(50_000, 5)])
    await desk.signal("BUY")
    await desk.advance(5)
    await desk.candle()

    await desk.advance(6)

    closed = desk.bus.of("position.closed")[0]
    assert (closed.exit_reason, closed.pnl_usd > 0) == ("TRAILING_STOP", True)
    assert_sound(desk)
