"""One cross-margined USDT account in one-way mode: wallet, positions, incomes and what margin they bind."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from decimal import Decimal

from infrastructure.paper_exchange.contracts import DEFAULT_LEVERAGE, Contract
from infrastructure.paper_exchange.records import (
    AccountRecord,
    FillRecord,
    IncomeRecord,
    IncomeType,
    OrderRecord,
    PositionRecord,
)
from shared.trading.money import QUOTE_STEP, ZERO
from shared.trading.orders import Side
from shared.trading.positions import Fill, NetPosition, apply_fill


class Account:
    """Books fills and funding; the wallet is always the deposit plus the sum of the incomes."""

    def __init__(self, contracts: Mapping[str, Contract], deposit: Decimal, opened_at: datetime) -> None:
        self._contracts = contracts
        self.deposit = deposit
        self.wallet = deposit
        self.fills: list[FillRecord] = []
        self.incomes: list[IncomeRecord] = []
        self._positions = {symbol: NetPosition(symbol) for symbol in contracts}
        self._updated_at = dict.fromkeys(contracts, opened_at)
        self._leverage = dict.fromkeys(contracts, DEFAULT_LEVERAGE)
        self._next_trade_id = dict.fromkeys(contracts, 1)

    def position(self, symbol: str) -> NetPosition:
        return self._positions[symbol]

    def leverage(self, symbol: str) -> int:
        return self._leverage[symbol]

    def set_leverage(self, symbol: str, leverage: int) -> None:
        self._leverage[symbol] = leverage

    def book_fill(
        self, order: OrderRecord, *, price: Decimal, quantity: Decimal, fee_rate: Decimal, is_maker: bool, now: datetime
    ) -> FillRecord:
        """Apply one trade of ``order`` to position and wallet and return it."""
        symbol = order.symbol
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
        change = apply_fill(self._positions[symbol], plain)
        realized = _cents(change.realized_pnl)
        fill = replace(plain, realized_pnl=realized)
        self._positions[symbol] = change.after
        self._updated_at[symbol] = now
        if realized:
            self._book(IncomeType.REALIZED_PNL, symbol, realized, now, trade_id)
        self._book(IncomeType.COMMISSION, symbol, -commission, now, trade_id)
        record = FillRecord(fill, order.order_id, is_maker)
        self.fills.append(record)
        return record

    def book_funding(self, symbol: str, rate: Decimal, mark: Decimal, now: datetime) -> Decimal:
        """Pay or receive funding on the open position: longs pay when ``rate`` is above 0. Return the amount, USDT."""
        amount = _cents(-self._positions[symbol].quantity * mark * rate)
        if amount:
            self._book(IncomeType.FUNDING_FEE, symbol, amount, now, None)
        return amount

    def _book(self, kind: IncomeType, symbol: str, amount: Decimal, now: datetime, trade_id: int | None) -> None:
        self.wallet += amount
        self.incomes.append(IncomeRecord(kind, symbol, amount, now, len(self.incomes) + 1, trade_id))

    def bound_margin(self, symbol: str, mark: Decimal, orders: Iterable[OrderRecord]) -> Decimal:
        """Return the margin that position and resting ``orders`` of a symbol bind together, USDT.

        The larger of the position with all bids filled and the position with all asks filled, as on Binance.
        """
        return self.exposure(symbol, mark, orders) / self._leverage[symbol]

    def exposure(self, symbol: str, mark: Decimal, orders: Iterable[OrderRecord], extra: Decimal = ZERO) -> Decimal:
        """Return the largest notional, USDT, that the position can reach when resting ``orders`` fill.

        ``extra`` is the signed value of one more order, positive for BUY.
        """
        held = self._positions[symbol].quantity * mark
        bids, asks = max(extra, ZERO), max(-extra, ZERO)
        for order in orders:
            if order.reduce_only:
                continue
            value = order.remaining * order.price
            if order.side is Side.BUY:
                bids += value
            else:
                asks += value
        return max(abs(held), abs(held + bids), abs(held - asks))

    def position_record(self, symbol: str, mark: Decimal, orders: Iterable[OrderRecord]) -> PositionRecord:
        """Return the position of ``symbol`` valued at ``mark``."""
        position = self._positions[symbol]
        leverage = self._leverage[symbol]
        notional = abs(position.quantity * mark)
        initial = notional / leverage
        return PositionRecord(
            symbol=symbol,
            quantity=position.quantity,
            entry_price=position.entry_price,
            mark_price=mark,
            leverage=leverage,
            unrealized_pnl=_cents(position.unrealized_pnl(mark)),
            initial_margin=_cents(initial),
            order_margin=_cents(self.bound_margin(symbol, mark, orders) - initial),
            maintenance_margin=_cents(self._contracts[symbol].maintenance_margin(notional)) if notional else ZERO,
            updated_at=self._updated_at[symbol],
        )

    def record(self, positions: tuple[PositionRecord, ...]) -> AccountRecord:
        """Return the account as a whole, given its valued positions."""
        unrealized = sum((position.unrealized_pnl for position in positions), ZERO)
        initial = sum((position.initial_margin for position in positions), ZERO)
        order_margin = sum((position.order_margin for position in positions), ZERO)
        return AccountRecord(
            wallet=self.wallet,
            unrealized_pnl=unrealized,
            initial_margin=initial,
            order_margin=order_margin,
            maintenance_margin=sum((position.maintenance_margin for position in positions), ZERO),
            available=max(ZERO, self.wallet + unrealized - initial - order_margin),
            positions=positions,
            updated_at=max(self._updated_at.values()),
        )

    def remove_fill(self, symbol: str, trade_id: int) -> bool:
        """Forget one fill without touching position or wallet: makes the books lie, for tests of invariants."""
        before = len(self.fills)
        self.fills = [
            record for record in self.fills if (record.fill.symbol, record.fill.trade_id) != (symbol, trade_id)
        ]
        return len(self.fills) < before


def _cents(amount: Decimal) -> Decimal:
    return amount.quantize(QUOTE_STEP)
