"""Faults that happen by themselves: a literal table from kind to what it does to the exchange."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from datetime import timedelta
from decimal import Decimal
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import orjson
import structlog

from infrastructure.paper_exchange.contracts import Contract
from infrastructure.paper_exchange.faults import FAULTS, Fault, Occasion
from infrastructure.paper_exchange.modes import PositionSide, SymbolStatus
from infrastructure.paper_exchange.records import OrderRequest, PositionRecord
from infrastructure.paper_exchange.user_events import milliseconds
from shared.errors import InvalidInputError, OrderRejectedError
from shared.trading.instruments import Instrument
from shared.trading.money import to_decimal
from shared.trading.orders import OrderType, Side

if TYPE_CHECKING:
    from infrastructure.paper_exchange.live_exchange import LiveExchange

log = structlog.get_logger(__name__)

#: How long a state lasts that was armed without ``seconds``: until it is cleared.
_FOR_GOOD = 10.0 * 365 * 86_400


def _maintenance(exchange: LiveExchange, fault: Fault) -> None:
    exchange.outages.begin(int(fault.chosen), exchange.clock.monotonic(), fault.seconds or _FOR_GOOD)


def _rate_limit(exchange: LiveExchange, fault: Fault) -> None:
    exchange.outages.begin(429, exchange.clock.monotonic(), fault.seconds or 60.0)


def _ip_ban(exchange: LiveExchange, fault: Fault) -> None:
    exchange.outages.begin(418, exchange.clock.monotonic(), fault.seconds or exchange.outages.FIRST_BAN)


def _expire_listen_key(exchange: LiveExchange, _fault: Fault) -> None:
    exchange.expire_listen_key()


def _close_streams(exchange: LiveExchange, fault: Fault) -> None:
    exchange.hub.close(user=fault.chosen != "market", market=fault.chosen != "user")


def _cut_streams(exchange: LiveExchange, fault: Fault) -> None:
    exchange.connections.cut(exchange.hub.clients(user=fault.chosen != "market", market=fault.chosen != "user"))


def _ignore_pings(exchange: LiveExchange, fault: Fault) -> None:
    exchange.connections.answers_pings = False
    exchange.keep_state("ignore_pings", fault.seconds, lambda: setattr(exchange.connections, "answers_pings", True))


def _legacy_silence(exchange: LiveExchange, fault: Fault) -> None:
    exchange.hub.is_legacy_silent = True
    exchange.keep_state("legacy_silence", fault.seconds, lambda: setattr(exchange.hub, "is_legacy_silent", False))


def _clock_offset(exchange: LiveExchange, fault: Fault) -> None:
    exchange.clock_offset = timedelta(milliseconds=int(fault.value or 0))
    exchange.keep_state("clock_offset", fault.seconds, lambda: setattr(exchange, "clock_offset", timedelta()))


def _flatten(exchange: LiveExchange, fault: Fault) -> None:
    """The owner closes everything by hand, under the name that the website gives."""
    exchange.sync()
    for position in exchange.engine.positions(fault.symbol):
        if position.quantity:
            exchange.engine.place_order(_closing(position, f"web_{milliseconds(exchange.engine.now)}"))
    exchange.send_events()


def _closing(position: PositionRecord, name: str) -> OrderRequest:
    return OrderRequest(
        symbol=position.symbol,
        side=Side.SELL if position.quantity > 0 else Side.BUY,
        type=OrderType.MARKET,
        quantity=abs(position.quantity),
        client_order_id=name,
        reduce_only=position.position_side is PositionSide.BOTH,
        position_side=position.position_side,
    )


def _liquidate(exchange: LiveExchange, fault: Fault) -> None:
    exchange.sync()
    for position in exchange.engine.positions(fault.symbol):
        exchange.engine.liquidate(fault.symbol, position.position_side)
    exchange.send_events()


def _adl(exchange: LiveExchange, fault: Fault) -> None:
    exchange.sync()
    for position in exchange.engine.positions(fault.symbol):
        exchange.engine.deleverage(fault.symbol, position.position_side)
    exchange.send_events()


def _settle_funding(exchange: LiveExchange, fault: Fault) -> None:
    exchange.sync()
    exchange.engine.settle_funding(fault.symbol, to_decimal(fault.value, name="value") if fault.value else None)
    exchange.send_events()


def _funding_interval(exchange: LiveExchange, fault: Fault) -> None:
    contract = exchange.engine.contract(fault.symbol)
    exchange.sync()
    exchange.engine.replace_contract(replace(contract, funding_interval=timedelta(hours=int(fault.value or 1))))


def _change_filters(exchange: LiveExchange, fault: Fault) -> None:
    exchange.engine.replace_contract(changed_contract(exchange.engine.contract(fault.symbol), fault.value))


def _delist(exchange: LiveExchange, fault: Fault) -> None:
    """CLOSE is the end: orders go, positions are settled; every other status only limits what may be ordered."""
    exchange.sync()
    contract, status = exchange.engine.contract(fault.symbol), SymbolStatus(fault.chosen)
    if status is SymbolStatus.CLOSE:
        exchange.engine.delist(fault.symbol)
    else:
        exchange.engine.replace_contract(replace(contract, status=status))
    exchange.send_events()


def _hedge_mode(exchange: LiveExchange, _fault: Fault) -> None:
    exchange.sync()
    exchange.engine.force_hedge_mode()
    exchange.send_events()


ACTS: Mapping[str, Callable[[LiveExchange, Fault], None]] = MappingProxyType(
    {
        "maintenance": _maintenance,
        "rate_limit": _rate_limit,
        "ip_ban": _ip_ban,
        "expire_listen_key": _expire_listen_key,
        "close_streams": _close_streams,
        "cut_streams": _cut_streams,
        "ignore_pings": _ignore_pings,
        "legacy_silence": _legacy_silence,
        "clock_offset": _clock_offset,
        "flatten": _flatten,
        "liquidate": _liquidate,
        "adl": _adl,
        "settle_funding": _settle_funding,
        "funding_interval": _funding_interval,
        "change_filters": _change_filters,
        "delist": _delist,
        "hedge_mode": _hedge_mode,
    }
)
assert ACTS.keys() == {kind for kind, row in FAULTS.items() if row.occasion is Occasion.ACT}

#: Kinds that need to be told which symbol.
_NEED_SYMBOL = frozenset(
    {"flatten", "liquidate", "adl", "settle_funding", "funding_interval", "change_filters", "delist"}
)


def check_fields(exchange: LiveExchange, fault: Fault) -> None:
    """Refuse a fault that could not happen when its time comes.

    Raises:
        InvalidInputError: A symbol is missing, or ``value`` cannot be read.
        OrderRejectedError: The symbol is not listed.
    """
    if fault.kind in _NEED_SYMBOL:
        if not fault.symbol:
            raise InvalidInputError(f"fault {fault.kind} needs a symbol")
        exchange.engine.contract(fault.symbol)
    if fault.kind == "change_filters":
        changed_contract(exchange.engine.contract(fault.symbol), fault.value)
    if fault.kind == "settle_funding" and fault.value:
        to_decimal(fault.value, name="value")
    if fault.kind == "funding_interval" and fault.value and fault.value not in ("1", "2", "4", "8"):
        raise InvalidInputError(f"fault funding_interval: value {fault.value!r} is not 1, 2, 4 or 8 hours")
    if fault.kind == "clock_offset" and not fault.value.lstrip("-").isdigit():
        raise InvalidInputError(f"fault clock_offset: value {fault.value!r} is no number of milliseconds")
    if fault.kind == "partial_fills" and fault.value and not 0 < to_decimal(fault.value, name="value") < 1:
        raise InvalidInputError(f"fault partial_fills: value {fault.value!r} is no share between 0 and 1")


def perform_due(exchange: LiveExchange) -> None:
    """Let everything happen whose time has come."""
    for fault in exchange.faults.due_acts(exchange.clock.monotonic()):
        perform(exchange, fault)


def perform(exchange: LiveExchange, fault: Fault) -> None:
    """Let ``fault`` happen now."""
    try:
        ACTS[fault.kind](exchange, fault)
    except OrderRejectedError as error:
        log.warning("fault_not_performed", kind=fault.kind, symbol=fault.symbol, error=str(error))


def changed_contract(contract: Contract, text: str) -> Contract:
    """Return ``contract`` with the filters of the JSON object ``text`` replaced.

    Raises:
        InvalidInputError: It is no JSON object, names no filter, or a value is no number.
    """
    try:
        changes: Any = orjson.loads(text)
    except orjson.JSONDecodeError:
        changes = None
    numbers = {name for kind in (Contract, Instrument) for name in (field.name for field in fields(kind))}
    known = numbers - {"symbol", "instrument", "brackets", "status", "funding_interval"}
    if not isinstance(changes, dict) or not changes or not changes.keys() <= known:
        raise InvalidInputError(f"filters must be a JSON object of {', '.join(sorted(known))}; was {text!r}")
    outer: dict[str, Any] = {}
    inner: dict[str, Any] = {}
    for name, value in changes.items():
        number = to_decimal(str(value), name=name)
        owner = outer if name in {field.name for field in fields(Contract)} else inner
        present = getattr(contract if owner is outer else contract.instrument, name)
        owner[name] = number if isinstance(present, Decimal) else int(number)
    return replace(contract, instrument=replace(contract.instrument, **inner), **outer)
