"""What must hold after any sequence of orders: the books add up, and time may be cut as one likes."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from decimal import Decimal

from hypothesis import given, settings
from hypothesis import strategies as st

from infrastructure.paper_exchange.contracts import contract_for
from infrastructure.paper_exchange.matching_engine import MatchingEngine
from infrastructure.paper_exchange.records import AlgoStatus, Books, IncomeType, TimeInForce
from infrastructure.paper_exchange.synthetic_candles import SyntheticCandleSource
from shared.errors import OrderRejectedError
from shared.trading.orders import OrderStatus, Side
from tests.support.markets import BTC, START, after, limit, market, stop

SIDES = st.sampled_from(list(Side))
QUANTITIES = st.sampled_from(["0.003", "0.05", "0.4", "2.5"])
#: Distance of a price from the last one, in basis points.
DISTANCES = st.integers(-60, 60)


@dataclass(frozen=True)
class Action:
    """One thing to do: wait some minutes, then place or cancel something."""

    minutes: int
    kind: str
    side: Side
    quantity: str
    distance: int
    reduce_only: bool
    tif: TimeInForce


ACTIONS = st.lists(
    st.builds(
        Action,
        minutes=st.integers(0, 90),
        kind=st.sampled_from(["market", "limit", "stop", "close", "cancel", "wait"]),
        side=SIDES,
        quantity=QUANTITIES,
        distance=DISTANCES,
        reduce_only=st.booleans(),
        tif=st.sampled_from(list(TimeInForce)),
    ),
    min_size=1,
    max_size=12,
)


def play(actions: list[Action], seed: int, cuts: int) -> Books:
    """Return the books after ``actions`` on a made-up market, each wait cut into ``cuts`` parts."""
    engine = MatchingEngine(SyntheticCandleSource(seed, [BTC], "1m"), start=START, wallet=Decimal(50_000))
    minutes = 0
    for action in [*actions, Action(600, "wait", Side.BUY, "1", 0, False, TimeInForce.GTC)]:
        for cut in range(1, cuts + 1):
            engine.advance_to(after(minutes + action.minutes * cut / cuts))
        minutes += action.minutes
        with contextlib.suppress(OrderRejectedError):
            perform(engine, action)
    return engine.books()


def perform(engine: MatchingEngine, action: Action) -> None:
    tick = Decimal("0.1")
    wanted = engine.quote(BTC).last * (1 + Decimal(action.distance) / 10_000)
    price = str((wanted / tick).to_integral_value() * tick)
    if action.kind == "market":
        engine.place_order(market(action.side, action.quantity, reduce_only=action.reduce_only))
    elif action.kind == "limit":
        engine.place_order(limit(action.side, action.quantity, price, action.tif, reduce_only=action.reduce_only))
    elif action.kind == "stop":
        engine.place_algo(stop(action.side, action.quantity, price, reduce_only=action.reduce_only))
    elif action.kind == "close":
        engine.place_algo(stop(action.side, None, price, close_position=True))
    elif action.kind == "cancel":
        engine.cancel_open_orders(BTC)


@settings(max_examples=60, deadline=None)
@given(actions=ACTIONS, seed=st.integers(0, 5))
def test_the_books_add_up(actions: list[Action], seed: int) -> None:
    books = play(actions, seed, cuts=1)
    fills = [record.fill for record in books.fills]
    funding = sum(record.amount for record in books.incomes if record.type is IncomeType.FUNDING_FEE)
    realized = sum(fill.realized_pnl for fill in fills)
    fees = sum(fill.commission for fill in fills)
    assert books.wallet == books.wallet_start + realized - fees + funding
    assert books.wallet == books.wallet_start + sum(record.amount for record in books.incomes)
    assert books.positions[0].quantity == sum(fill.signed_quantity for fill in fills)
    for order in books.orders:
        own = [fill for fill in fills if fill.exchange_order_id == str(order.order_id)]
        assert order.executed == sum(fill.quantity for fill in own) <= order.quantity
        assert order.quote == sum(fill.quantity * fill.price for fill in own)
        assert (order.status is OrderStatus.FILLED) == (order.executed == order.quantity)
        if order.price:
            assert all((order.price - fill.price) * order.side.sign >= 0 for fill in own), "never worse than its limit"
    assert [fill.trade_id for fill in fills] == list(range(1, len(fills) + 1))
    for algo in books.algo_orders:
        assert (algo.actual_order_id is not None) == (algo.status is AlgoStatus.FINISHED)


@settings(max_examples=40, deadline=None)
@given(actions=ACTIONS, seed=st.integers(0, 3), cuts=st.integers(2, 7))
def test_the_same_inputs_give_the_same_books_however_time_is_cut(actions: list[Action], seed: int, cuts: int) -> None:
    assert play(actions, seed, cuts=1) == play(actions, seed, cuts=cuts)


@given(
    symbol=st.sampled_from(["BTCUSDT", "SOLUSDT", "NEWUSDT"]),
    price=st.floats(1e-6, 1e6, allow_nan=False),
)
def test_maintenance_margin_is_continuous_at_every_bracket(symbol: str, price: float) -> None:
    contract = contract_for(symbol, price)
    tiny = Decimal("0.000001")
    for bracket in contract.brackets[:-1]:
        below, above = (contract.maintenance_margin(bracket.cap + step) for step in (-tiny, tiny))
        assert abs(above - below) < tiny * 4
    caps = [bracket.cap for bracket in contract.brackets]
    assert caps == sorted(caps)
    assert [bracket.leverage for bracket in contract.brackets] == sorted(
        (bracket.leverage for bracket in contract.brackets), reverse=True
    )
