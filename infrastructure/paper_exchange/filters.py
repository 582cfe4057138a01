"""The checks an order passes before it enters the book, in Binance's order and with Binance's codes."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from decimal import Decimal

from infrastructure.paper_exchange.contracts import Contract
from infrastructure.paper_exchange.modes import PositionSide, SymbolStatus
from infrastructure.paper_exchange.records import AlgoRequest, OrderRequest, TimeInForce
from infrastructure.paper_exchange.refusals import refusal
from shared.trading.money import is_on_step
from shared.trading.orders import OrderType, Side

#: A GTD order must live at least this long.
_LEAST_LIFE = timedelta(seconds=600)
_CLIENT_ID = re.compile(r"^[.A-Z:/a-z0-9_-]{1,36}$")


def check_client_id(client_id: str) -> None:
    """Refuse an id that is not 1 to 36 of the allowed characters (-4015); an empty one means none was sent."""
    if client_id and not _CLIENT_ID.match(client_id):
        raise refusal(-4015)


def check_order_fields(request: OrderRequest, contract: Contract) -> None:
    """Refuse what the request alone gets wrong: grid, size, precision."""
    check_client_id(request.client_order_id)
    check_status(contract, only_reduces=request.only_reduces)
    if request.type.is_algo:
        raise refusal(-4120)
    if request.type is OrderType.LIMIT:
        if request.price is None:
            raise refusal(-1102, "price")
        check_price(request.price, contract)
        if request.time_in_force is TimeInForce.GTE_GTC:
            raise refusal(-1115)
    elif request.price is not None:
        raise refusal(-1106, "price")
    check_quantity(request.quantity, contract, market=request.type is OrderType.MARKET)


def check_status(contract: Contract, *, only_reduces: bool) -> None:
    """A symbol that is being delisted takes only orders that reduce (-4140), a closed one none (-4141)."""
    status = contract.status
    if status is SymbolStatus.TRADING or (status is SymbolStatus.SETTLING and only_reduces):
        return
    raise refusal(-4141 if status is SymbolStatus.CLOSE else -4140)


def check_position_side(request: OrderRequest | AlgoRequest, *, is_hedged: bool) -> None:
    """The position side must suit the mode (-4061); hedge mode knows no reduceOnly (-1106)."""
    if (request.position_side is not PositionSide.BOTH) is not is_hedged:
        raise refusal(-4061)
    if is_hedged and request.reduce_only:
        raise refusal(-1106, "reduceonly")


def check_good_till(time_in_force: TimeInForce, good_till: datetime | None, now: datetime) -> None:
    """GTD needs a date more than 600 seconds away (-5040); nothing else has one (-1106)."""
    if time_in_force is TimeInForce.GTD:
        if good_till is None:
            raise refusal(-1102, "goodTillDate")
        if good_till <= now + _LEAST_LIFE:
            raise refusal(-5040)
    elif good_till is not None:
        raise refusal(-1106, "goodTillDate")


def check_price(price: Decimal, contract: Contract) -> None:
    """PRICE_FILTER: sign, precision, range, tick."""
    if price <= 0:
        raise refusal(-4001)
    if _digits(price) > contract.price_precision:
        raise refusal(-1111)
    if price < contract.min_price:
        raise refusal(-4013)
    if price > contract.max_price:
        raise refusal(-4002)
    if not is_on_step(price, contract.instrument.tick_size):
        raise refusal(-4014)


def check_trigger_price(price: Decimal, contract: Contract) -> None:
    """The same grid for the trigger of a conditional order."""
    if price <= 0:
        raise refusal(-4006)
    if _digits(price) > contract.price_precision:
        raise refusal(-1111)
    if price > contract.max_price:
        raise refusal(-4007)
    if not is_on_step(price, contract.instrument.tick_size):
        raise refusal(-4014)


def check_quantity(quantity: Decimal, contract: Contract, *, market: bool) -> None:
    """LOT_SIZE or MARKET_LOT_SIZE: sign, precision, range, step."""
    instrument = contract.instrument
    if quantity <= 0:
        raise refusal(-4003)
    if _digits(quantity) > contract.quantity_precision:
        raise refusal(-1111)
    if quantity < instrument.min_quantity:
        raise refusal(-4004)
    if quantity > (instrument.max_market_quantity if market else instrument.max_quantity):
        raise refusal(-4005)
    if not is_on_step(quantity, instrument.lot_step):
        raise refusal(-4023)


def check_against_market(request: OrderRequest, contract: Contract, *, mark: Decimal, best: Decimal) -> None:
    """PERCENT_PRICE and MIN_NOTIONAL, which need the mark price and the best price the order could take (USDT)."""
    ceiling, floor = mark * contract.multiplier_up, mark * contract.multiplier_down
    buys = request.side is Side.BUY
    if request.price is None:
        if best > ceiling if buys else best < floor:
            raise refusal(-4131)
    elif buys and request.price > ceiling:
        raise refusal(-4016)
    elif not buys and request.price < floor:
        raise refusal(-4024)
    value = (request.price or mark) * request.quantity
    if not request.only_reduces and value < contract.instrument.min_notional:
        raise refusal(-4164, contract.instrument.min_notional)


def _digits(value: Decimal) -> int:
    exponent = value.normalize().as_tuple().exponent
    return max(0, -exponent) if isinstance(exponent, int) else 0
