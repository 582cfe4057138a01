"""What the exchange does at every step of the markets, in its order: dates, funding, triggers, fills, margins."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

from infrastructure.paper_exchange.account import Account
from infrastructure.paper_exchange.account_desk import AccountDesk
from infrastructure.paper_exchange.algo_desk import AlgoDesk
from infrastructure.paper_exchange.candle_port import CandleSource
from infrastructure.paper_exchange.contracts import Contract
from infrastructure.paper_exchange.funding import FundingClock, rate_at
from infrastructure.paper_exchange.liquidation_desk import LiquidationDesk
from infrastructure.paper_exchange.order_desk import OrderDesk
from infrastructure.paper_exchange.playback import Ranges


class TradingFloor:
    """Calls every desk in turn; what cannot happen within a candle is not looked at.

    Args:
        source: Knows funding rates.
        contracts: The listed symbols; changed in place when a contract changes.
        account: Tells whether something was booked.
        orders: Regular orders; likewise the other desks.
        funding: When each symbol settles.
    """

    def __init__(
        self,
        source: CandleSource,
        contracts: dict[str, Contract],
        account: Account,
        *,
        orders: OrderDesk,
        algos: AlgoDesk,
        settings: AccountDesk,
        liquidations: LiquidationDesk,
        funding: FundingClock,
    ) -> None:
        self._source = source
        self._contracts = contracts
        self._account = account
        self._orders = orders
        self._algos = algos
        self._settings = settings
        self._liquidations = liquidations
        self._funding = funding
        self._touched: list[str] = []
        self._watches_margin = False

    def begin(self, ranges: Ranges, until: datetime) -> bool:
        """Find the symbols whose orders the price can reach; tell whether anything can happen up to ``until``."""
        self._touched = [symbol for symbol, (low, high) in ranges.items() if self._can_act(symbol, low, high)]
        self._watches_margin = self._liquidations.is_endangered(ranges)
        return bool(self._touched or self._watches_margin or self._funding.is_due(until))

    def _can_act(self, symbol: str, low: Decimal, high: Decimal) -> bool:
        if not self._contracts[symbol].status.trades:
            return False
        return self._orders.may_fill(symbol, low, high) or self._algos.may_trigger(symbol, low, high)

    def act(self, now: datetime) -> None:
        """Let happen what the markets at their present step cause."""
        booked = len(self._account.incomes)
        self.expire_due(now)
        for symbol, moment in self._funding.take_due(now):
            self._settings.settle_funding(symbol, rate_at(self._source, self._contracts[symbol], moment), now)
        for symbol in self._touched:
            self._algos.trigger(symbol, now)
            self._orders.match(symbol, now)
        # From the first booking on the look ahead no longer tells whether margins are safe.
        self._watches_margin = self._watches_margin or len(self._account.incomes) > booked
        if self._watches_margin:
            self._liquidations.check(now)
        else:
            self.rest()

    def rest(self) -> None:
        """Note that no margin was in danger up to now."""
        self._liquidations.forget_calls()

    def expire_due(self, now: datetime) -> None:
        """Expire every order whose date has come, each at its own moment."""
        for symbol in self._contracts:
            self._orders.expire_due(symbol, now)
            self._algos.expire_due(symbol, now)
