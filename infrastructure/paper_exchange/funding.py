"""When funding is settled and at which rate."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal

from infrastructure.paper_exchange.candle_port import CandleSource
from infrastructure.paper_exchange.contracts import Contract
from infrastructure.paper_exchange.klines import slot_start

#: Used where the source knows no rate; Binance's neutral rate.
DEFAULT_RATE = Decimal("0.0001")


def next_funding_time(now: datetime, interval: timedelta) -> datetime:
    """Return the first settlement after ``now``: every ``interval``, counted from 00:00 UTC."""
    return slot_start(now, interval) + interval


def is_funding_time(moment: datetime, interval: timedelta) -> bool:
    """Tell whether a contract that settles every ``interval`` settles at ``moment``."""
    return slot_start(moment, interval) == moment


def rate_at(source: CandleSource, contract: Contract, moment: datetime) -> Decimal:
    """Return the rate that is settled at ``moment``, within the contract's bounds; above 0 longs pay shorts."""
    rate = source.funding_rate(contract.symbol, moment)
    cap = contract.funding_cap
    return max(-cap, min(cap, DEFAULT_RATE if rate is None else rate))


class FundingClock:
    """The next settlement of every symbol."""

    def __init__(self, contracts: dict[str, Contract], start: datetime) -> None:
        self._contracts = contracts
        self._next = {
            symbol: next_funding_time(start, contract.funding_interval) for symbol, contract in contracts.items()
        }

    def next_time(self, symbol: str) -> datetime:
        return self._next[symbol]

    def is_due(self, moment: datetime) -> bool:
        """Tell whether any settlement falls on or before ``moment``."""
        return any(time <= moment for time in self._next.values())

    def take_due(self, now: datetime) -> list[tuple[str, datetime]]:
        """Return symbol and time of every settlement up to ``now`` in order of time, and go on to the next ones."""
        due: list[tuple[str, datetime]] = []
        for symbol, contract in self._contracts.items():
            while self._next[symbol] <= now:
                due.append((symbol, self._next[symbol]))
                self._next[symbol] = next_funding_time(self._next[symbol], contract.funding_interval)
        return sorted(due, key=lambda row: row[1])

    def restart(self, symbol: str, now: datetime) -> None:
        """Count anew after the interval of ``symbol`` changed."""
        self._next[symbol] = next_funding_time(now, self._contracts[symbol].funding_interval)
