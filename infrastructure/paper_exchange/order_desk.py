"""Regular orders: accept, match against the market, rest, fill, change, cancel."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal

from infrastructure.paper_exchange.account import Account
from infrastructure.paper_exchange.filters import (
    check_against_market,
    check_good_till,
    check_order_fields,
    check_position_side,
    check_price,
    check_quantity,
)
from infrastructure.paper_exchange.market import Market
from infrastructure.paper_exchange.modes import ExpiryReason, PositionSide, SymbolStatus
from infrastructure.paper_exchange.order_store import OrderStore
from infrastructure.paper_exchange.rations import Rations
from infrastructure.paper_exchange.records import (
    Amendment,
    FillRecord,
    Level,
    OrderChange,
    OrderRecord,
    OrderRequest,
    TimeInForce,
    WorkingType,
)
from infrastructure.paper_exchange.refusals import refusal
from infrastructure.paper_exchange.self_trades import expires_makers, expires_taker, met, taking_limit
from infrastructure.paper_exchange.user_events import UserEvent, account_update, order_update, trade_lite
from infrastructure.paper_exchange.valuation import Valuation
from shared.trading.money import ZERO
from shared.trading.orders import OrderStatus, OrderType, Side

#: Binance asks this much more margin for a market order than its best price needs.
_MARKET_ORDER_ALLOWANCE = Decimal("1.0005")
_MAX_AMENDMENTS = 10_000


@dataclass(frozen=True, slots=True)
class Trigger:
    """The condition that an order comes from."""

    algo_id: int
    origin_type: OrderType
    stop_price: Decimal
    close_position: bool
    working_type: WorkingType = WorkingType.CONTRACT_PRICE
    price_protect: bool = False


class OrderDesk:
    """The rules by which regular orders enter, fill and leave."""

    def __init__(self, markets: Mapping[str, Market], account: Account, announce: Callable[[UserEvent], None]) -> None:
        self._markets = markets
        self._account = account
        self._announce = announce
        self._store = OrderStore(markets)
        self.valuation = Valuation(markets, account, self._store.open)
        self.rations = Rations()
        #: Called with every order that came to its end.
        self.on_end: Callable[[OrderRecord, datetime], None] = lambda _order, _now: None
        #: Called when a position is gone.
        self.on_flat: Callable[[str, PositionSide, datetime], None] = lambda _symbol, _side, _now: None

    # -- reading ---------------------------------------------------------------------------------------------------

    def all_orders(self, symbol: str | None = None) -> list[OrderRecord]:
        """Return every order, oldest first."""
        return self._store.all(symbol)

    def open_orders(self, symbol: str) -> list[OrderRecord]:
        return self._store.open(symbol)

    def find(self, symbol: str, order_id: int | None, client_order_id: str | None) -> OrderRecord | None:
        """Return the order with either id; of several with one client id the newest."""
        return self._store.find(symbol, order_id, client_order_id)

    def amendments(self, order: OrderRecord) -> list[Amendment]:
        """Return the changes of one order, oldest first."""
        return self._store.amendments(order)

    def may_fill(self, symbol: str, low: Decimal, high: Decimal) -> bool:
        """Tell whether a resting order can fill while the price stays within ``low`` and ``high``."""
        return any(
            order.price >= low if order.side is Side.BUY else order.price <= high
            for order in self._store.open(symbol)
            if not _must_expire(order)
        )

    # -- accepting -------------------------------------------------------------------------------------------------

    def place(self, request: OrderRequest, now: datetime) -> OrderRecord:
        """Accept ``request``, fill what can be filled at once, and return the order as it then is.

        Raises:
            OrderRejectedError: With Binance's code; nothing was changed.
        """
        market = self._markets[request.symbol]
        check_order_fields(request, market.contract)
        check_good_till(request.time_in_force, request.good_till, now)
        check_position_side(request, is_hedged=self._account.is_hedged)
        self._check_unused(request)
        return self._accept(request, now, trigger=None)

    def place_triggered(self, request: OrderRequest, trigger: Trigger, now: datetime) -> OrderRecord:
        """Accept the order of a condition that came true; the same checks as for any order that needs the market."""
        check_position_side(request, is_hedged=self._account.is_hedged)
        self._check_room(request)
        return self._accept(request, now, trigger=trigger)

    def _accept(self, request: OrderRequest, now: datetime, trigger: Trigger | None) -> OrderRecord:
        market = self._markets[request.symbol]
        request = self._reduced(request)
        best_price = market.best(request.side).price
        check_against_market(request, market.contract, mark=market.mark, best=best_price)
        self._check_immediacy(request, market)
        draft = _draft(request, now, trigger)
        self._check_margin(draft, request.price or best_price * _allowance(request.side))
        order_id = self._store.next_id()
        name = request.client_order_id or f"auto-{request.symbol}-{order_id}"
        order = self._keep(replace(draft, order_id=order_id, client_order_id=name))
        self.rations.begin(order, market.contract.instrument.lot_step)
        self._announce(order_update(order, "NEW", now))
        return self._expire_rest(self._take(order, now), now)

    def _check_unused(self, request: OrderRequest) -> None:
        resting = self._store.open(request.symbol)
        if request.client_order_id and any(order.client_order_id == request.client_order_id for order in resting):
            raise refusal(-4116)
        self._check_room(request)

    def _check_room(self, request: OrderRequest) -> None:
        most = self._markets[request.symbol].contract.max_open_orders
        if request.type is OrderType.LIMIT and len(self._store.open(request.symbol)) >= most:
            raise refusal(-2025)

    def _reduced(self, request: OrderRequest, *, instead_of: int | None = None) -> OrderRequest:
        """Cut a reduce-only request to the position; refuse one that would not reduce, or not beside the others."""
        if not request.only_reduces:
            return request
        held = -self._account.position(request.symbol, request.position_side).quantity * request.side.sign
        if held <= 0 or (request.quantity > held and not request.reduce_only):
            raise refusal(-2022)
        quantity = min(request.quantity, held)
        rests = request.type is OrderType.LIMIT and request.time_in_force is not TimeInForce.IOC
        if rests and self._promised(request, instead_of) + quantity > held:
            raise refusal(-4118 if request.reduce_only else -2022)
        return replace(request, quantity=quantity)

    def _promised(self, request: OrderRequest, instead_of: int | None) -> Decimal:
        """Return what other resting orders will take off the same position."""
        return sum(
            (
                order.remaining
                for order in self._store.open(request.symbol)
                if order.only_reduces
                and (order.position_side, order.side) == (request.position_side, request.side)
                and order.order_id != instead_of
            ),
            ZERO,
        )

    def _check_immediacy(self, request: OrderRequest, market: Market) -> None:
        at_once = market.available(request.side, request.price) if request.type is OrderType.LIMIT else None
        if at_once is None:
            return
        if request.time_in_force is TimeInForce.GTX and at_once > 0:
            raise refusal(-5022)
        if request.time_in_force is TimeInForce.FOK and at_once < request.quantity:
            raise refusal(-5021)

    def _check_margin(self, draft: OrderRecord, price: Decimal) -> None:
        """Refuse what the free balance cannot carry (-2019) or the leverage does not allow (-2027)."""
        if draft.only_reduces:
            return
        symbol, market = draft.symbol, self._markets[draft.symbol]
        before = self.valuation.exposures(symbol)
        after = self.valuation.exposures(symbol, instead=replace(draft, price=price))
        growth = sum(after, ZERO) - sum(before, ZERO)
        leverage = self._account.leverage(symbol)
        if growth > 0 and max(after) > market.contract.max_notional(leverage):
            raise refusal(-2027)
        # Buying above (selling below) the mark loses at once.
        loss = max(ZERO, (price - market.mark) * draft.side.sign) * draft.remaining if growth > 0 else ZERO
        if growth / leverage + loss > self.valuation.available():
            raise refusal(-2019)

    # -- changing --------------------------------------------------------------------------------------------------

    def amend(self, order: OrderRecord, change: OrderChange, now: datetime) -> OrderRecord:
        """Give a resting order a new price or quantity; it keeps its id and goes to the end of the queue.

        Raises:
            OrderRejectedError: With Binance's code; nothing was changed.
        """
        quantity, price = change.quantity, change.price
        if order.type is not OrderType.LIMIT:
            raise refusal(-5025)
        if change.side not in (None, order.side):
            raise refusal(-1130, "side")
        number = len(self._store.amendments(order)) + 1
        if number > _MAX_AMENDMENTS:
            raise refusal(-5026)
        if (order.quantity, order.price) == (quantity, price):
            raise refusal(-5027)
        request = self._checked_change(order, quantity, price)
        market = self._markets[order.symbol]
        takes = market.available(order.side, price) > 0
        if request.quantity <= order.executed or (order.time_in_force is TimeInForce.GTX and takes):
            return self._close(order, OrderStatus.CANCELED, "CANCELED", now)
        amended = replace(order, quantity=request.quantity, price=price, updated_at=now)
        self._check_margin(amended, price)
        market.leave(order.order_id)
        self._store.requeue(amended)
        self._store.note_amendment(_amendment(number, order, amended))
        self._announce(order_update(self._keep(amended), "AMENDMENT", now))
        return self._take(amended, now)

    def _checked_change(self, order: OrderRecord, quantity: Decimal, price: Decimal) -> OrderRequest:
        market = self._markets[order.symbol]
        if market.contract.status is not SymbolStatus.TRADING:
            raise refusal(-5024)
        check_price(price, market.contract)
        check_quantity(quantity, market.contract, market=False)
        request = OrderRequest(
            symbol=order.symbol,
            side=order.side,
            type=order.type,
            quantity=quantity,
            price=price,
            time_in_force=order.time_in_force,
            reduce_only=order.reduce_only,
            position_side=order.position_side,
        )
        check_against_market(request, market.contract, mark=market.mark, best=market.best(order.side).price)
        return self._reduced(request, instead_of=order.order_id)

    # -- matching --------------------------------------------------------------------------------------------------

    def match(self, symbol: str, now: datetime) -> None:
        """Fill what the market's present price lets fill of the resting orders, best prices first."""
        resting = sorted(
            (order for order in self._store.open(symbol) if not _must_expire(order)),
            key=lambda order: -order.price * order.side.sign,  # at one price they stay as they queued up
        )
        for order in resting:
            if self._store.is_open(order):  # the fill of another one may have ended it
                self._match_resting(order, now)

    def _match_resting(self, order: OrderRecord, now: datetime) -> None:
        wanted = min(self._fillable(order), self.rations.allowed(order))
        market = self._markets[order.symbol]
        quantity = market.fill_resting(order.order_id, wanted) if wanted > 0 else ZERO
        if quantity:  # a resting order fills at its own price
            self._fill(order, [Level(order.price, quantity)], now, is_maker=True)

    def _take(self, order: OrderRecord, now: datetime) -> OrderRecord:
        """Fill what can be filled at once, and let self-trade prevention have its way."""
        others = self._opposite(order)
        limit = taking_limit(order, others, self._markets[order.symbol].contract.instrument.tick_size)
        wanted = min(self._fillable(order), self.rations.allowed(order))
        got = self._markets[order.symbol].take(order.side, wanted, limit)
        order = self._fill(order, got, now, is_maker=False) if got else order
        met_by = met(order, others, got[-1].price if got else None)
        for other in met_by:
            if expires_makers(order) and self._store.is_open(other):
                self._expire(self._store.newest(other), ExpiryReason.SELF_TRADE, now)
        if met_by and order.is_open and expires_taker(order):
            by_time = order.time_in_force is TimeInForce.IOC
            reason = ExpiryReason.IOC_SELF_TRADE if by_time else ExpiryReason.SELF_TRADE
            return self._expire(order, reason, now)
        return order

    def _opposite(self, order: OrderRecord) -> list[OrderRecord]:
        """Return the account's own resting orders that ``order`` could meet, best price for it first."""
        found = [
            other
            for other in self._store.open(order.symbol)
            if other.side is not order.side and not _must_expire(other)
        ]
        return sorted(found, key=lambda other: other.price * order.side.sign)

    def _fillable(self, order: OrderRecord) -> Decimal:
        """Return what may still fill: an order that only reduces never more than the position that is left."""
        if not order.only_reduces:
            return order.remaining
        held = self._account.position(order.symbol, order.position_side).quantity
        return min(order.remaining, max(ZERO, -held * order.side.sign))

    def _fill(self, order: OrderRecord, levels: list[Level], now: datetime, *, is_maker: bool) -> OrderRecord:
        contract = self._markets[order.symbol].contract
        fee_rate = ZERO if order.is_forced else contract.maker_fee if is_maker else contract.taker_fee
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
        self._announce_fills(order, steps, now)
        if not order.is_open:
            self.on_end(order, now)
        self._drop_exits(order.symbol, order.position_side, now)
        return self._store.newest(order)

    def _announce_fills(self, order: OrderRecord, steps: list[tuple[OrderRecord, FillRecord]], now: datetime) -> None:
        """The short form first, then the account, then each trade in full: the order Binance usually sends them in."""
        for step, fill in steps:
            self._announce(trade_lite(step, fill, now))
        position = self.valuation.position(order.symbol, order.position_side)
        account = self._account
        self._announce(
            account_update(
                "ORDER",
                wallet=account.wallet,
                cross_wallet=account.cross_wallet,
                change=ZERO,
                positions=[position],
                now=now,
            )
        )
        for step, fill in steps:
            self._announce(order_update(step, "CALCULATED" if order.is_forced else "TRADE", now, fill))

    def _drop_exits(self, symbol: str, side: PositionSide, now: datetime) -> None:
        """Expire the orders that had a position to reduce and have none any more."""
        held = self._account.position(symbol, side).quantity
        for order in self._store.open(symbol):
            if order.only_reduces and order.position_side is side and held * order.side.sign >= 0:
                self._expire(order, ExpiryReason.NOTHING_TO_REDUCE, now)
        if not held:
            self.on_flat(symbol, side, now)

    # -- orders of the exchange itself -----------------------------------------------------------------------------

    def force(self, request: OrderRequest, levels: list[Level], now: datetime) -> OrderRecord:
        """Close (a part of) a position without asking its owner, at ``levels``; no check and no fee."""
        draft = replace(_draft(request, now, None), order_id=self._store.next_id(), is_forced=True)
        order = self._keep(draft)
        self._announce(order_update(order, "NEW", now))
        return self._expire_rest(self._fill(order, levels, now, is_maker=False) if levels else order, now)

    # -- partial fills on purpose ----------------------------------------------------------------------------------

    def ration_more(self, symbol: str, order_id: int, share: Decimal, now: datetime) -> bool:
        """Allow a rationed order one more ``share`` now; tell whether it is still rationed."""
        order = self._store.find(symbol, order_id, None)
        if order is None or not self.rations.extend(order, share, self._markets[symbol].contract.instrument.lot_step):
            return False
        if _must_expire(order):
            order = self._take(order, now)
        if self.rations.ends(order):
            self._expire_rest(order, now)
        return self.rations.holds(order)

    # -- ending ----------------------------------------------------------------------------------------------------

    def cancel(self, order: OrderRecord, now: datetime, *, reason: ExpiryReason = ExpiryReason.NONE) -> OrderRecord:
        """Cancel an open order.

        Raises:
            OrderRejectedError: -2011, it is not open.
        """
        if not order.is_open:
            raise refusal(-2011)
        return self._close(replace(order, expiry_reason=reason), OrderStatus.CANCELED, "CANCELED", now)

    def expire_due(self, symbol: str, now: datetime) -> None:
        """Expire the orders whose date has come, each at its own moment."""
        for order in self._store.open(symbol):
            if order.good_till is not None and order.good_till <= now:
                self._close(order, OrderStatus.EXPIRED, "EXPIRED", order.good_till)

    def _expire_rest(self, order: OrderRecord, now: datetime) -> OrderRecord:
        """Expire what an order that may not rest has left; a rationed one waits for its next share."""
        if not (order.is_open and _must_expire(order)) or self.rations.holds(order):
            return order
        by_market = order.type is OrderType.MARKET
        return self._expire(order, ExpiryReason.MARKET_REST if by_market else ExpiryReason.IOC_REST, now)

    def _expire(self, order: OrderRecord, reason: ExpiryReason, now: datetime) -> OrderRecord:
        return self._close(replace(order, expiry_reason=reason), OrderStatus.EXPIRED, "EXPIRED", now)

    def _close(self, order: OrderRecord, status: OrderStatus, execution: str, now: datetime) -> OrderRecord:
        closed = self._keep(replace(order, status=status, updated_at=now))
        self._announce(order_update(closed, execution, now))
        self.on_end(closed, now)
        return closed

    def _keep(self, order: OrderRecord) -> OrderRecord:
        self._store.keep(order)
        market = self._markets[order.symbol]
        if not order.is_open:
            market.leave(order.order_id)
            self.rations.forget(order)
        elif not _must_expire(order):
            market.join(order.order_id, order.side, order.price)
        return order


def _draft(request: OrderRequest, now: datetime, trigger: Trigger | None) -> OrderRecord:
    return OrderRecord(
        symbol=request.symbol,
        order_id=0,
        client_order_id=request.client_order_id,
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
        working_type=trigger.working_type if trigger else WorkingType.CONTRACT_PRICE,
        position_side=request.position_side,
        price_protect=trigger.price_protect if trigger else False,
        good_till=request.good_till,
        self_trade_prevention=request.self_trade_prevention,
    )


def _amendment(number: int, before: OrderRecord, after: OrderRecord) -> Amendment:
    return Amendment(
        number=number,
        symbol=after.symbol,
        order_id=after.order_id,
        client_order_id=after.client_order_id,
        time=after.updated_at,
        old_price=before.price,
        new_price=after.price,
        old_quantity=before.quantity,
        new_quantity=after.quantity,
    )


def _must_expire(order: OrderRecord) -> bool:
    return order.type is OrderType.MARKET or order.time_in_force in (TimeInForce.IOC, TimeInForce.FOK)


def _allowance(side: Side) -> Decimal:
    return _MARKET_ORDER_ALLOWANCE if side is Side.BUY else Decimal(1)
