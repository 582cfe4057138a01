"""What the owner of the account may change: mode, margin type, leverage, isolated margin, deposits and withdrawals."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from decimal import Decimal

from infrastructure.paper_exchange.account import Account
from infrastructure.paper_exchange.market import Market
from infrastructure.paper_exchange.modes import MarginType, PositionSide
from infrastructure.paper_exchange.refusals import refusal
from infrastructure.paper_exchange.user_events import UserEvent, account_update, leverage_update
from infrastructure.paper_exchange.valuation import Valuation
from shared.trading.money import ZERO


class AccountDesk:
    """The rules of each change, with Binance's refusals.

    Args:
        markets: The listed symbols.
        account: What is changed.
        valuation: The account at the present prices.
        has_orders: Tells whether a symbol has open orders, regular or conditional.
        announce: Takes user events.
    """

    def __init__(
        self,
        markets: Mapping[str, Market],
        account: Account,
        valuation: Valuation,
        has_orders: Callable[[str], bool],
        announce: Callable[[UserEvent], None],
    ) -> None:
        self._markets = markets
        self._account = account
        self._value = valuation
        self._has_orders = has_orders
        self._announce = announce

    def set_position_mode(self, *, is_hedged: bool) -> None:
        """Change between one-way and hedge mode, for every symbol at once (-4059, -4067, -4068)."""
        if is_hedged is self._account.is_hedged:
            raise refusal(-4059)
        if any(self._has_orders(symbol) for symbol in self._markets):
            raise refusal(-4067)
        if any(self._account.holds(symbol) for symbol in self._markets):
            raise refusal(-4068)
        self._account.is_hedged = is_hedged

    def set_margin_type(self, symbol: str, margin_type: MarginType, now: datetime) -> None:
        """Change between cross and isolated margin (-4046, -4047, -4048)."""
        if margin_type is self._account.margin_type(symbol):
            raise refusal(-4046)
        if self._has_orders(symbol):
            raise refusal(-4047)
        if self._account.holds(symbol):
            raise refusal(-4048)
        self._account.set_margin_type(symbol, margin_type)
        self._tell("MARGIN_TYPE_CHANGE", ZERO, symbol, self._account.sides, now)

    def set_leverage(self, symbol: str, leverage: int, now: datetime) -> None:
        """Change the leverage of new and held positions (-4028, -4161, -2027, -2028)."""
        contract = self._markets[symbol].contract
        if not 1 <= leverage <= contract.instrument.max_leverage:
            raise refusal(-4028, leverage)
        before = self._account.leverage(symbol)
        is_isolated = self._account.margin_type(symbol) is MarginType.ISOLATED
        if leverage < before and is_isolated and self._account.holds(symbol):
            raise refusal(-4161)
        exposures = self._value.exposures(symbol)
        if max(exposures) > contract.max_notional(leverage):
            raise refusal(-2027)
        reach = sum(exposures, ZERO)
        more = reach / leverage - reach / before
        if more > max(ZERO, self._value.available()):
            raise refusal(-2028)
        self._account.set_leverage(symbol, leverage)
        self._announce(leverage_update(symbol, leverage, now))

    def adjust_margin(self, symbol: str, side: PositionSide, amount: Decimal, now: datetime, *, add: bool) -> None:
        """Move margin to an isolated position or back (-4055, -4061, -4049, -4054, -4050, -4051)."""
        if amount <= 0:
            raise refusal(-4055)
        if side not in self._account.sides:
            raise refusal(-4061)
        if self._account.margin_type(symbol) is not MarginType.ISOLATED:
            raise refusal(-4049)
        position = self._value.position(symbol, side)
        if not position.quantity:
            raise refusal(-4054)
        if add and amount > self._value.available():
            raise refusal(-4050)
        spare = position.isolated_wallet + min(ZERO, position.unrealized_pnl) - position.initial_margin
        if not add and amount > spare:
            raise refusal(-4051)
        self._account.move_margin(symbol, side, amount if add else -amount, now)
        self._tell("MARGIN_TRANSFER", ZERO, symbol, (side,), now)

    def deposit(self, amount: Decimal, now: datetime) -> None:
        """Pay ``amount`` USDT into the wallet (-4055)."""
        if amount <= 0:
            raise refusal(-4055)
        self._account.book_transfer(amount, now)
        self._tell("DEPOSIT", amount, None, (), now)

    def withdraw(self, amount: Decimal, now: datetime) -> None:
        """Take ``amount`` USDT out of the wallet, no more than is free (-4055, -2018)."""
        if amount <= 0:
            raise refusal(-4055)
        if amount > min(self._value.available(), max(ZERO, self._account.cross_wallet)):
            raise refusal(-2018)
        self._account.book_transfer(-amount, now)
        self._tell("WITHDRAW", -amount, None, (), now)

    def settle_funding(self, symbol: str, rate: Decimal, now: datetime) -> None:
        """Pay or receive funding on every position of a symbol, and say so: cross only the balance."""
        mark = self._markets[symbol].mark
        for side in self._account.sides:
            amount, is_isolated = self._account.book_funding(symbol, side, rate, mark, now)
            if amount:
                self._tell("FUNDING_FEE", amount, symbol, (side,) if is_isolated else (), now)

    def _tell(
        self, reason: str, change: Decimal, symbol: str | None, sides: tuple[PositionSide, ...], now: datetime
    ) -> None:
        account = self._account
        positions = [self._value.position(symbol, side) for side in sides] if symbol else []
        self._announce(
            account_update(
                reason,
                wallet=account.wallet,
                cross_wallet=account.cross_wallet,
                change=change,
                positions=positions,
                now=now,
            )
        )
