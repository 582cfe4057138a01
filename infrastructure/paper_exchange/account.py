"""One USDT account: wallet, positions of either mode, margin types, leverage, and every change of the wallet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal

from infrastructure.paper_exchange.contracts import DEFAULT_LEVERAGE, Contract
from infrastructure.paper_exchange.modes import MarginType, PositionSide
from infrastructure.paper_exchange.records import (
    FillRecord,
    IncomeRecord,
    IncomeType,
    MarginChange,
    OrderRecord,
)
from shared.trading.money import QUOTE_STEP, ZERO
from shared.trading.positions import Fill, NetPosition, PositionChange, apply_fill

_HEDGED = (PositionSide.LONG, PositionSide.SHORT)
_ONE_WAY = (PositionSide.BOTH,)


@dataclass(frozen=True, slots=True)
class Holding:
    """A position and what belongs to it alone; replaced, never changed.

    Attributes:
        net: Signed quantity and entry price.
        isolated_wallet: Margin set aside for it, USDT; 0 when cross-margined.
        opening_fees: Fees paid for the part that is still open, USDT.
        realized: Profit booked so far, USDT, fees not included.
        updated_at: Market time of the last change.
    """

    net: NetPosition
    updated_at: datetime
    isolated_wallet: Decimal = ZERO
    opening_fees: Decimal = ZERO
    realized: Decimal = ZERO


class Account:
    """Books fills, funding and transfers; the wallet is always the deposit plus the sum of the incomes."""

    def __init__(self, contracts: Mapping[str, Contract], deposit: Decimal, opened_at: datetime) -> None:
        self.deposit = deposit
        self.wallet = deposit
        self.fills: list[FillRecord] = []
        self.incomes: list[IncomeRecord] = []
        self.margin_changes: list[MarginChange] = []
        self.is_hedged = False
        self._holdings = {
            (symbol, side): Holding(NetPosition(symbol), opened_at)
            for symbol in contracts
            for side in (*_ONE_WAY, *_HEDGED)
        }
        self._leverage = dict.fromkeys(contracts, DEFAULT_LEVERAGE)
        self._margin_type = dict.fromkeys(contracts, MarginType.CROSSED)
        self._next_trade_id = dict.fromkeys(contracts, 1)

    # -- reading ---------------------------------------------------------------------------------------------------

    @property
    def sides(self) -> tuple[PositionSide, ...]:
        """The position sides of each symbol in the present mode."""
        return _HEDGED if self.is_hedged else _ONE_WAY

    def holding(self, symbol: str, side: PositionSide = PositionSide.BOTH) -> Holding:
        return self._holdings[symbol, side]

    def position(self, symbol: str, side: PositionSide = PositionSide.BOTH) -> NetPosition:
        return self._holdings[symbol, side].net

    def holds(self, symbol: str) -> bool:
        """Tell whether there is a position in ``symbol``."""
        return any(not self.position(symbol, side).is_flat for side in self.sides)

    @property
    def isolated_wallets(self) -> Decimal:
        """All that is set aside for isolated positions, USDT."""
        return sum((holding.isolated_wallet for holding in self._holdings.values()), ZERO)

    @property
    def cross_wallet(self) -> Decimal:
        return self.wallet - self.isolated_wallets

    @property
    def updated_at(self) -> datetime:
        return max(holding.updated_at for holding in self._holdings.values())

    def leverage(self, symbol: str) -> int:
        return self._leverage[symbol]

    def margin_type(self, symbol: str) -> MarginType:
        return self._margin_type[symbol]

    # -- settings --------------------------------------------------------------------------------------------------

    def set_leverage(self, symbol: str, leverage: int) -> None:
        self._leverage[symbol] = leverage

    def set_margin_type(self, symbol: str, margin_type: MarginType) -> None:
        self._margin_type[symbol] = margin_type

    def move_to_hedge_mode(self) -> None:
        """Go over to hedge mode with whatever is held: a long becomes the LONG position, a short the SHORT one."""
        self.is_hedged = True
        for (symbol, side), holding in list(self._holdings.items()):
            if side is PositionSide.BOTH and not holding.net.is_flat:
                target = PositionSide.LONG if holding.net.is_long else PositionSide.SHORT
                self._holdings[symbol, target] = holding
                self._holdings[symbol, side] = Holding(NetPosition(symbol), holding.updated_at)

    # -- booking ---------------------------------------------------------------------------------------------------

    def book_fill(
        self, order: OrderRecord, *, price: Decimal, quantity: Decimal, fee_rate: Decimal, is_maker: bool, now: datetime
    ) -> FillRecord:
        """Apply one trade of ``order`` to its position and the wallet and return it."""
        symbol, side = order.symbol, order.position_side
        trade_id = self._next_trade_id[symbol]
        self._next_trade_id[symbol] += 1
        commission = _cents(price * quantity * fee_rate)
        plain = Fill(
            symbol=symbol,
            trade_id=trade_id,
            client_order_id=order.client_order_id,
            exchange_order_id=str(order.order_id),
            side=order.side,
            price=price,
            quantity=quantity,
            commission=commission,
            realized_pnl=ZERO,
            time=now,
        )
        before = self._holdings[symbol, side]
        change = apply_fill(before.net, plain)
        realized = _cents(change.realized_pnl)
        fill = replace(plain, realized_pnl=realized)
        self._holdings[symbol, side] = self._after(before, change, fill)
        if realized:
            self._book(IncomeType.REALIZED_PNL, symbol, realized, now, trade_id)
        if commission:
            self._book(IncomeType.COMMISSION, symbol, -commission, now, trade_id)
        record = FillRecord(fill, order.order_id, is_maker, side)
        self.fills.append(record)
        return record

    def _after(self, before: Holding, change: PositionChange, fill: Fill) -> Holding:
        """Closing frees its share of the isolated wallet and bears its own loss; opening sets margin aside."""
        symbol = fill.symbol
        kept = _kept_share(change)
        opened_fee = fill.commission * change.opened_quantity / fill.quantity
        wallet = ZERO
        if self._margin_type[symbol] is MarginType.ISOLATED:
            wallet = _cents(before.isolated_wallet * kept)
            shortfall = before.isolated_wallet - wallet + fill.realized_pnl
            wallet += max(-wallet, min(ZERO, shortfall))
            wallet += _cents(change.opened_quantity * fill.price / self._leverage[symbol])
        return Holding(
            net=change.after,
            updated_at=fill.time,
            isolated_wallet=wallet,
            opening_fees=before.opening_fees * kept + opened_fee,
            realized=before.realized + fill.realized_pnl,
        )

    def book_funding(
        self, symbol: str, side: PositionSide, rate: Decimal, mark: Decimal, now: datetime
    ) -> tuple[Decimal, bool]:
        """Pay or receive funding on one position: longs pay when ``rate`` is above 0.

        Return the amount, USDT, and whether the isolated wallet bore it.
        """
        holding = self._holdings[symbol, side]
        amount = _cents(-holding.net.quantity * mark * rate)
        is_isolated = self._margin_type[symbol] is MarginType.ISOLATED
        if amount:
            self._book(IncomeType.FUNDING_FEE, symbol, amount, now, None)
            if is_isolated:
                self._set_isolated_wallet(symbol, side, holding.isolated_wallet + amount, now)
        return amount, is_isolated

    def book_clearance(self, symbol: str, amount: Decimal, now: datetime) -> None:
        """Book what goes to (negative) or comes from the insurance fund."""
        if amount:
            self._book(IncomeType.INSURANCE_CLEAR, symbol, amount, now, None)

    def book_transfer(self, amount: Decimal, now: datetime) -> None:
        """Pay in, or out when ``amount`` is negative."""
        self._book(IncomeType.TRANSFER, "", amount, now, None)

    def move_margin(self, symbol: str, side: PositionSide, amount: Decimal, now: datetime) -> None:
        """Move ``amount`` USDT from the cross wallet to an isolated position, back when it is negative."""
        self._set_isolated_wallet(symbol, side, self._holdings[symbol, side].isolated_wallet + amount, now)
        self.margin_changes.append(MarginChange(symbol, side, amount, now))

    def _set_isolated_wallet(self, symbol: str, side: PositionSide, wallet: Decimal, now: datetime) -> None:
        self._holdings[symbol, side] = replace(self._holdings[symbol, side], isolated_wallet=wallet, updated_at=now)

    def _book(self, kind: IncomeType, symbol: str, amount: Decimal, now: datetime, trade_id: int | None) -> None:
        self.wallet += amount
        self.incomes.append(IncomeRecord(kind, symbol, amount, now, len(self.incomes) + 1, trade_id))

    def remove_fill(self, symbol: str, trade_id: int) -> bool:
        """Forget one fill without touching position or wallet: makes the books lie, for tests of invariants."""
        before = len(self.fills)
        self.fills = [
            record for record in self.fills if (record.fill.symbol, record.fill.trade_id) != (symbol, trade_id)
        ]
        return len(self.fills) < before


def _kept_share(change: PositionChange) -> Decimal:
    """Return the share of the old position that is still open."""
    if change.before.is_flat:
        return ZERO
    return 1 - change.closed_quantity / abs(change.before.quantity)


def _cents(amount: Decimal) -> Decimal:
    return amount.quantize(QUOTE_STEP)
