"""The exchange as a pure machine: market time, orders and cancels go in; fills, events and books come out.

It reads no clock and does no I/O. Two engines that are given the same candles and the same calls at the same market
times have equal books, however finely their time is advanced in between.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from typing import TypeVar

from infrastructure.paper_exchange.account import Account
from infrastructure.paper_exchange.account_desk import AccountDesk
from infrastructure.paper_exchange.algo_desk import AlgoDesk
from infrastructure.paper_exchange.candle_port import CandleSource
from infrastructure.paper_exchange.contracts import Contract, contract_for
from infrastructure.paper_exchange.funding import FundingClock, rate_at
from infrastructure.paper_exchange.liquidation_desk import LiquidationDesk
from infrastructure.paper_exchange.market import LEVELS, Market
from infrastructure.paper_exchange.modes import MarginType, PositionSide, SymbolStatus
from infrastructure.paper_exchange.order_desk import OrderDesk
from infrastructure.paper_exchange.playback import Playback, opening_price
from infrastructure.paper_exchange.records import (
    AccountRecord,
    AlgoRecord,
    AlgoRequest,
    Amendment,
    Books,
    FillRecord,
    IncomeRecord,
    Level,
    MarginChange,
    OrderChange,
    OrderRecord,
    OrderRequest,
    PositionRecord,
    Quote,
    Trade,
)
from infrastructure.paper_exchange.refusals import refusal
from infrastructure.paper_exchange.trading_floor import TradingFloor
from infrastructure.paper_exchange.user_events import UserEvent
from shared.errors import OrderRejectedError
from shared.trading.candles import Candle
from shared.trading.orders import Side

T = TypeVar("T")

#: Deposit of a new account, USDT.
DEFAULT_WALLET = Decimal(10_000)


class MatchingEngine:
    """A Binance USD-M look-alike for one account on the symbols of ``source``.

    Args:
        source: Candles of the market, past and future.
        start: Market time at which trading begins, aware UTC; every symbol needs a candle there.
        wallet: Deposit, USDT.
        contracts: Replaces the built-in contract of a symbol.
        seed: Decides the way of the price inside each candle.

    Raises:
        ConfigurationError: A symbol has no candle at ``start``.
    """

    def __init__(
        self,
        source: CandleSource,
        *,
        start: datetime,
        wallet: Decimal = DEFAULT_WALLET,
        contracts: dict[str, Contract] | None = None,
        seed: int = 1,
    ) -> None:
        self._source = source
        self._events: list[UserEvent] = []
        self._contracts = {
            symbol: (contracts or {}).get(symbol) or contract_for(symbol, opening_price(source, symbol, start))
            for symbol in source.symbols
        }
        self._playback = Playback(source, self._contracts, start, seed)
        self._markets = self._playback.markets
        self._account = Account(self._contracts, wallet, start)
        tell = self._events.append
        self._orders = OrderDesk(self._markets, self._account, tell)
        self._algos = AlgoDesk(self._markets, self._account, self._orders, tell)
        self._liquidations = LiquidationDesk(self._markets, self._account, self._orders, tell)
        self._value = self._orders.valuation
        self._settings = AccountDesk(self._markets, self._account, self._value, self._has_open_orders, tell)
        self._funding = FundingClock(self._contracts, start)
        self._floor = TradingFloor(
            source,
            self._contracts,
            self._account,
            orders=self._orders,
            algos=self._algos,
            settings=self._settings,
            liquidations=self._liquidations,
            funding=self._funding,
        )

    # -- time ------------------------------------------------------------------------------------------------------

    @property
    def now(self) -> datetime:
        """Market time."""
        return self._playback.now

    @property
    def symbols(self) -> tuple[str, ...]:
        return tuple(self._markets)

    @property
    def timeframe(self) -> str:
        """Timeframe of the candles that drive the market."""
        return self._source.timeframe

    @property
    def is_exhausted(self) -> bool:
        """True when the candles have ended: prices stand still, time goes on."""
        return self._playback.is_exhausted

    def advance_to(self, moment: datetime) -> None:
        """Play the market up to ``moment`` (never back): prices, triggers, fills and funding in order of time."""
        self._playback.advance_to(moment, self._floor)
        self._floor.expire_due(self.now)

    # -- orders ----------------------------------------------------------------------------------------------------

    def place_order(self, request: OrderRequest) -> OrderRecord:
        """Accept a MARKET or LIMIT order now and return it as it is after what filled at once.

        Raises:
            OrderRejectedError: With Binance's code and text; nothing was changed.
        """
        self._market(request.symbol)
        return self._orders.place(request, self.now)

    def place_orders(self, requests: Iterable[OrderRequest]) -> list[OrderRecord | OrderRejectedError]:
        """Place one order after the other and return, for each, what became of it or why it was refused."""
        return [_outcome(self.place_order, request) for request in requests]

    def amend_order(self, change: OrderChange) -> OrderRecord:
        """Give a resting limit order a new price and quantity: it keeps its id and loses its place in the queue.

        Raises:
            OrderRejectedError: -2013 it is not open, -5027 nothing would change, or as for a new order.
        """
        order = self._open_order(change.symbol, change.order_id, change.client_order_id, code=-2013)
        return self._orders.amend(order, change, self.now)

    def amend_orders(self, changes: Iterable[OrderChange]) -> list[OrderRecord | OrderRejectedError]:
        """Change one order after the other and return, for each, what became of it or why it was refused."""
        return [_outcome(self.amend_order, change) for change in changes]

    def amendments(
        self, symbol: str, *, order_id: int | None = None, client_order_id: str | None = None
    ) -> list[Amendment]:
        """Return the changes of one order, oldest first (-2013 when there is no such order)."""
        return self._orders.amendments(self.order(symbol, order_id=order_id, client_order_id=client_order_id))

    def order(self, symbol: str, *, order_id: int | None = None, client_order_id: str | None = None) -> OrderRecord:
        """Return one regular order.

        Raises:
            OrderRejectedError: -2013, there is none.
        """
        self._market(symbol)
        found = self._orders.find(symbol, order_id, client_order_id)
        if found is None:
            raise refusal(-2013)
        return found

    def orders(self, symbol: str) -> list[OrderRecord]:
        """Return every regular order of ``symbol``, oldest first."""
        self._market(symbol)
        return self._orders.all_orders(symbol)

    def open_orders(self, symbol: str | None = None) -> list[OrderRecord]:
        """Return the resting orders of one symbol or of all."""
        return [order for each in self._chosen(symbol) for order in self._orders.open_orders(each)]

    def cancel_order(
        self, symbol: str, *, order_id: int | None = None, client_order_id: str | None = None
    ) -> OrderRecord:
        """Cancel a resting order and return it.

        Raises:
            OrderRejectedError: -2011, it is unknown or no longer open.
        """
        return self._orders.cancel(self._open_order(symbol, order_id, client_order_id, code=-2011), self.now)

    def cancel_orders(
        self, symbol: str, *, order_ids: Iterable[int] = (), client_order_ids: Iterable[str] = ()
    ) -> list[OrderRecord | OrderRejectedError]:
        """Cancel one order after the other and return, for each, how it ended or why it could not be cancelled."""
        by_id = [_outcome(lambda each: self.cancel_order(symbol, order_id=each), each) for each in order_ids]
        return by_id + [
            _outcome(lambda each: self.cancel_order(symbol, client_order_id=each), each) for each in client_order_ids
        ]

    def _open_order(self, symbol: str, order_id: int | None, client_order_id: str | None, code: int) -> OrderRecord:
        self._market(symbol)
        for order in self._orders.open_orders(symbol):
            if order.order_id == order_id or (order_id is None and order.client_order_id == client_order_id):
                return order
        raise refusal(code)

    def _has_open_orders(self, symbol: str) -> bool:
        return bool(self._orders.open_orders(symbol) or self._algos.open_algos(symbol))

    def cancel_open_orders(self, symbol: str) -> list[OrderRecord]:
        """Cancel every resting regular order of ``symbol``; conditional ones stay."""
        return [self._orders.cancel(order, self.now) for order in self.open_orders(symbol)]

    def place_algo(self, request: AlgoRequest) -> AlgoRecord:
        """Accept a conditional order.

        Raises:
            OrderRejectedError: With Binance's code and text; nothing was changed.
        """
        self._market(request.symbol)
        return self._algos.place(request, self.now)

    def algo(self, *, algo_id: int | None = None, client_algo_id: str | None = None) -> AlgoRecord:
        """Return one conditional order.

        Raises:
            OrderRejectedError: -2013, there is none.
        """
        found = self._algos.find(algo_id, client_algo_id)
        if found is None:
            raise refusal(-2013)
        return found

    def algos(self, symbol: str) -> list[AlgoRecord]:
        """Return every conditional order of ``symbol``, oldest first."""
        self._market(symbol)
        return self._algos.all_algos(symbol)

    def open_algos(self, symbol: str | None = None) -> list[AlgoRecord]:
        """Return the untriggered conditional orders of one symbol or of all."""
        return [algo for each in self._chosen(symbol) for algo in self._algos.open_algos(each)]

    def cancel_algo(self, *, algo_id: int | None = None, client_algo_id: str | None = None) -> AlgoRecord:
        """Cancel an untriggered conditional order and return it.

        Raises:
            OrderRejectedError: -2011, it is unknown or no longer open.
        """
        for algo in self.open_algos():
            if algo.algo_id == algo_id or (algo_id is None and algo.client_algo_id == client_algo_id):
                return self._algos.cancel(algo, self.now)
        raise refusal(-2011)

    def cancel_open_algos(self, symbol: str) -> list[AlgoRecord]:
        """Cancel every untriggered conditional order of ``symbol``."""
        return [self._algos.cancel(algo, self.now) for algo in self.open_algos(symbol)]

    # -- account ---------------------------------------------------------------------------------------------------

    @property
    def is_hedged(self) -> bool:
        """True in hedge mode, with a LONG and a SHORT position per symbol."""
        return self._account.is_hedged

    def set_position_mode(self, *, is_hedged: bool) -> None:
        """Change to hedge mode or back.

        Raises:
            OrderRejectedError: -4059 nothing to change, -4067 there are open orders, -4068 there are positions.
        """
        self._settings.set_position_mode(is_hedged=is_hedged)

    def margin_type(self, symbol: str) -> MarginType:
        """Return what stands behind positions of ``symbol``."""
        return self._account.margin_type(self.contract(symbol).symbol)

    def set_margin_type(self, symbol: str, margin_type: MarginType) -> None:
        """Change what stands behind positions of ``symbol``.

        Raises:
            OrderRejectedError: -4046 nothing to change, -4047 there are open orders, -4048 there is a position.
        """
        self._settings.set_margin_type(self.contract(symbol).symbol, margin_type, self.now)

    def leverage(self, symbol: str) -> int:
        """Return the leverage of ``symbol``."""
        return self._account.leverage(self.contract(symbol).symbol)

    def set_leverage(self, symbol: str, leverage: int) -> None:
        """Set the leverage of new and held positions of ``symbol``.

        Raises:
            OrderRejectedError: -4028 out of range, -2027 the position is too large for it, -2028 the balance too small,
                -4161 lowered with an isolated position.
        """
        self._settings.set_leverage(self.contract(symbol).symbol, leverage, self.now)

    def adjust_margin(
        self, symbol: str, amount: Decimal, *, add: bool, position_side: PositionSide = PositionSide.BOTH
    ) -> None:
        """Move ``amount`` USDT to an isolated position (``add``) or back.

        Raises:
            OrderRejectedError: -4049 it is cross-margined, -4050 and -4051 there is not enough, -4054 it is flat,
                -4055 the amount is not above 0, -4061 the side does not suit the mode.
        """
        self._settings.adjust_margin(self.contract(symbol).symbol, position_side, amount, self.now, add=add)

    def margin_changes(self, symbol: str) -> list[MarginChange]:
        """Return the moves of isolated margin of ``symbol``, oldest first."""
        self._market(symbol)
        return [change for change in self._account.margin_changes if change.symbol == symbol]

    def deposit(self, amount: Decimal) -> None:
        """Pay ``amount`` USDT into the wallet (-4055 when it is not above 0)."""
        self._settings.deposit(amount, self.now)

    def withdraw(self, amount: Decimal) -> None:
        """Take ``amount`` USDT out of the wallet (-2018 when more than is free)."""
        self._settings.withdraw(amount, self.now)

    def position(self, symbol: str, position_side: PositionSide = PositionSide.BOTH) -> PositionRecord:
        """Return one position of ``symbol``, also when it is flat."""
        self._market(symbol)
        return self._value.position(symbol, position_side)

    def positions(self, symbol: str | None = None) -> tuple[PositionRecord, ...]:
        """Return the positions of one symbol or of all, flat ones too: one per symbol, two in hedge mode."""
        return self._value.positions(self._chosen(symbol))

    def account(self) -> AccountRecord:
        """Return balances, margins and all positions at the mark prices."""
        return self._value.account()

    def fills(self, symbol: str) -> list[FillRecord]:
        """Return the account's trades in ``symbol``, oldest first."""
        self._market(symbol)
        return [record for record in self._account.fills if record.fill.symbol == symbol]

    def incomes(self) -> list[IncomeRecord]:
        """Return every change of the wallet, oldest first."""
        return list(self._account.incomes)

    def remove_fill(self, symbol: str, trade_id: int) -> bool:
        """Forget one fill so that the books lie; tell whether there was one. Only tests of invariants want this."""
        return self._account.remove_fill(symbol, trade_id)

    def force_orders(self, symbol: str | None = None) -> list[OrderRecord]:
        """Return the orders of the exchange itself, of one symbol or of all, oldest first."""
        return [order for order in self._orders.all_orders(symbol) if order.is_forced]

    # -- interventions ---------------------------------------------------------------------------------------------

    def liquidate(self, symbol: str, position_side: PositionSide = PositionSide.BOTH) -> OrderRecord | None:
        """Liquidate a position now, whatever its margin; None when it is flat."""
        self._market(symbol)
        return self._liquidations.liquidate(symbol, position_side, self.now)

    def deleverage(
        self, symbol: str, position_side: PositionSide = PositionSide.BOTH, share: Decimal = Decimal(1)
    ) -> OrderRecord | None:
        """Take ``share`` of a position at the mark price, as auto-deleveraging does; None when it is flat."""
        self._market(symbol)
        return self._liquidations.deleverage(symbol, position_side, share, self.now)

    def delist(self, symbol: str) -> list[OrderRecord]:
        """Close a symbol for good: its orders go, its positions are settled at the mark price."""
        contract = self.contract(symbol)
        orders = self._liquidations.settle(symbol, self.now)
        self._algos.expire_all(symbol, self.now)
        self.replace_contract(replace(contract, status=SymbolStatus.CLOSE))
        return orders

    def force_hedge_mode(self) -> None:
        """Put the account into hedge mode whatever is open, as its owner could only do when flat; orders are gone."""
        for symbol in self.symbols:
            self.cancel_open_orders(symbol)
            self.cancel_open_algos(symbol)
        self._account.move_to_hedge_mode()

    def replace_contract(self, contract: Contract) -> None:
        """Change filters, fees, funding interval or status of a symbol from now on."""
        symbol = contract.symbol
        before = self.contract(symbol)
        self._contracts[symbol] = contract
        self._playback.change_contract(contract)
        if contract.funding_interval != before.funding_interval:
            self._funding.restart(symbol, self.now)

    def settle_funding(self, symbol: str, rate: Decimal | None = None) -> None:
        """Settle funding of one symbol now, at ``rate`` or at that of its next settlement."""
        self._market(symbol)
        due = self._funding.next_time(symbol)
        self._settings.settle_funding(symbol, self.funding_rate(symbol, due) if rate is None else rate, self.now)

    def ration_next(self, share: Decimal | None) -> None:
        """Let the next order fill by ``share`` of its quantity until ``ration_more`` allows more; None ends that."""
        self._orders.rations.ration_next(share)

    def ration_more(self, symbol: str, order_id: int, share: Decimal) -> bool:
        """Allow a rationed order one more ``share`` now; tell whether it is still rationed."""
        self._market(symbol)
        return self._orders.ration_more(symbol, order_id, share, self.now)

    def set_trigger_gate(self, gate: Callable[[AlgoRecord], OrderRejectedError | None]) -> None:
        """Let ``gate`` refuse the orders of conditions that come true."""
        self._algos.gate = gate

    def take_events(self) -> list[UserEvent]:
        """Return what the user stream has to say since the last call, oldest first."""
        events = self._events[:]
        self._events.clear()
        return events

    def books(self) -> Books:
        """Return everything the exchange knows about the account."""
        return Books(
            time=self.now,
            wallet_start=self._account.deposit,
            wallet=self._account.wallet,
            orders=tuple(self._orders.all_orders()),
            algo_orders=tuple(self._algos.all_algos()),
            fills=tuple(self._account.fills),
            incomes=tuple(self._account.incomes),
            positions=self.positions(),
        )

    # -- market ----------------------------------------------------------------------------------------------------

    def contract(self, symbol: str) -> Contract:
        """Return filters and brackets of ``symbol``.

        Raises:
            OrderRejectedError: -1121, it is not listed here.
        """
        return self._market(symbol).contract

    def quote(self, symbol: str) -> Quote:
        """Return the prices of ``symbol`` now."""
        market = self._market(symbol)
        return Quote(
            symbol=symbol,
            time=self.now,
            last=market.last,
            mark=market.mark,
            bid=market.best(Side.SELL),
            ask=market.best(Side.BUY),
            funding_rate=self.funding_rate(symbol, self._funding.next_time(symbol)),
            next_funding=self._funding.next_time(symbol),
        )

    def funding_rate(self, symbol: str, moment: datetime) -> Decimal:
        """Return the rate of the settlement at ``moment``."""
        return rate_at(self._source, self.contract(symbol), moment)

    def depth(self, symbol: str, count: int = LEVELS) -> tuple[list[Level], list[Level]]:
        """Return ``(bids, asks)``, best first."""
        market = self._market(symbol)
        return market.levels(Side.SELL, count), market.levels(Side.BUY, count)

    def update_id(self, symbol: str) -> int:
        """Return the number of the present state of the book of ``symbol``; it grows with every change."""
        return self._market(symbol).update_id

    def trades(self, symbol: str, after: datetime, until: datetime) -> list[Trade]:
        """Return the trades with ``after < time <= until``, oldest first, as far as the market has been played."""
        return self._playback.trades(self.contract(symbol).symbol, after, until)

    def first_open(self, symbol: str) -> datetime:
        """Return the open time of the oldest candle of ``symbol``."""
        return self._source.first_open(self._market(symbol).contract.symbol)

    def candles(self, symbol: str, timeframe: str, start: datetime, end: datetime) -> list[Candle]:
        """Return candles with ``start <= open_time < end`` up to now; the last one may still be forming.

        Raises:
            OrderRejectedError: -1120, ``timeframe`` is finer than or no multiple of the market's own.
        """
        self._market(symbol)
        if not self._playback.has_timeframe(timeframe):
            raise refusal(-1120)
        return self._playback.candles(symbol, timeframe, start, end)

    def _market(self, symbol: str) -> Market:
        try:
            return self._markets[symbol]
        except KeyError:
            raise refusal(-1121) from None

    def _chosen(self, symbol: str | None) -> tuple[str, ...]:
        if symbol is None:
            return self.symbols
        self._market(symbol)
        return (symbol,)


def _outcome(act: Callable[[T], OrderRecord], subject: T) -> OrderRecord | OrderRejectedError:
    try:
        return act(subject)
    except OrderRejectedError as error:
        return error
