"""What must hold after any sequence of orders, changes and interventions: the books add up, however time is cut."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from decimal import Decimal
from types import MappingProxyType

from hypothesis import given, settings
from hypothesis import strategies as st

from infrastructure.paper_exchange.contracts import contract_for
from infrastructure.paper_exchange.matching_engine import MatchingEngine
from infrastructure.paper_exchange.modes import MarginType, PositionSide, SelfTradePrevention
from infrastructure.paper_exchange.records import (
    AlgoRequest,
    AlgoStatus,
    Books,
    IncomeType,
    OrderChange,
    OrderRequest,
    TimeInForce,
)
from infrastructure.paper_exchange.synthetic_candles import SyntheticCandleSource
from infrastructure.paper_exchange.user_events import UserEvent
from shared.errors import OrderRejectedError
from shared.trading.money import ZERO
from shared.trading.orders import OrderStatus, OrderType, Side
from tests.support.markets import BTC, START, after

SOL = "SOLUSDT"
SYMBOLS = (BTC, SOL)
#: Values of one order, USDT; the largest puts the wallet of 5 000 in danger.
VALUES = st.sampled_from([2_000, 90_000, 20_000, 300_000, 150])
#: Distance of a price from the last one, in basis points.
DISTANCES = st.sampled_from([-30, 10, 2, 80, -5, 30, -80, -10, 5])


@dataclass(frozen=True)
class Action:
    """One thing to do after waiting some minutes; each kind uses the fields it needs."""

    minutes: int
    kind: str
    symbol: str = BTC
    side: Side = Side.BUY
    value: int = 2_000
    distance: int = 0
    flag: bool = False
    tif: TimeInForce = TimeInForce.GTC
    prevention: SelfTradePrevention = SelfTradePrevention.EXPIRE_MAKER


@dataclass(frozen=True)
class Setting:
    """The market and how the account begins."""

    seed: int
    is_hedged: bool
    isolated: tuple[str, ...]
    leverage: int


SETTINGS = st.builds(
    Setting, st.integers(0, 5), st.booleans(), st.sampled_from([(), (BTC,), (BTC, SOL)]), st.sampled_from([20, 75])
)


class Desk:
    """An engine, and actions turned into calls; what the exchange refuses counts as not done."""

    def __init__(self, market: Setting) -> None:
        contracts = {
            symbol: replace(contract_for(symbol, 100.0), funding_interval=timedelta(hours=hours))
            for symbol, hours in ((BTC, 1), (SOL, 4))
        }
        source = SyntheticCandleSource(market.seed, SYMBOLS, "1m")
        self.engine = MatchingEngine(source, start=START, wallet=Decimal(5_000), contracts=contracts)
        if market.is_hedged:
            self.engine.set_position_mode(is_hedged=True)
        for symbol in market.isolated:
            self.engine.set_margin_type(symbol, MarginType.ISOLATED)
        for symbol in SYMBOLS:
            self.engine.set_leverage(symbol, market.leverage)
        self.events: list[UserEvent] = []

    def act(self, action: Action) -> None:
        with contextlib.suppress(OrderRejectedError):
            _ACTS[action.kind](self, action)

    def size(self, action: Action) -> Decimal:
        instrument = self.engine.contract(action.symbol).instrument
        price = self.engine.quote(action.symbol).last
        return max(instrument.lot_step, Decimal(action.value) / price // instrument.lot_step * instrument.lot_step)

    def price(self, action: Action) -> Decimal:
        tick = self.engine.contract(action.symbol).instrument.tick_size
        wanted = self.engine.quote(action.symbol).last * (1 + Decimal(action.distance) / 10_000)
        return (wanted / tick).to_integral_value() * tick

    def leg(self, action: Action) -> PositionSide:
        """In hedge mode ``flag`` decides whether the order opens its position or closes the other one."""
        if not self.engine.is_hedged:
            return PositionSide.BOTH
        return PositionSide.LONG if (action.side is Side.BUY) is not action.flag else PositionSide.SHORT

    def only_reduces(self, action: Action) -> bool:
        return action.flag and not self.engine.is_hedged

    def order(self, action: Action, kind: OrderType) -> None:
        is_limit = kind is OrderType.LIMIT
        self.engine.place_order(
            OrderRequest(
                symbol=action.symbol,
                side=action.side,
                type=kind,
                quantity=self.size(action),
                price=self.price(action) if is_limit else None,
                time_in_force=action.tif if is_limit else TimeInForce.GTC,
                reduce_only=self.only_reduces(action),
                position_side=self.leg(action),
                good_till=self.engine.now + timedelta(minutes=15)
                if is_limit and action.tif is TimeInForce.GTD
                else None,
                self_trade_prevention=action.prevention,
            )
        )

    def condition(self, action: Action, kind: OrderType) -> None:
        trails, rests = kind is OrderType.TRAILING_STOP_MARKET, kind is OrderType.STOP
        self.engine.place_algo(
            AlgoRequest(
                symbol=action.symbol,
                side=action.side,
                type=kind,
                trigger_price=None if trails else self.price(action),
                quantity=self.size(action),
                reduce_only=self.only_reduces(action),
                position_side=self.leg(action),
                price=self.price(action) if rests else None,
                callback_rate=Decimal("0.2") if trails else None,
            )
        )

    def close_all(self, action: Action) -> None:
        self.engine.place_algo(
            AlgoRequest(
                action.symbol,
                action.side,
                OrderType.STOP_MARKET,
                self.price(action),
                close_position=True,
                position_side=self.leg(action),
                time_in_force=TimeInForce.GTE_GTC if action.flag else TimeInForce.GTC,
            )
        )

    def amend(self, action: Action) -> None:
        for order in self.engine.open_orders(action.symbol)[:1]:
            self.engine.amend_order(
                OrderChange(action.symbol, self.size(action), self.price(action), order_id=order.order_id)
            )

    def set_margin_type(self, action: Action) -> None:
        chosen = MarginType.ISOLATED if action.flag else MarginType.CROSSED
        self.engine.set_margin_type(action.symbol, chosen)

    def adjust_margin(self, action: Action) -> None:
        self.engine.adjust_margin(
            action.symbol, Decimal(action.value) / 100, add=action.flag, position_side=self.leg(action)
        )

    def transfer(self, action: Action) -> None:
        (self.engine.deposit if action.flag else self.engine.withdraw)(Decimal(action.value) / 10)


_ACTS: Mapping[str, Callable[[Desk, Action], object]] = MappingProxyType(
    {
        "wait": lambda desk, action: None,
        "market": lambda desk, action: desk.order(action, OrderType.MARKET),
        "limit": lambda desk, action: desk.order(action, OrderType.LIMIT),
        "stop_market": lambda desk, action: desk.condition(action, OrderType.STOP_MARKET),
        "stop": lambda desk, action: desk.condition(action, OrderType.STOP),
        "take_profit": lambda desk, action: desk.condition(action, OrderType.TAKE_PROFIT_MARKET),
        "trailing": lambda desk, action: desk.condition(action, OrderType.TRAILING_STOP_MARKET),
        "close": Desk.close_all,
        "amend": Desk.amend,
        "cancel": lambda desk, action: desk.engine.cancel_open_orders(action.symbol),
        "cancel_algos": lambda desk, action: desk.engine.cancel_open_algos(action.symbol),
        "leverage": lambda desk, action: desk.engine.set_leverage(action.symbol, 5 + abs(action.distance) // 2),
        "mode": lambda desk, action: desk.engine.set_position_mode(is_hedged=action.flag),
        "margin_type": Desk.set_margin_type,
        "margin": Desk.adjust_margin,
        "transfer": Desk.transfer,
        "liquidate": lambda desk, action: desk.engine.liquidate(action.symbol, desk.leg(action)),
        "deleverage": lambda desk, action: desk.engine.deleverage(action.symbol, desk.leg(action), Decimal("0.5")),
        "funding": lambda desk, action: desk.engine.settle_funding(action.symbol, Decimal(action.distance) / 10_000),
    }
)
#: Trading comes more often than what changes the rules or comes from outside.
_KINDS = ["market", "limit", *_ACTS, *("market", "limit", "market", "limit", "trailing", "amend") * 3]
ACTIONS = st.lists(
    st.builds(
        Action,
        minutes=st.sampled_from([0, 1, 5, 40, 0, 200]),
        kind=st.sampled_from(_KINDS),
        symbol=st.sampled_from(SYMBOLS),
        side=st.sampled_from(Side),
        value=VALUES,
        distance=DISTANCES,
        flag=st.booleans(),
        tif=st.sampled_from([TimeInForce.GTC, *(tif for tif in TimeInForce if tif is not TimeInForce.GTE_GTC)]),
        prevention=st.sampled_from(SelfTradePrevention),
    ),
    min_size=6,
    max_size=20,
)
#: What every script ends with: time for orders to fill, expire and trigger.
_REST = Action(240, "wait")


def play(
    actions: list[Action], setting: Setting, cuts: int, look: Callable[[MatchingEngine], None] = lambda _: None
) -> Desk:
    """Return the desk after ``actions`` on a made-up market; waits are cut in ``cuts`` parts, a ``look`` after each."""
    desk = Desk(setting)
    minutes = 0
    for action in [*actions, _REST]:
        for cut in range(1, cuts + 1):
            desk.engine.advance_to(after(minutes + action.minutes * cut / cuts))
            if action.minutes:  # margins are judged at the market's steps
                look(desk.engine)
        minutes += action.minutes
        desk.act(action)
        desk.events += desk.engine.take_events()
    return desk


@settings(max_examples=40, deadline=None)
@given(actions=ACTIONS, setting=SETTINGS)
def test_the_books_add_up(actions: list[Action], setting: Setting) -> None:
    desk = play(actions, setting, cuts=10, look=check_margin)
    books = desk.engine.books()
    check_wallet(books)
    check_orders(desk.engine)
    check_positions(books)


def check_wallet(books: Books) -> None:
    """Wallet = deposits + realised - fees +- funding - clearance fees."""
    of: dict[IncomeType, Decimal] = defaultdict(lambda: ZERO)
    for record in books.incomes:
        of[record.type] += record.amount
    fills = [record.fill for record in books.fills]
    assert of[IncomeType.REALIZED_PNL] == sum(fill.realized_pnl for fill in fills)
    assert of[IncomeType.COMMISSION] == -sum(fill.commission for fill in fills)
    assert books.wallet == books.wallet_start + sum(of.values())
    assert of[IncomeType.INSURANCE_CLEAR] <= 0


def check_orders(engine: MatchingEngine) -> None:
    """Fills are their orders' and never worse than the limit; conditions name the order that they became."""
    books = engine.books()
    fills = [record.fill for record in books.fills]
    for order in books.orders:
        own = [fill for fill in fills if (fill.symbol, fill.exchange_order_id) == (order.symbol, str(order.order_id))]
        assert order.executed == sum(fill.quantity for fill in own) <= order.quantity
        assert order.quote == sum(fill.quantity * fill.price for fill in own)
        assert (order.status is OrderStatus.FILLED) == (order.executed == order.quantity)
        assert order.good_till is None or order.updated_at <= order.good_till
        if order.price and not engine.amendments(order.symbol, order_id=order.order_id):
            assert all((order.price - fill.price) * order.side.sign >= 0 for fill in own), "never worse than its limit"
    for symbol in SYMBOLS:
        ids = [fill.trade_id for fill in fills if fill.symbol == symbol]
        assert ids == list(range(1, len(ids) + 1))
    for algo in books.algo_orders:
        became = algo.status in (AlgoStatus.TRIGGERED, AlgoStatus.FINISHED)
        assert (algo.actual_order_id is not None) is became
        assert bool(algo.reject_reason) is (algo.status is AlgoStatus.REJECTED)


def check_positions(books: Books) -> None:
    """Every position is the sum of its fills; hedge mode's never turn."""
    sums: dict[tuple[str, PositionSide], Decimal] = defaultdict(lambda: ZERO)
    for record in books.fills:
        sums[record.fill.symbol, record.position_side] += record.fill.signed_quantity
    held = {(each.symbol, each.position_side): each.quantity for each in books.positions}
    assert {leg: quantity for leg, quantity in sums.items() if quantity} == {
        leg: quantity for leg, quantity in held.items() if quantity
    }
    assert all(quantity >= 0 for (_, side), quantity in held.items() if side is PositionSide.LONG)
    assert all(quantity <= 0 for (_, side), quantity in held.items() if side is PositionSide.SHORT)


def check_margin(engine: MatchingEngine) -> None:
    """What is not covered was liquidated: no balance below zero, no margin below maintenance."""
    account = engine.account()
    cross = [each for each in account.positions if each.margin_type is MarginType.CROSSED]
    assert account.wallet >= 0
    assert account.cross_wallet + account.cross_pnl >= sum(each.maintenance_margin for each in cross) - Decimal("1e-6")
    for position in account.positions:
        if position.margin_type is MarginType.ISOLATED:
            assert position.isolated_wallet >= 0
            assert position.isolated_margin >= position.maintenance_margin
        else:
            assert position.isolated_wallet == 0
        assert position.order_margin >= 0
    assert account.cross_wallet + sum(each.isolated_wallet for each in account.positions) == account.wallet


@settings(max_examples=25, deadline=None)
@given(actions=ACTIONS, setting=SETTINGS, cuts=st.integers(2, 5))
def test_the_same_inputs_give_the_same_books_and_events_however_time_is_cut(
    actions: list[Action], setting: Setting, cuts: int
) -> None:
    whole, cut = play(actions, setting, cuts=1), play(actions, setting, cuts=cuts)
    assert whole.engine.books() == cut.engine.books()
    assert whole.events == cut.events


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
