"""Decisions about positions that are there: add to a winner, cut a loser, rebalance."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from services.exec_risk_service.domain.orders import Leg
from tests.support.exec_risk_checks import assert_sound, refolded
from tests.support.exec_risk_desk import Desk, FixedPolicy, started_desk
from tests.support.markets import BTC, Prices, flat

RISE: list[Prices] = [*flat(50_000, 2), (50_000, 50_500, 50_000, 50_500), *flat(50_500, 20)]
FALL: list[Prices] = [*flat(50_000, 2), (50_000, 50_000, 49_500, 49_500), *flat(49_500, 20)]


async def desk_with_position(prices: list[Prices], side: str = "BUY", size: float = 510.0) -> Desk:
    desk = await started_desk(prices)
    await desk.ask(side, position_size_usd=size)
    await desk.advance(5)
    await desk.candle()
    return desk


def last_result(desk: Desk) -> Any:
    return desk.bus.of("execution.result")[-1]


@pytest.mark.parametrize("action", ["ADD_TO_WINNER", "AMPLIFY_POSITION"])
async def test_a_winner_grows_and_its_stop_follows(action: str) -> None:
    desk = await desk_with_position(RISE)
    before = desk.book.positions[BTC]

    event = await desk.amplify(action, additional_size_usd=210.0)

    after = desk.book.positions[BTC]
    assert after.position_id == before.position_id
    assert after.size > before.size
    assert after.stop_price > before.stop_price
    assert last_result(desk).status == "SUCCESS"
    assert desk.orders(Leg.ENTRY)[-1].cause_event_id == event.metadata.event_id
    await desk.tick(2.0)
    assert_sound(desk)


async def test_the_factor_says_how_much_when_no_size_does() -> None:
    desk = await desk_with_position(RISE, size=420.0)
    before = desk.book.positions[BTC].size

    await desk.amplify("AMPLIFY_POSITION", additional_size_usd=None, amplification_factor=2.0)

    assert desk.book.positions[BTC].size == before * 2
    assert_sound(desk)


async def test_the_total_stays_within_what_is_asked_and_within_the_limits() -> None:
    desk = await desk_with_position(RISE)

    await desk.amplify("ADD_TO_WINNER", additional_size_usd=400.0, max_total_size_usd=750.0)
    worth = desk.book.positions[BTC].size * 50_500
    assert worth <= 750
    await desk.amplify("ADD_TO_WINNER", additional_size_usd=9_000.0)

    assert desk.book.positions[BTC].size * 50_500 <= 1000  # the policy's cap for one position
    await desk.tick(2.0)
    assert_sound(desk)


async def test_nothing_is_added_to_a_position_that_is_large_enough() -> None:
    desk = await desk_with_position(RISE)

    await desk.amplify("ADD_TO_WINNER", max_total_size_usd=100.0)

    assert "nothing is to be added" in last_result(desk).rejection_reason


async def test_nothing_is_added_to_a_loser_or_without_a_position() -> None:
    desk = await desk_with_position(FALL)
    size = desk.book.positions[BTC].size

    await desk.amplify("ADD_TO_WINNER")
    assert last_result(desk).rejection_reason == "the position is no winner: nothing is added"
    assert desk.book.positions[BTC].size == size
    await desk.signal("SELL")
    await desk.amplify("ADD_TO_WINNER")

    assert last_result(desk).rejection_reason == "there is no position"


async def test_a_loser_is_cut_and_a_winner_is_not() -> None:
    loser, winner = await desk_with_position(FALL), await desk_with_position(RISE)

    await loser.amplify("CUT_LOSER")
    await winner.amplify("CUT_LOSER")

    assert not loser.book.positions
    assert last_result(loser).status == "SUCCESS"
    assert BTC in winner.book.positions
    assert last_result(winner).rejection_reason == "the position is no loser: it stays open"
    assert_sound(loser)
    assert_sound(winner)


@pytest.mark.parametrize("side", ["BUY", "SELL"])
async def test_a_rebalance_makes_a_position_smaller_or_larger(side: str) -> None:
    desk = await desk_with_position(flat(50_000, 20), side)
    before = desk.book.positions[BTC].size

    await desk.rebalance((BTC, -200.0))
    assert desk.book.positions[BTC].size < before
    assert last_result(desk).metadata["leg"] == "reduce"
    await desk.tick(2.0)
    await desk.rebalance((BTC, 210.0))

    assert desk.book.positions[BTC].size == before
    await desk.tick(2.0)
    assert_sound(desk)


async def test_a_rebalance_that_takes_all_ends_the_position_with_its_reason() -> None:
    desk = await desk_with_position(flat(50_000, 20))

    await desk.rebalance((BTC, -5_000.0))

    assert desk.bus.of("position.closed")[0].exit_reason == "REBALANCE"
    assert not desk.book.positions
    assert_sound(desk)


async def test_each_symbol_of_a_rebalance_gets_its_own_answer() -> None:
    desk = await desk_with_position(flat(50_000, 20))

    event = await desk.rebalance(("ETHUSDT", -100.0), (BTC, -200.0))

    answers = [e.payload for e in desk.bus.events if e.metadata.trace_id == event.metadata.trace_id]
    results = {p.symbol: p.status for p in answers if hasattr(p, "rejection_reason")}
    assert results == {BTC: "SUCCESS", "ETHUSDT": "REJECTED"}


@pytest.mark.parametrize("action", ["EXPOSURE_WARNING", "REBALANCE_COMPLETED"])
async def test_a_warning_and_a_report_change_nothing(action: str) -> None:
    desk = await desk_with_position(flat(50_000, 20))
    before = desk.book

    await desk.rebalance((BTC, -200.0), action=action)

    assert desk.book is before


async def test_a_command_that_is_delivered_twice_counts_once() -> None:
    desk = await desk_with_position(flat(50_000, 20))
    event = await desk.rebalance((BTC, -200.0))
    size = desk.book.positions[BTC].size

    await desk.restart()
    await desk.service.handlers.portfolio_manager.on_balance(event)
    await desk.settle()

    assert desk.book.positions[BTC].size == size


async def test_a_reduction_passes_when_entries_may_not() -> None:
    desk = await desk_with_position(flat(50_000, 20))
    assert isinstance(desk.policy, FixedPolicy)
    desk.policy.state = replace(desk.policy.state, stale=True)

    await desk.rebalance((BTC, 200.0))
    assert "stale" in last_result(desk).rejection_reason
    await desk.rebalance((BTC, -200.0))

    assert last_result(desk).status == "SUCCESS"


async def test_what_was_decided_about_positions_replays() -> None:
    desk = await desk_with_position(RISE)
    await desk.amplify("ADD_TO_WINNER", additional_size_usd=210.0)
    await desk.rebalance((BTC, -210.0))
    await desk.tick(2.0)
    await desk.amplify("CUT_LOSER")

    book, _ = refolded([*desk.neighbours, *desk.bus.events], await desk.venue.instruments())

    assert {**book.orders} == {**desk.book.orders}
    assert {**book.positions} == {**desk.book.positions}
