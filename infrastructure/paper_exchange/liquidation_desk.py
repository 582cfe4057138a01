"""What the exchange does to a position without asking: margin calls, liquidation, deleveraging, settlement."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from decimal import Decimal

from infrastructure.paper_exchange.account import Account
from infrastructure.paper_exchange.market import Market
from infrastructure.paper_exchange.modes import ExpiryReason, MarginType, PositionSide
from infrastructure.paper_exchange.order_desk import OrderDesk
from infrastructure.paper_exchange.records import Level, OrderRecord, OrderRequest, TimeInForce
from infrastructure.paper_exchange.user_events import UserEvent, account_update, margin_call, milliseconds
from infrastructure.paper_exchange.valuation import Valuation
from shared.trading.money import QUOTE_STEP, ZERO, round_down
from shared.trading.orders import OrderType, Side

#: Share of the margin balance that maintenance may take before a margin call goes out.
_CALL_RATIO = Decimal("0.8")

#: A position: its symbol and side.
Leg = tuple[str, PositionSide]


class LiquidationDesk:
    """Watches margins at every step of the market.

    A liquidation first cancels the open orders that share its margin. It then sells down the book, never below the
    price at which nothing is left; what the book does not take until there, the insurance fund takes at that price. So
    no balance falls below zero. Whoever has something left pays the clearance fee out of it.
    """

    def __init__(
        self,
        markets: Mapping[str, Market],
        account: Account,
        desk: OrderDesk,
        announce: Callable[[UserEvent], None],
    ) -> None:
        self._markets = markets
        self._account = account
        self._desk = desk
        self._announce = announce
        self._value: Valuation = desk.valuation
        self._called: set[Leg | None] = set()

    # -- watching --------------------------------------------------------------------------------------------------

    def is_endangered(self, ranges: Mapping[str, tuple[Decimal, Decimal]]) -> bool:
        """Tell whether a margin call or a liquidation is possible while marks stay within ``ranges`` (low, high)."""
        cross_balance, cross_maintenance = self._account.cross_wallet, ZERO
        for symbol, side in self._held():
            net = self._account.position(symbol, side)
            low, high = ranges[symbol]
            pnl = net.unrealized_pnl(low if net.is_long else high)
            maintenance = self._markets[symbol].contract.maintenance_margin(abs(net.quantity) * high)
            if self._account.margin_type(symbol) is MarginType.CROSSED:
                cross_balance += pnl
                cross_maintenance += maintenance
            elif _is_low(self._account.holding(symbol, side).isolated_wallet + pnl, maintenance):
                return True
        return _is_low(cross_balance, cross_maintenance)

    def forget_calls(self) -> None:
        """Note that no margin is low, so that the next time it is, a call goes out again."""
        self._called.clear()

    def check(self, now: datetime) -> None:
        """Call for margin and liquidate where the present mark prices demand it."""
        for leg in self._held():
            if self._account.margin_type(leg[0]) is MarginType.ISOLATED:
                balance = self._value.backing(*leg) + self._pnl(leg)
                self._look_at(leg, [leg], balance, self._maintenance(leg), now)
        legs = [(net.symbol, side) for side, net in self._value.cross_positions()]
        self._look_at(None, legs, self._value.cross_balance(), self._value.cross_maintenance(), now)

    def _look_at(self, key: Leg | None, legs: list[Leg], balance: Decimal, maintenance: Decimal, now: datetime) -> None:
        """Judge legs that share their margin; ``key`` is None for the cross-margined ones."""
        if not _is_low(balance, maintenance):
            self._called.discard(key)
            return
        if balance < maintenance:
            self._called.discard(key)
            self._liquidate_until_safe(legs, now)
        elif key not in self._called:
            self._called.add(key)
            rows = [self._value.position(*leg) for leg in legs]
            self._announce(margin_call(self._account.cross_wallet, rows, now))

    def _liquidate_until_safe(self, legs: list[Leg], now: datetime) -> None:
        """Close the legs that bind most first, until what is left is covered."""
        for number, leg in enumerate(sorted(legs, key=self._maintenance, reverse=True)):
            isolated = self._account.margin_type(leg[0]) is MarginType.ISOLATED
            if number and self._value.cross_balance() >= self._value.cross_maintenance():
                return
            self.liquidate(*leg, now, cancel_all=not isolated and not number)

    # -- acting ----------------------------------------------------------------------------------------------------

    def liquidate(
        self, symbol: str, side: PositionSide, now: datetime, *, cancel_all: bool = True
    ) -> OrderRecord | None:
        """Cancel the open orders that share its margin, then take over a position; None when there is none."""
        net = self._account.position(symbol, side)
        if net.is_flat:
            return None
        self._cancel_orders(symbol, now, everywhere=cancel_all)
        backing, floor = self._value.backing(symbol, side), self._value.bankruptcy_price(symbol, side)
        request = self._request(symbol, side, f"autoclose-{milliseconds(now)}-{symbol}", floor)
        levels = self._sell_out(request, floor)
        order = self._desk.force(request, levels, now)
        closed_at = sum((level.price * level.quantity for level in levels), ZERO)
        left = backing + (closed_at - net.entry_price * abs(net.quantity)) * (1 if net.is_long else -1)
        fee = min(closed_at * self._markets[symbol].contract.liquidation_fee, max(ZERO, left))
        self._clear(symbol, side, -fee, now)
        return order

    def _sell_out(self, request: OrderRequest, floor: Decimal) -> list[Level]:
        """Return the fills of a liquidation: the book as far as ``floor``, the insurance fund for the rest."""
        levels = self._markets[request.symbol].take(request.side, request.quantity, floor)
        rest = request.quantity - sum((level.quantity for level in levels), ZERO)
        return [*levels, Level(floor, rest)] if rest else levels

    def _clear(self, symbol: str, side: PositionSide, amount: Decimal, now: datetime) -> None:
        amount = round_down(amount, QUOTE_STEP)
        if not amount:
            return
        self._account.book_clearance(symbol, amount, now)
        account = self._account
        self._announce(
            account_update(
                "INSURANCE_CLEAR",
                wallet=account.wallet,
                cross_wallet=account.cross_wallet,
                change=amount,
                positions=[self._value.position(symbol, side)],
                now=now,
            )
        )

    def deleverage(self, symbol: str, side: PositionSide, share: Decimal, now: datetime) -> OrderRecord | None:
        """Take ``share`` of a position at the mark price for the sake of another's bankruptcy; None when flat."""
        return self._take_over(symbol, side, "adl_autoclose", share, now)

    def settle(self, symbol: str, now: datetime) -> list[OrderRecord]:
        """Close every position of a delisted symbol at the mark price after cancelling its orders."""
        self._cancel_orders(symbol, now, everywhere=False, reason=ExpiryReason.DELISTED)
        name = f"settlement_autoclose-{milliseconds(now)}"
        orders = [self._take_over(symbol, side, name, Decimal(1), now) for side in self._account.sides]
        return [order for order in orders if order is not None]

    def _take_over(
        self, symbol: str, side: PositionSide, name: str, share: Decimal, now: datetime
    ) -> OrderRecord | None:
        held = abs(self._account.position(symbol, side).quantity)
        instrument = self._markets[symbol].contract.instrument
        quantity = min(held, max(round_down(held * share, instrument.lot_step), instrument.lot_step))
        if not quantity:
            return None
        ticks = (self._markets[symbol].mark / instrument.tick_size).to_integral_value()
        request = self._request(symbol, side, name, None, quantity)
        return self._desk.force(request, [Level(ticks * instrument.tick_size, quantity)], now)

    def _cancel_orders(
        self, symbol: str, now: datetime, *, everywhere: bool, reason: ExpiryReason = ExpiryReason.LIQUIDATION
    ) -> None:
        isolated = self._account.margin_type(symbol) is MarginType.ISOLATED
        for each in self._markets if everywhere and not isolated else (symbol,):
            for order in self._desk.open_orders(each):
                self._desk.cancel(order, now, reason=reason)

    def _request(
        self, symbol: str, side: PositionSide, name: str, price: Decimal | None, quantity: Decimal | None = None
    ) -> OrderRequest:
        net = self._account.position(symbol, side)
        return OrderRequest(
            symbol=symbol,
            side=Side.SELL if net.is_long else Side.BUY,
            type=OrderType.MARKET if price is None else OrderType.LIMIT,
            quantity=abs(net.quantity) if quantity is None else quantity,
            price=price,
            time_in_force=TimeInForce.GTC if price is None else TimeInForce.IOC,
            client_order_id=name,
            reduce_only=side is PositionSide.BOTH,
            position_side=side,
        )

    # -- reading ---------------------------------------------------------------------------------------------------

    def _held(self) -> list[Leg]:
        return [
            (symbol, side)
            for symbol in self._markets
            for side in self._account.sides
            if not self._account.position(symbol, side).is_flat
        ]

    def _pnl(self, leg: Leg) -> Decimal:
        return self._account.position(*leg).unrealized_pnl(self._markets[leg[0]].mark)

    def _maintenance(self, leg: Leg) -> Decimal:
        return self._value.maintenance(self._account.position(*leg))


def _is_low(balance: Decimal, maintenance: Decimal) -> bool:
    return maintenance > 0 and balance * _CALL_RATIO < maintenance
