"""The invariants of a run: true for healthy books, each false as soon as one of the books lies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal

import pytest

from infrastructure.supervisor.invariants import ExchangeBooks, OurBooks, check_invariants
from tests.support.exec_risk_desk import Desk, started_desk
from tests.support.markets import BTC, Prices, flat
from tests.support.run_books import exchange_books, our_books

#: Falls through the stop of the first position, then rests.
FALL: list[Prices] = [*flat(50_000, 3), (50_000, 50_000, 48_000, 48_000), *flat(48_000, 10)]
ALL = {"fills_sum_to_positions", "one_order_per_intent", "wallet_reconciles"}


async def traded_desk() -> Desk:
    """Return a desk with one position that was stopped out and one that is open."""
    desk = await started_desk(FALL)
    await desk.signal("BUY")
    await desk.advance(4)
    await desk.candle()
    await desk.signal("SELL")
    assert desk.bus.types().count("position.closed") == 1
    assert BTC in desk.book.positions
    return desk


def broken(exchange: ExchangeBooks, ours: OurBooks) -> set[str]:
    """Return the names of the invariants that do not hold."""
    verdicts = check_invariants(exchange, ours).by_name()
    assert all(bool(str(verdict)) is not verdict.holds for verdict in verdicts.values())
    return {name for name, verdict in verdicts.items() if not verdict.holds}


async def test_books_of_a_healthy_run_hold_while_open_and_after_a_stop_was_triggered() -> None:
    desk = await traded_desk()

    invariants = check_invariants(exchange_books(desk.venue.engine), our_books(desk))

    assert invariants.hold, invariants.by_name()


async def test_a_liquidation_and_a_deposit_are_followed_and_explained() -> None:
    desk = await traded_desk()
    assert desk.venue.engine.liquidate(BTC) is not None
    desk.venue.engine.deposit(Decimal(250))
    await desk.advance(2)
    await desk.candle()

    assert BTC not in desk.book.positions
    invariants = check_invariants(exchange_books(desk.venue.engine), our_books(desk))
    assert invariants.hold, invariants.by_name()


@pytest.mark.parametrize("index", [0, 1, 2])
async def test_one_fill_deleted_from_the_exchanges_book_breaks_all_that_rest_on_fills(index: int) -> None:
    desk = await traded_desk()
    engine, ours = desk.venue.engine, our_books(desk)
    victim = engine.fills(BTC)[index].fill

    assert engine.remove_fill(BTC, victim.trade_id)

    exchange = exchange_books(engine)
    assert broken(exchange, ours) == ALL
    evidence = str(check_invariants(exchange, ours).one_order_per_intent)
    assert victim.client_order_id in evidence


async def test_an_empty_run_holds() -> None:
    desk = await started_desk(flat(50_000, 5))

    assert check_invariants(exchange_books(desk.venue.engine), our_books(desk)).hold


def without_our_fill(exchange: ExchangeBooks, ours: OurBooks) -> tuple[ExchangeBooks, OurBooks]:
    return exchange, replace(ours, fills=ours.fills[1:])


def other_position(exchange: ExchangeBooks, ours: OurBooks) -> tuple[ExchangeBooks, OurBooks]:
    return exchange, replace(ours, positions={BTC: Decimal(1)})


def forgotten_intent(exchange: ExchangeBooks, ours: OurBooks) -> tuple[ExchangeBooks, OurBooks]:
    return exchange, replace(ours, intents=ours.intents[1:])


def order_sent_twice(exchange: ExchangeBooks, ours: OurBooks) -> tuple[ExchangeBooks, OurBooks]:
    regular = next(order for order in exchange.orders if order.algo_id is None)
    twin = replace(regular, order_id="999", executed=Decimal(0))
    return replace(exchange, orders=(*exchange.orders, twin)), ours


def stop_placed_twice(exchange: ExchangeBooks, ours: OurBooks) -> tuple[ExchangeBooks, OurBooks]:
    return replace(exchange, algos=(*exchange.algos, replace(exchange.algos[0], algo_id="999"))), ours


def two_intents_for_one_cause(exchange: ExchangeBooks, ours: OurBooks) -> tuple[ExchangeBooks, OurBooks]:
    twin = replace(ours.intents[0], client_order_id="qt3-en-x", filled_quantity=Decimal(0), status="REJECTED")
    return exchange, replace(ours, intents=(*ours.intents, twin))


def order_that_is_nowhere(exchange: ExchangeBooks, ours: OurBooks) -> tuple[ExchangeBooks, OurBooks]:
    ghost = replace(
        ours.intents[0], client_order_id="qt3-st-x", cause_event_id="y", filled_quantity=Decimal(0), status="NEW"
    )
    return exchange, replace(ours, intents=(*ours.intents, ghost))


def other_price(exchange: ExchangeBooks, ours: OurBooks) -> tuple[ExchangeBooks, OurBooks]:
    return exchange, replace(ours, fills=(replace(ours.fills[0], price=Decimal(1)), *ours.fills[1:]))


def triggered_twice(exchange: ExchangeBooks, ours: OurBooks) -> tuple[ExchangeBooks, OurBooks]:
    triggered = next(order for order in exchange.orders if order.algo_id is not None)
    twin = replace(triggered, order_id="999", executed=Decimal(0))
    return replace(exchange, orders=(*exchange.orders, twin)), ours


def triggered_without_condition(exchange: ExchangeBooks, ours: OurBooks) -> tuple[ExchangeBooks, OurBooks]:
    orders = tuple(replace(order, algo_id="999") if order.algo_id else order for order in exchange.orders)
    return replace(exchange, orders=orders), ours


def other_wallet(exchange: ExchangeBooks, ours: OurBooks) -> tuple[ExchangeBooks, OurBooks]:
    assert ours.wallet is not None
    return exchange, replace(ours, wallet=ours.wallet + 1, start_wallet=ours.start_wallet + 1)


def unknown_wallet(exchange: ExchangeBooks, ours: OurBooks) -> tuple[ExchangeBooks, OurBooks]:
    return exchange, replace(ours, wallet=None)


def unexplained_adjustment(exchange: ExchangeBooks, ours: OurBooks) -> tuple[ExchangeBooks, OurBooks]:
    return exchange, replace(ours, adjustments=Decimal(1), funding=ours.funding - 1)


def exchange_lost_funding(exchange: ExchangeBooks, ours: OurBooks) -> tuple[ExchangeBooks, OurBooks]:
    return replace(exchange, funding=exchange.funding + 1), ours


@pytest.mark.parametrize(
    ("lie", "falls"),
    [
        (without_our_fill, {"fills_sum_to_positions", "one_order_per_intent"}),
        (other_position, {"fills_sum_to_positions"}),
        (forgotten_intent, {"one_order_per_intent"}),
        (order_sent_twice, {"one_order_per_intent"}),
        (stop_placed_twice, {"one_order_per_intent"}),
        (two_intents_for_one_cause, {"one_order_per_intent"}),
        (order_that_is_nowhere, {"one_order_per_intent"}),
        (other_price, {"fills_sum_to_positions"}),
        (triggered_twice, {"one_order_per_intent"}),
        (triggered_without_condition, {"one_order_per_intent"}),
        (other_wallet, {"wallet_reconciles"}),
        (unknown_wallet, {"wallet_reconciles"}),
        (unexplained_adjustment, {"wallet_reconciles"}),
        (exchange_lost_funding, {"wallet_reconciles"}),
    ],
)
async def test_each_lie_is_seen_where_it_matters(
    lie: Callable[[ExchangeBooks, OurBooks], tuple[ExchangeBooks, OurBooks]], falls: set[str]
) -> None:
    desk = await traded_desk()

    assert broken(*lie(exchange_books(desk.venue.engine), our_books(desk))) == falls


async def test_an_order_of_a_stranger_needs_no_intent() -> None:
    desk = await traded_desk()
    exchange = exchange_books(desk.venue.engine)
    foreign = replace(exchange.orders[0], client_order_id="web_abc", order_id="998", executed=Decimal(0), algo_id=None)

    assert not broken(replace(exchange, orders=(*exchange.orders, foreign)), our_books(desk))
