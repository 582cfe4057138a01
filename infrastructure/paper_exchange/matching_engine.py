"""The exchange as a pure machine: market time, orders and cancels go in; fills, events and books come out.

It reads no clock and does no I/O. Two engines that are given the same candles and the same calls at the same market
times have equal books, however finely their time is advanced in between.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import Decimal

from infrastructure.paper_exchange.account import Account
from infrastructure.paper_exchange.algo_desk import AlgoDesk
from infrastructure.paper_exchange.candle_feed import CandleFeed
from infrastructure.paper_exchange.candle_path import STEPS
from infrastructure.paper_exchange.candle_port import CandleSource
from infrastructure.paper_exchange.contracts import Contract, contract_for
from infrastructure.paper_exchange.funding import next_funding_time, rate_at
from infrastructure.paper_exchange.klines import aggregate, slot_start
from infrastructure.paper_exchange.market import LEVELS, Market
from infrastructure.paper_exchange.order_desk import OrderDesk
from infrastructure.paper_exchange.records import (
    AccountRecord,
    AlgoRecord,
    AlgoRequest,
    Books,
    FillRecord,
    IncomeRecord,
    Level,
    OrderRecord,
    OrderRequest,
    PositionRecord,
    Quote,
    Trade,
)
from infrastructure.paper_exchange.refusals import refusal
from infrastructure.paper_exchange.tape import trades_at
from infrastructure.paper_exchange.user_events import UserEvent, account_update
from shared.errors import ConfigurationError, OrderRejectedError
from shared.trading.candles import Candle
from shared.trading.instruments import timeframe_duration
from shared.trading.orders import OrderType, Side

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
        self._slot_length: timedelta = timeframe_duration(source.timeframe)
        self._step_length = self._slot_length / STEPS
        self._slot = slot_start(start, self._slot_length)
        self._step = int((start - self._slot) / self._step_length)
        self._now = start
        self._next_funding = next_funding_time(start)
        self._events: list[UserEvent] = []
        self.is_hedged = False
        self._contracts = {
            symbol: (contracts or {}).get(symbol) or contract_for(symbol, self._price_at_start(symbol, start))
            for symbol in source.symbols
        }
        self._feeds = {
            symbol: CandleFeed(source, symbol, contract.instrument.tick_size, seed)
            for symbol, contract in self._contracts.items()
        }
        self._markets = {symbol: Market(contract) for symbol, contract in self._contracts.items()}
        self._account = Account(self._contracts, wallet, start)
        self._orders = OrderDesk(self._markets, self._account, self._events.append)
        self._algos = AlgoDesk(self._markets, self._account, self._orders, self._events.append)
        self._move_markets()

    def _price_at_start(self, symbol: str, start: datetime) -> float:
        candles = self._source.candles(symbol, self._slot, self._slot + self._slot_length)
        if not candles:
            first, last = self._source.first_open(symbol), self._source.last_open(symbol)
            raise ConfigurationError(
                f"{symbol} has no candle at the market start {start.isoformat()}; "
                f"its candles run from {first.isoformat()} to {last.isoformat() if last else 'no end'}"
            )
        return candles[0].open

    # -- time ------------------------------------------------------------------------------------------------------

    @property
    def now(self) -> datetime:
        """Market time."""
        return self._now

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
        return self._step >= STEPS - 1 and not self._has_slot(self._slot + self._slot_length)

    def advance_to(self, moment: datetime) -> None:
        """Play the market up to ``moment`` (never back): prices, triggers, fills and funding in order of time."""
        while self._slot + self._slot_length <= moment:
            self._play(STEPS - 1)
            following = self._slot + self._slot_length
            if not self._has_slot(following):
                break
            self._slot, self._step = following, -1
        self._play(min(STEPS - 1, int((moment - self._slot) / self._step_length)))
        self._now = max(self._now, moment)

    def _has_slot(self, open_time: datetime) -> bool:
        return all(feed.path(open_time) is not None for feed in self._feeds.values())

    def _play(self, last: int) -> None:
        """Play the current candles up to step ``last``; jump where nothing can happen on the way."""
        first = self._step + 1
        if first > last:
            return
        touched = [symbol for symbol in self._markets if self._can_act(symbol)]
        for step in range(first, last + 1) if touched else self._quiet_steps(first, last):
            self._step = step
            self._now = max(self._now, self._slot + self._step_length * step)
            self._move_markets()
            if self._now >= self._next_funding:
                self._settle_funding()
            for symbol in touched:
                self._algos.trigger(symbol, self._now)
                self._orders.match(symbol, self._now)

    def _can_act(self, symbol: str) -> bool:
        path = self._feeds[symbol].path(self._slot)
        assert path is not None, "a slot is entered only when every symbol has its candle"
        tick = self._contracts[symbol].instrument.tick_size
        low, high = path.low * tick, path.high * tick
        return self._orders.may_fill(symbol, low, high) or self._algos.may_trigger(symbol, low, high)

    def _quiet_steps(self, first: int, last: int) -> list[int]:
        """Return the steps that matter when no order can act: the last, and those that settle funding."""
        steps = {last}
        moment = self._next_funding
        while (due := -(-(moment - self._slot) // self._step_length)) <= last:  # rounded up
            steps.add(max(first, due))
            moment = next_funding_time(moment)
        return sorted(steps)

    def _move_markets(self) -> None:
        for symbol, market in self._markets.items():
            path = self._feeds[symbol].path(self._slot)
            assert path is not None, "a slot is entered only when every symbol has its candle"
            market.move_to(path, self._step)

    def _settle_funding(self) -> None:
        for symbol, market in self._markets.items():
            self._pay_funding(symbol, market, rate_at(self._source, symbol, self._next_funding))
        self._next_funding = next_funding_time(self._now)

    def _pay_funding(self, symbol: str, market: Market, rate: Decimal) -> None:
        amount = self._account.book_funding(symbol, rate, market.mark, self._now)
        if amount:
            self._events.append(account_update("FUNDING_FEE", self._account.wallet, amount, (), self._now))

    # -- orders ----------------------------------------------------------------------------------------------------

    def place_order(self, request: OrderRequest) -> OrderRecord:
        """Accept a MARKET or LIMIT order now and return it as it is after what filled at once.

        Raises:
            OrderRejectedError: With Binance's code and text; nothing was changed.
        """
        self._market(request.symbol)
        return self._orders.place(request, self._now)

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
        self._market(symbol)
        resting = self._orders.open_orders(symbol)
        for order in resting:
            if order.order_id == order_id or (order_id is None and order.client_order_id == client_order_id):
                return self._orders.cancel(order, self._now)
        raise refusal(-2011)

    def cancel_open_orders(self, symbol: str) -> list[OrderRecord]:
        """Cancel every resting regular order of ``symbol``; conditional ones stay."""
        return [self._orders.cancel(order, self._now) for order in self.open_orders(symbol)]

    # -- conditional orders ----------------------------------------------------------------------------------------

    def place_algo(self, request: AlgoRequest) -> AlgoRecord:
        """Accept a STOP_MARKET or TAKE_PROFIT_MARKET order.

        Raises:
            OrderRejectedError: With Binance's code and text; nothing was changed.
        """
        self._market(request.symbol)
        return self._algos.place(request, self._now)

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
                return self._algos.cancel(algo, self._now)
        raise refusal(-2011)

    def cancel_open_algos(self, symbol: str) -> list[AlgoRecord]:
        """Cancel every untriggered conditional order of ``symbol``."""
        return [self._algos.cancel(algo, self._now) for algo in self.open_algos(symbol)]

    # -- account ---------------------------------------------------------------------------------------------------

    def set_leverage(self, symbol: str, leverage: int) -> None:
        """Set the leverage of new and held positions of ``symbol``.

        Raises:
            OrderRejectedError: -4028 out of range, -2027 the position is too large for it.
        """
        contract = self.contract(symbol)
        if not 1 <= leverage <= contract.instrument.max_leverage:
            raise refusal(-4028, leverage)
        notional = self._account.exposure(symbol, self._markets[symbol].mark, self._orders.open_orders(symbol))
        if notional > contract.max_notional(leverage):
            raise refusal(-2027)
        self._account.set_leverage(symbol, leverage)

    def position(self, symbol: str) -> PositionRecord:
        """Return the position of ``symbol``, also when it is flat."""
        market = self._market(symbol)
        return self._account.position_record(symbol, market.mark, self._orders.open_orders(symbol))

    def account(self) -> AccountRecord:
        """Return balances, margins and all positions at the mark prices."""
        return self._account.record(tuple(self.position(symbol) for symbol in self._markets))

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

    # -- what only faults ask for ------------------------------------------------------------------------------------

    def ration_next(self, share: Decimal | None) -> None:
        """Let the next order fill by ``share`` of its quantity until ``ration_more`` allows more; None ends that."""
        self._orders.ration_next(share)

    def ration_more(self, symbol: str, order_id: int, share: Decimal) -> bool:
        """Allow a rationed order one more ``share`` now; tell whether it is still rationed."""
        return self._orders.ration_more(symbol, order_id, share, self._now)

    def set_trigger_gate(self, gate: Callable[[AlgoRecord], OrderRejectedError | None]) -> None:
        """Let ``gate`` refuse the market orders of conditions that come true."""
        self._algos.gate = gate

    def replace_contract(self, contract: Contract) -> None:
        """Change the filters or the status of a symbol."""
        self._market(contract.symbol).contract = contract
        self._contracts[contract.symbol] = contract

    def close_by_force(self, symbol: str, client_order_id: str) -> OrderRecord | None:
        """Close the position at market under a name that is not the client's; None when there is none."""
        held = self.position(symbol).quantity
        if not held:
            return None
        side = Side.SELL if held > 0 else Side.BUY
        return self._orders.place(
            OrderRequest(symbol, side, OrderType.MARKET, abs(held), client_order_id=client_order_id, reduce_only=True),
            self._now,
        )

    def settle_funding(self, symbol: str, rate: Decimal | None = None) -> None:
        """Settle funding of one symbol now, at ``rate`` or at that of its next settlement."""
        rate = rate_at(self._source, symbol, self._next_funding) if rate is None else rate
        self._pay_funding(symbol, self._market(symbol), rate)

    def take_events(self) -> list[UserEvent]:
        """Return what the user stream has to say since the last call, oldest first."""
        events = self._events[:]
        self._events.clear()
        return events

    def books(self) -> Books:
        """Return everything the exchange knows about the account."""
        return Books(
            time=self._now,
            wallet_start=self._account.deposit,
            wallet=self._account.wallet,
            orders=tuple(self._orders.all_orders()),
            algo_orders=tuple(self._algos.all_algos()),
            fills=tuple(self._account.fills),
            incomes=tuple(self._account.incomes),
            positions=tuple(self.position(symbol) for symbol in self._markets),
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
            time=self._now,
            last=market.last,
            mark=market.mark,
            bid=market.best(Side.SELL),
            ask=market.best(Side.BUY),
            funding_rate=rate_at(self._source, symbol, self._next_funding),
            next_funding=self._next_funding,
        )

    def funding_rate(self, symbol: str, moment: datetime) -> Decimal:
        """Return the rate of the settlement at ``moment``."""
        return rate_at(self._source, self.contract(symbol).symbol, moment)

    def depth(self, symbol: str, count: int = LEVELS) -> tuple[list[Level], list[Level]]:
        """Return ``(bids, asks)``, best first."""
        market = self._market(symbol)
        return market.levels(Side.SELL, count), market.levels(Side.BUY, count)

    def update_id(self, symbol: str) -> int:
        """Return the number of the present state of the book of ``symbol``; it grows with every change."""
        return self._market(symbol).update_id

    def trades(self, symbol: str, after: datetime, until: datetime) -> list[Trade]:
        """Return the trades with ``after < time <= until``, oldest first, as far as the market has been played."""
        instrument = self.contract(symbol).instrument
        until = min(until, self._now)
        found: list[Trade] = []
        slot = slot_start(max(after, self._source.first_open(symbol)), self._slot_length)
        while slot <= min(until, self._slot) and (path := self._feeds[symbol].path(slot)) is not None:
            first, last = (int((moment - slot) / self._step_length) for moment in (after, until))
            for step in range(max(0, first), min(STEPS - 1, last) + 1):
                found += [trade for trade in trades_at(path, step, instrument) if after < trade.time <= until]
            slot += self._slot_length
        return found

    def first_open(self, symbol: str) -> datetime:
        """Return the open time of the oldest candle of ``symbol``."""
        return self._source.first_open(self._market(symbol).contract.symbol)

    def candles(self, symbol: str, timeframe: str, start: datetime, end: datetime) -> list[Candle]:
        """Return candles with ``start <= open_time < end`` up to now; the last one may still be forming.

        Raises:
            OrderRejectedError: -1120, ``timeframe`` is finer than or no multiple of the market's own.
        """
        market = self._market(symbol)
        length = timeframe_duration(timeframe)
        if length % self._slot_length:
            raise refusal(-1120)
        first = max(slot_start(start, length), self._source.first_open(symbol))
        closed = self._source.candles(symbol, first, min(slot_start(end, length) + length, self._slot))
        known = [*closed, market.forming_candle] if end > self._slot else closed
        return [candle for candle in aggregate(known, timeframe) if start <= candle.open_time < end]

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
