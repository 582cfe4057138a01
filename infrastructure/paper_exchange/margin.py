"""The arithmetic of margin: what a position must keep, where it is liquidated, where nothing is left. Pure formulas."""

from __future__ import annotations

from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

from infrastructure.paper_exchange.contracts import Bracket, Contract
from shared.trading.money import ZERO

#: Rounds of "price -> notional -> bracket -> price" before the last bracket is taken as it is.
_ROUNDS = 12


def liquidation_price(contract: Contract, quantity: Decimal, entry_price: Decimal, backing: Decimal) -> Decimal:
    """Return the mark price, USDT, at which the margin of a position is down to its maintenance margin; 0 when none.

    Binance's formula ``LP = (backing + cum - s*Q*EP) / (Q*MMR - s*Q)`` with the bracket of the notional at LP.

    Args:
        contract: Brings the brackets.
        quantity: Signed base asset, not 0.
        entry_price: USDT.
        backing: What stands behind it: the isolated wallet, or the cross wallet plus the open profit of all other
            cross positions minus their maintenance margins, USDT.
    """
    bracket = contract.bracket_for(abs(quantity) * entry_price)
    for _ in range(_ROUNDS):
        price = _price_in(bracket, quantity, entry_price, backing)
        found = contract.bracket_for(abs(quantity) * max(price, ZERO))
        if found == bracket:
            break
        bracket = found
    return max(price, ZERO)


def _price_in(bracket: Bracket, quantity: Decimal, entry_price: Decimal, backing: Decimal) -> Decimal:
    size = abs(quantity)
    return (backing + bracket.cum - quantity * entry_price) / (size * bracket.maintenance_rate - quantity)


def bankruptcy_price(quantity: Decimal, entry_price: Decimal, backing: Decimal, tick_size: Decimal) -> Decimal:
    """Return the price, USDT, at which closing a position leaves nothing of ``backing``, rounded to the safe side.

    Args:
        quantity: Signed base asset, not 0.
        entry_price: USDT.
        backing: The isolated wallet, or the cross wallet plus the open profit of all other cross positions, USDT.
        tick_size: Price grid, USDT.
    """
    exact = entry_price - backing / quantity
    ticks = (exact / tick_size).to_integral_value(ROUND_CEILING if quantity > 0 else ROUND_FLOOR)
    return max(tick_size, ticks * tick_size)


def break_even_price(quantity: Decimal, entry_price: Decimal, fees: Decimal) -> Decimal:
    """Return the price, USDT, at which closing earns back the ``fees`` that opening cost; 0 when flat."""
    return entry_price + fees / quantity if quantity else ZERO


def adl_quantile(quantity: Decimal, entry_price: Decimal, mark: Decimal, leverage: int) -> int:
    """Return 0 (last in line for auto-deleveraging) to 4 (first): profit in percent of the margin decides."""
    if not quantity or not entry_price:
        return 0
    direction = 1 if quantity > 0 else -1
    earned = (mark - entry_price) / entry_price * direction * leverage
    return sum(earned > step for step in _ADL_STEPS)


#: Return on margin above which a position moves one place up in the line.
_ADL_STEPS = (Decimal(0), Decimal("0.25"), Decimal("0.5"), Decimal(1))
