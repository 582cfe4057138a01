"""Regular orders: accept, match against the market, rest, fill, cancel."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal

from infrastructure.paper_exchange.account import Account
from infrastructure.paper_exchange.contracts import MAKER_FEE, TAKER_FEE
from infrastructure.paper_exchange.filters import check_against_market, check_order_fields
from infrastructure.paper_exchange.market import Market
from infrastructure.paper_exchange.records import FillRecord, Level, OrderRecord, OrderRequest, TimeInForce
from infrastructure.paper_exchange.refusals import refusal
from infrastructure.paper_exchange.user_events import UserEvent, account_update, order_update
from shared.trading.money import ZERO, round_down
from shared.trading.orders import OrderStatus, OrderType, Side

#: Binance asks this much more margin for a market order than its best price needs.
_MARKET_ORDER_ALLOWANCE = Decimal("1.0005")


@dataclass(frozen=True, slots=True)
class Trigger:
    """The condition that a market order comes from."""

    algo_id: int
    origin_type: OrderType
    stop_price: Decimal
    close_position: bool


class OrderDesk:
    """Every regular order ever accepted, and the rules by which they fill."""

    def __init__(self, markets: Mapping[str, Market], account: Account, announce: Callable[[UserEvent], None]) -> None:
        self._markets = markets
        self._account = account
        self._announce = announce
        self._orders: dict[tuple[str, int], OrderRecord] = {}
        self._open: dict[str, dict[int, OrderRecord]] = {symbol: {} for symbol in markets}
        self._by_client_id: dict[tuple[str, str], int] = {}
        self._next_share: Decimal | None = None
        self._rations: dict[tuple[str, int], Decimal] = {}

    # -- reading ---------------------------------------------------------------------------------------------------

    def all_orders(self, symbol: str | None = None) -> list[OrderRecord]:
        """Return every order, oldest first."""
        return [order for order in self._orders.values() if symbol in (None, order.symbol)]

    def open_orders(self, symbol: str) -> list[OrderRecord]:
        return list(self._open[symbol].values())

    def find(self, symbol: str, order_id: int | None, client_order_id: str | None) -> OrderRecord | None:
        """Return the order with either id; of several with one client id the newest."""
        if order_id is None:
            order_id = self._by_client_id.get((symbol, client_order_id or ""))
        return None if order_id is None else self._orders.get((symbol, order_id))

    def may_fill(self, symbol: str, low: Decimal, high: Decimal) -> bool:
        """Tell whether a resting order can fill while the price stays within ``low`` and ``high``."""
        return any(
            order.price >= low if order.side is Side.BUY else order.price <= high
            for order in self._open[symbol].values()
            if not self._must_expire(order)
        )

    # -- accepting -------------------------------------------------------------------------------------------------

    def place(self, request: OrderRequest, now: datetime) -> OrderRecord:
        """Accept ``request``, fill what can be filled at once, and return the order as it then is.

        Raises:
            OrderRejectedError: With Binance's code; nothing was changed.
        """
        market = self._markets[request.symbol]
        check_order_fields(request, market.contract)
        self._check_unused(request)
        request = self._reduced(request)
        return self._accept(request, now, trigger=None)

    def place_triggered(self, request: OrderRequest, trigger: Trigger, now: datetime) -> OrderRecord:
        """Accept the market order of a condition that came true; the same checks as for any market order."""
        return self._accept(self._reduced(request), now, trigger=trigger)

    def _accept(self, request: OrderRequest, now: datetime, trigger: Trigger | None) -> OrderRecord:
        market = self._markets[request.symbol]
        best_price = market.best(request.side).price
        check_against_market(request, market.contract, mark=market.mark, best=best_price)
        self._check_immediacy(request, market)
        self._check_margin(request, best_price)
        order = self._new_order(request, now, trigger)
        self._announce(order_update(order, "NEW", now))
        order = self._take(order, now)
        return self._expire_rest(order, now)

    def _check_unused(self, request: OrderRequest) -> None:
        resting = self._open[request.symbol].values()
        if request.client_order_id and any(order.client_order_id == request.client_order_id for order in resting):
            raise refusal(-4116)
        if request.type is OrderType.LIMIT and len(resting) >= self._markets[request.symbol].contract.max_open_orders:
            raise refusal(-2025)

    def _reduced(self, request: OrderRequest) -> OrderRequest:
        """Cut a reduce-only request to the position; refuse one that would not reduce."""
        if not request.reduce_only:
            return request
        held = self._account.position(request.symbol).quantity
        if held * request.side.sign >= 0:
            raise refusal(-2022)
        return replace(request, quantity=min(request.quantity, abs(held)))

    def _check_immediacy(self, request: OrderRequest, market: Market) -> None:
        at_once = market.available(request.side, request.price) if request.type is OrderType.LIMIT else None
        if at_once is None:
            return
        if request.time_in_force is TimeInForce.GTX and at_once > 0:
            raise refusal(-5022)
        if request.time_in_force is TimeInForce.FOK and at_once < request.quantity:
            raise refusal(-5021)

    def _check_margin(self, request: OrderRequest, best_price: Decimal) -> None:
        """Refuse what the free balance cannot carry (-2019) or the leverage does not allow (-2027)."""
        if request.reduce_only:
            return
        symbol = request.symbol
        mark = self._markets[symbol].mark
        price = request.price or best_price * (_MARKET_ORDER_ALLOWANCE if request.side is Side.BUY else 1)
        resting = self.open_orders(symbol)
        before = self._account.exposure(symbol, mark, resting)
        after = self._account.exposure(symbol, mark, resting, extra=price * request.quantity * request.side.sign)
        leverage = self._account.leverage(symbol)
        if after > before and after > self._markets[symbol].contract.max_notional(leverage):
            raise refusal(-2027)
        # Buying above (selling below) the mark loses at once.
        loss = max(ZERO, (price - mark) * request.side.sign) * request.quantity if after > before else ZERO
        if (after - before) / leverage + loss > self._available():
            raise refusal(-2019)

    def _available(self) -> Decimal:
        return self._account.record(
            tuple(
                self._account.position_record(symbol, market.mark, self.open_orders(symbol))
                for symbol, market in self._markets.items()
            )
        ).available

    def _new_order(self, request: OrderRequest, now: datetime, trigger: Trigger | None) -> OrderRecord:
        symbol = request.symbol
        order_id = len(self._orders) + 1
        order = OrderRecord(
            symbol=symbol,
            order_id=order_id,
            client_order_id=request.client_order_id or f"auto-{symbol}-{order_id}",
            side=request.side,
            type=request.type,
            origin_type=trigger.origin_type if trigger else request.type,
            quantity=request.quantity,
            price=request.price or ZERO,
            time_in_force=request.time_in_force,
            reduce_only=request.reduce_only,
            status=OrderStatus.NEW,
            created_at=now,
            updated_at=now,
            algo_id=trigger.algo_id if trigger else None,
            close_position=trigger.close_position if trigger else False,
            stop_price=trigger.stop_price if trigger else ZERO,
        )
        self._by_client_id[symbol, order.client_order_id] = order_id
        if self._next_share is not None:
            self._rations[symbol, order_id] = self._share_of(order, self._next_share)
            self._next_share = None
        return self._keep(order)

    # -- matching --------------------------------------------------------------------------------------------------

    def match(self, symbol: str, now: datetime) -> None:
        """Fill what the market's present price lets fill of the resting orders, best prices first."""
        resting = sorted(
            (order for order in self._open[symbol].values() if not self._must_expire(order)),
            key=lambda order: (-order.price * order.side.sign, order.order_id),
        )
        for order in resting:
            self._match_resting(order, now)

    def _match_resting(self, order: OrderRecord, now: datetime) -> None:
        wanted = self._fillable(order)
        if wanted <= 0:
            if self._markets[order.symbol].crosses(order.side, order.price):
                self._close(order, OrderStatus.EXPIRED, "EXPIRED", now)
            return
        quantity = self._markets[order.symbol].fill_resting(order.order_id, min(wanted, self._allowed(order)))
        if quantity:  # a resting order fills at its own price
            self._fill(order, [Level(order.price, quantity)], MAKER_FEE, now)

    def _take(self, order: OrderRecord, now: datetime) -> OrderRecord:
        limit = order.price if order.type is OrderType.LIMIT else None
        got = self._markets[order.symbol].take(order.side, min(order.remaining, self._allowed(order)), limit)
        return self._fill(order, got, TAKER_FEE, now) if got else order

    def _fillable(self, order: OrderRecord) -> Decimal:
        """Return what may still fill: a reduce-only order never more than the position that is left."""
        if not order.reduce_only:
            return order.remaining
        held = self._account.position(order.symbol).quantity
        return min(order.remaining, max(ZERO, -held * order.side.sign))

    def _fill(self, order: OrderRecord, levels: list[Level], fee_rate: Decimal, now: datetime) -> OrderRecord:
        is_maker = fee_rate == MAKER_FEE
        steps: list[tuple[OrderRecord, FillRecord]] = []
        for level in levels:
            fill = self._account.book_fill(
                order, price=level.price, quantity=level.quantity, fee_rate=fee_rate, is_maker=is_maker, now=now
            )
            executed = order.executed + level.quantity
            order = replace(
                order,
                executed=executed,
                quote=order.quote + level.price * level.quantity,
                status=OrderStatus.FILLED if executed == order.quantity else OrderStatus.PARTIALLY_FILLED,
                updated_at=now,
            )
            steps.append((order, fill))
        self._keep(order)
        self._announce_fills(order.symbol, steps, now)
        return order

    def _announce_fills(self, symbol: str, steps: list[tuple[OrderRecord, FillRecord]], now: datetime) -> None:
        """The account first, then each trade: the order in which Binance usually sends them."""
        position = self._account.position_record(symbol, self._markets[symbol].mark, self.open_orders(symbol))
        self._announce(account_update("ORDER", self._account.wallet, ZERO, [position], now))
        for order, fill in steps:
            self._announce(order_update(order, "TRADE", now, fill))

    # -- partial fills on purpose ----------------------------------------------------------------------------------

    def ration_next(self, share: Decimal | None) -> None:
        """Let the next order fill by ``share`` of its quantity only, until ``ration_more`` allows more."""
        self._next_share = share

    def ration_more(self, symbol: str, order_id: int, share: Decimal, now: datetime) -> bool:
        """Allow a rationed order one more ``share``; tell whether it is still rationed."""
        order = self._open[symbol].get(order_id)
        if order is None or (symbol, order_id) not in self._rations:
            self._rations.pop((symbol, order_id), None)
            return False
        self._rations[symbol, order_id] += self._share_of(order, share)
        if self._must_expire(order):
            order = self._take(order, now)
        if order.is_open and self._rations[symbol, order_id] < order.quantity:
            return True
        del self._rations[symbol, order_id]
        self._expire_rest(order, now)
        return False

    def _share_of(self, order: OrderRecord, share: Decimal) -> Decimal:
        step = self._markets[order.symbol].contract.instrument.lot_step
        return max(step, round_down(order.quantity * share, step))

    def _allowed(self, order: OrderRecord) -> Decimal:
        """Return what may fill now: everything, unless the order is rationed."""
        ration = self._rations.get((order.symbol, order.order_id))
        return order.remaining if ration is None else max(ZERO, ration - order.executed)

    # -- ending ----------------------------------------------------------------------------------------------------

    def cancel(self, order: OrderRecord, now: datetime) -> OrderRecord:
        """Cancel an open order.

        Raises:
            OrderRejectedError: -2011, it is not open.
        """
        if not order.is_open:
            raise refusal(-2011)
        return self._close(order, OrderStatus.CANCELED, "CANCELED", now)

    def _expire_rest(self, order: OrderRecord, now: datetime) -> OrderRecord:
        """Expire what an order that may not rest has left; a rationed one waits for its next share."""
        is_rationed = (order.symbol, order.order_id) in self._rations
        if order.is_open and self._must_expire(order) and not is_rationed:
            return self._close(order, OrderStatus.EXPIRED, "EXPIRED", now)
        return order

    def _must_expire(self, order: OrderRecord) -> bool:
        return order.type is OrderType.MARKET or order.time_in_force is TimeInForce.IOC

    def _close(self, order: OrderRecord, status: OrderStatus, execution: str, now: datetime) -> OrderRecord:
        closed = self._keep(replace(order, status=status, updated_at=now))
        self._announce(order_update(closed, execution, now))
        return closed

    def _keep(self, order: OrderRecord) -> OrderRecord:
        self._orders[order.symbol, order.order_id] = order
        market = self._markets[order.symbol]
        if order.is_open:
            self._open[order.symbol][order.order_id] = order
            if order.price:
                market.join(order.order_id, order.side, order.price)
        else:
            self._open[order.symbol].pop(order.order_id, None)
            market.leave(order.order_id)
        return order
