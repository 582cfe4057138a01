"""What can be traded, with the filters of the exchange."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal

from shared.errors import InvalidInputError
from shared.trading.money import round_down

_UNIFIED = re.compile(r"([A-Z0-9]+)/(USDT|USDC):\2")  # a linear contract settles in what it is quoted in
_VENUE = re.compile(r"([A-Z0-9]+)(USDT|USDC)")
_TIMEFRAME = re.compile(r"([1-9][0-9]*)([mhd])")
_UNIT_SECONDS = {"m": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True, slots=True)
class Instrument:
    """A linear USD-M perpetual.

    Attributes:
        symbol: Venue symbol, ``BTCUSDT``: the form that events and the exchange use.
        tick_size: Price grid, USDT.
        lot_step: Quantity grid, in base asset.
        min_quantity: Smallest order, base asset.
        max_quantity: Largest limit order, base asset.
        max_market_quantity: Largest market order, base asset.
        min_notional: Smallest price x quantity, USDT; reduce-only orders are exempt.
        max_leverage: Highest leverage of the first bracket.
        maintenance_rate: Maintenance margin of the first bracket, a fraction of the position's value.
    """

    symbol: str
    tick_size: Decimal
    lot_step: Decimal
    min_quantity: Decimal
    max_quantity: Decimal
    max_market_quantity: Decimal
    min_notional: Decimal
    max_leverage: int
    maintenance_rate: Decimal = Decimal("0.01")

    def quantity_for(self, notional_usd: Decimal, price: Decimal) -> Decimal:
        """Return the largest tradable quantity whose value at ``price`` is at most ``notional_usd``; 0 when none is."""
        quantity = round_down(min(notional_usd / price, self.max_market_quantity), self.lot_step)
        if quantity < self.min_quantity or quantity * price < self.min_notional:
            return Decimal(0)
        return quantity


def venue_symbol(symbol: str) -> str:
    """Return ``BTCUSDT`` for ``BTC/USDT:USDT`` or ``BTCUSDT``.

    Raises:
        InvalidInputError: ``symbol`` has neither form.
    """
    if match := _UNIFIED.fullmatch(symbol):
        return match[1] + match[2]
    if _VENUE.fullmatch(symbol):
        return symbol
    raise InvalidInputError(f"symbol {symbol!r} is not known here; write it as BTC/USDT:USDT or BTCUSDT")


def unified_symbol(symbol: str) -> str:
    """Return ccxt's ``BTC/USDT:USDT`` for ``BTCUSDT`` or ``BTC/USDT:USDT``.

    Raises:
        InvalidInputError: ``symbol`` has neither form.
    """
    if _UNIFIED.fullmatch(symbol):
        return symbol
    if match := _VENUE.fullmatch(symbol):
        return f"{match[1]}/{match[2]}:{match[2]}"
    raise InvalidInputError(f"symbol {symbol!r} is not known here; write it as BTC/USDT:USDT or BTCUSDT")


def timeframe_duration(timeframe: str) -> timedelta:
    """Return the length of one candle: ``1m`` is 60 seconds, ``1h`` 3600.

    Raises:
        InvalidInputError: ``timeframe`` is not a number with m, h or d.
    """
    if match := _TIMEFRAME.fullmatch(timeframe):
        return timedelta(seconds=int(match[1]) * _UNIT_SECONDS[match[2]])
    raise InvalidInputError(f"timeframe {timeframe!r} is not known here; use for example 1m, 5m, 1h or 1d")
