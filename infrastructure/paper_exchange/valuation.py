"""The account at the present mark prices: what positions are worth, what margin they and resting orders bind."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal

from infrastructure.paper_exchange.account import Account
from infrastructure.paper_exchange.margin import adl_quantile, bankruptcy_price, break_even_price, liquidation_price
from infrastructure.paper_exchange.market import Market
from infrastructure.paper_exchange.modes import MarginType, PositionSide
from infrastructure.paper_exchange.records import AccountRecord, OrderRecord, PositionRecord
from shared.trading.money import QUOTE_STEP, ZERO
from shared.trading.orders import Side
from shared.trading.positions import NetPosition


class Valuation:
    """Reads account, markets and resting orders; changes nothing."""

    def __init__(
        self,
        markets: Mapping[str, Market],
        account: Account,
        resting: Callable[[str], list[OrderRecord]],
    ) -> None:
        self._markets = markets
        self._account = account
        self._resting = resting

    # -- positions -------------------------------------------------------------------------------------------------

    def position(self, symbol: str, side: PositionSide) -> PositionRecord:
        """Return one position, flat or not."""
        account, mark = self._account, self._markets[symbol].mark
        holding = account.holding(symbol, side)
        net = holding.net
        orders = [order for order in self._resting(symbol) if order.position_side is side]
        leverage = account.leverage(symbol)
        initial = abs(net.quantity * mark) / leverage
        return PositionRecord(
            symbol=symbol,
            position_side=side,
            quantity=net.quantity,
            entry_price=net.entry_price,
            mark_price=mark,
            leverage=leverage,
            margin_type=account.margin_type(symbol),
            unrealized_pnl=_cents(net.unrealized_pnl(mark)),
            initial_margin=_cents(initial),
            order_margin=_cents(_reach(net.quantity * mark, side, orders) / leverage - initial),
            maintenance_margin=_cents(self.maintenance(net)),
            isolated_wallet=holding.isolated_wallet,
            liquidation_price=self._liquidation_price(symbol, side),
            break_even_price=break_even_price(net.quantity, net.entry_price, holding.opening_fees),
            realized=holding.realized,
            bid_notional=_value_of(orders, Side.BUY),
            ask_notional=_value_of(orders, Side.SELL),
            adl=adl_quantile(net.quantity, net.entry_price, mark, leverage),
            updated_at=holding.updated_at,
        )

    def positions(self, symbols: Iterable[str] | None = None) -> tuple[PositionRecord, ...]:
        """Return the positions of ``symbols`` or of all: one per symbol, two in hedge mode."""
        chosen = self._markets if symbols is None else symbols
        return tuple(self.position(symbol, side) for symbol in chosen for side in self._account.sides)

    def _liquidation_price(self, symbol: str, side: PositionSide) -> Decimal:
        net = self._account.position(symbol, side)
        if net.is_flat:
            return ZERO
        backing = self.backing(symbol, side)
        if self._account.margin_type(symbol) is MarginType.CROSSED:
            backing -= self.cross_maintenance() - self.maintenance(net)
        contract = self._markets[symbol].contract
        return round(liquidation_price(contract, net.quantity, net.entry_price, backing), 8)

    def bankruptcy_price(self, symbol: str, side: PositionSide) -> Decimal:
        """Return the price, USDT, at which closing a position leaves nothing of what stands behind it."""
        net = self._account.position(symbol, side)
        tick_size = self._markets[symbol].contract.instrument.tick_size
        return bankruptcy_price(net.quantity, net.entry_price, self.backing(symbol, side), tick_size)

    # -- margin ----------------------------------------------------------------------------------------------------

    def backing(self, symbol: str, side: PositionSide) -> Decimal:
        """Return what stands behind a position: its isolated wallet, or cross wallet and other cross profits, USDT."""
        if self._account.margin_type(symbol) is MarginType.ISOLATED:
            return self._account.holding(symbol, side).isolated_wallet
        own = self._account.position(symbol, side)
        return self.cross_balance() - own.unrealized_pnl(self._markets[symbol].mark)

    def maintenance(self, net: NetPosition) -> Decimal:
        """Return the margin that a position must keep at the mark price, USDT."""
        market = self._markets[net.symbol]
        return ZERO if net.is_flat else market.contract.maintenance_margin(abs(net.quantity) * market.mark)

    def cross_positions(self) -> list[tuple[PositionSide, NetPosition]]:
        """Return every cross-margined position that is not flat."""
        return [
            (side, net)
            for symbol in self._markets
            if self._account.margin_type(symbol) is MarginType.CROSSED
            for side in self._account.sides
            if not (net := self._account.position(symbol, side)).is_flat
        ]

    def cross_pnl(self) -> Decimal:
        return sum((net.unrealized_pnl(self._markets[net.symbol].mark) for _, net in self.cross_positions()), ZERO)

    def cross_balance(self) -> Decimal:
        """Return the cross wallet with the open profit of what it stands behind, USDT."""
        return self._account.cross_wallet + self.cross_pnl()

    def cross_maintenance(self) -> Decimal:
        """Return the margin that all cross-margined positions must keep, USDT."""
        return sum((self.maintenance(net) for _, net in self.cross_positions()), ZERO)

    def exposures(self, symbol: str, instead: OrderRecord | None = None) -> list[Decimal]:
        """Return, per position of ``symbol``, the largest notional (USDT) it can reach when resting orders fill.

        In one-way mode the larger of the position with all bids filled and the position with all asks filled, as on
        Binance; in hedge mode each position with the orders that open it. ``instead`` counts in place of the order
        with its id, or as one more.
        """
        mark = self._markets[symbol].mark
        orders = self._resting(symbol)
        if instead is not None:
            orders = [*(order for order in orders if order.order_id != instead.order_id), instead]
        return [
            _reach(
                self._account.position(symbol, side).quantity * mark,
                side,
                [order for order in orders if order.position_side is side],
            )
            for side in self._account.sides
        ]

    def available(self) -> Decimal:
        """Return what new positions may bind, USDT."""
        return self.account().available

    def account(self) -> AccountRecord:
        """Return the account as a whole."""
        positions = self.positions()
        cross = [position for position in positions if position.margin_type is MarginType.CROSSED]
        cross_pnl = sum((position.unrealized_pnl for position in cross), ZERO)
        order_margin = sum((position.order_margin for position in positions), ZERO)
        bound = sum((position.initial_margin for position in cross), ZERO) + order_margin
        cross_wallet = self._account.cross_wallet
        return AccountRecord(
            wallet=self._account.wallet,
            cross_wallet=cross_wallet,
            unrealized_pnl=sum((position.unrealized_pnl for position in positions), ZERO),
            cross_pnl=cross_pnl,
            initial_margin=sum((position.initial_margin for position in positions), ZERO),
            order_margin=order_margin,
            maintenance_margin=sum((position.maintenance_margin for position in positions), ZERO),
            available=max(ZERO, cross_wallet + cross_pnl - bound),
            positions=positions,
            updated_at=self._account.updated_at,
        )


def _reach(held: Decimal, side: PositionSide, orders: Sequence[OrderRecord]) -> Decimal:
    """Return the largest value, USDT, that a position worth ``held`` can have when ``orders`` fill."""
    opening = [order for order in orders if not order.only_reduces]
    bids, asks = _value_of(opening, Side.BUY), _value_of(opening, Side.SELL)
    if side is not PositionSide.BOTH:
        return abs(held) + bids + asks  # one of them is 0: the side that closes was left out
    return max(abs(held), abs(held + bids), abs(held - asks))


def _value_of(orders: Iterable[OrderRecord], side: Side) -> Decimal:
    return sum((order.remaining * order.price for order in orders if order.side is side), ZERO)


def _cents(amount: Decimal) -> Decimal:
    return amount.quantize(QUOTE_STEP)
