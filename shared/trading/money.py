"""Decimal arithmetic on the exchange's grid: prices on ticks, quantities on lots, never a NaN."""

from __future__ import annotations

import math
from decimal import Decimal, InvalidOperation

from shared.errors import InvalidInputError

ZERO = Decimal(0)
#: USDT amounts are kept to 8 decimals, as Binance keeps them.
QUOTE_STEP = Decimal("0.00000001")


def to_decimal(value: Decimal | float | str, *, name: str = "value") -> Decimal:
    """Return ``value`` as a finite Decimal; floats go through their shortest text, so 0.1 stays 0.1.

    Raises:
        InvalidInputError: ``value`` is no number, NaN or infinite.
    """
    if isinstance(value, float) and not math.isfinite(value):
        raise InvalidInputError(f"{name} must be a finite number, was {value}")
    try:
        number = value if isinstance(value, Decimal) else Decimal(str(value))
    except InvalidOperation:
        raise InvalidInputError(f"{name} must be a number, was {value!r}") from None
    if not number.is_finite():
        raise InvalidInputError(f"{name} must be a finite number, was {value}")
    return number


def round_down(value: Decimal, step: Decimal) -> Decimal:
    """Return the largest multiple of ``step`` that is no farther from zero than ``value``."""
    # Not value / step: that quotient is rounded to 28 digits, and 9.99...9 / 0.05 would become 200.
    return value // step * step


def round_price(price: Decimal, tick_size: Decimal, *, up: bool) -> Decimal:
    """Return ``price`` on the tick grid, rounded up or down as the caller's risk asks."""
    ticks, rest = divmod(price, tick_size)
    if up and rest > 0:
        ticks += 1
    elif not up and rest < 0:
        ticks -= 1
    return ticks * tick_size


def is_on_step(value: Decimal, step: Decimal) -> bool:
    """Tell whether ``value`` is a multiple of ``step``."""
    return value % step == 0
