"""What a request to Binance costs, and how much it matters: one literal table, and what follows from the parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Any


class Priority(StrEnum):
    """Who goes first when the weight of the minute runs short."""

    EXIT = "EXIT"  # reduces exposure, or asks for the fate of an order: never waits for the budget
    ENTRY = "ENTRY"  # adds exposure
    ACCOUNT = "ACCOUNT"  # looks at the account, or at a price for an order; tried again by whoever asks
    MARKET = "MARKET"  # candles and figures for models: waits for the next minute


@dataclass(frozen=True, slots=True)
class ApiRequest:
    """One request as ccxt names it.

    Attributes:
        method: GET, POST, PUT or DELETE.
        path: Path below the version: ``order``, ``positionSide/dual``.
        weight: What it adds to the used weight of the address.
        priority: How much it matters.
    """

    method: str
    path: str
    weight: int
    priority: Priority

    @property
    def adds_exposure(self) -> bool:
        """True for an order that can open or enlarge a position."""
        return self.priority is Priority.ENTRY

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


Parameters = Mapping[str, Any]
Weight = int | Callable[[Parameters], int]


def _by_limit(default: int, *steps: tuple[int, int], beyond: int) -> Callable[[Parameters], int]:
    """Return the weight that follows from ``limit``: the first step that it does not exceed, else ``beyond``."""

    def weight(parameters: Parameters) -> int:
        limit = int(parameters.get("limit", default))
        return next((cost for most, cost in steps if limit <= most), beyond)

    return weight


def _by_symbol(one: int, all_symbols: int) -> Callable[[Parameters], int]:
    return lambda parameters: one if parameters.get("symbol") else all_symbols


_KLINES = _by_limit(500, (99, 1), (499, 2), (1000, 5), beyond=10)
_DEPTH = _by_limit(500, (50, 2), (100, 5), (500, 10), beyond=20)

#: (method, path) -> weight and priority; orders decide their priority by their parameters.
_TABLE: Mapping[tuple[str, str], tuple[Weight, Priority]] = MappingProxyType(
    {
        ("POST", "order"): (0, Priority.ENTRY),
        ("PUT", "order"): (1, Priority.ENTRY),
        ("POST", "algoOrder"): (0, Priority.ENTRY),
        ("POST", "batchOrders"): (5, Priority.ENTRY),
        ("PUT", "batchOrders"): (5, Priority.ENTRY),
        ("POST", "leverage"): (1, Priority.ENTRY),
        ("DELETE", "order"): (1, Priority.EXIT),
        ("DELETE", "algoOrder"): (1, Priority.EXIT),
        ("DELETE", "batchOrders"): (1, Priority.EXIT),
        ("DELETE", "allOpenOrders"): (1, Priority.EXIT),
        ("DELETE", "algoOpenOrders"): (1, Priority.EXIT),
        ("POST", "countdownCancelAll"): (10, Priority.EXIT),
        ("GET", "order"): (1, Priority.EXIT),
        ("GET", "algoOrder"): (1, Priority.EXIT),
        ("POST", "listenKey"): (1, Priority.EXIT),
        ("PUT", "listenKey"): (1, Priority.EXIT),
        ("DELETE", "listenKey"): (1, Priority.EXIT),
        ("POST", "marginType"): (1, Priority.ACCOUNT),
        ("POST", "positionSide/dual"): (1, Priority.ACCOUNT),
        ("POST", "multiAssetsMargin"): (1, Priority.ACCOUNT),
        ("POST", "positionMargin"): (1, Priority.ACCOUNT),
        ("GET", "time"): (1, Priority.EXIT),
        ("GET", "openOrders"): (_by_symbol(1, 40), Priority.ACCOUNT),
        ("GET", "openAlgoOrders"): (_by_symbol(1, 40), Priority.ACCOUNT),
        ("GET", "allOrders"): (5, Priority.ACCOUNT),
        ("GET", "allAlgoOrders"): (5, Priority.ACCOUNT),
        ("GET", "userTrades"): (5, Priority.ACCOUNT),
        ("GET", "income"): (30, Priority.ACCOUNT),
        ("GET", "account"): (5, Priority.ACCOUNT),
        ("GET", "balance"): (5, Priority.ACCOUNT),
        ("GET", "positionRisk"): (5, Priority.ACCOUNT),
        ("GET", "leverageBracket"): (1, Priority.ACCOUNT),
        ("GET", "exchangeInfo"): (1, Priority.ACCOUNT),
        ("GET", "commissionRate"): (20, Priority.ACCOUNT),
        ("GET", "symbolConfig"): (5, Priority.ACCOUNT),
        ("GET", "accountConfig"): (5, Priority.ACCOUNT),
        ("GET", "positionSide/dual"): (30, Priority.ACCOUNT),
        ("GET", "multiAssetsMargin"): (30, Priority.ACCOUNT),
        ("GET", "forceOrders"): (_by_symbol(20, 50), Priority.ACCOUNT),
        # Counted per address on another host, where nothing else of ours goes.
        ("GET", "account/apiRestrictions"): (0, Priority.ACCOUNT),
        ("GET", "ping"): (1, Priority.MARKET),
        ("GET", "klines"): (_KLINES, Priority.MARKET),
        ("GET", "depth"): (_DEPTH, Priority.ACCOUNT),
        ("GET", "ticker/24hr"): (_by_symbol(1, 40), Priority.MARKET),
        ("GET", "ticker/price"): (_by_symbol(1, 2), Priority.ACCOUNT),
        ("GET", "ticker/bookTicker"): (_by_symbol(2, 5), Priority.ACCOUNT),
        ("GET", "premiumIndex"): (_by_symbol(1, 10), Priority.ACCOUNT),
        ("GET", "fundingRate"): (1, Priority.MARKET),
        ("GET", "fundingInfo"): (1, Priority.MARKET),
    }
)
#: What a request costs that the table does not know: dear enough to be noticed.
_UNKNOWN_WEIGHT = 20
_URGENT: ContextVar[bool] = ContextVar("urgent_requests", default=False)
_SURE = frozenset({"true", True})


def request_of(method: str, path: str, parameters: Parameters) -> ApiRequest:
    """Return what is known about one request.

    Args:
        method: GET, POST, PUT or DELETE.
        path: Path below the version, as ccxt names it.
        parameters: Of the request.
    """
    weight, priority = _TABLE.get((method, path), (_UNKNOWN_WEIGHT, Priority.ACCOUNT))
    if priority is Priority.ENTRY and _only_reduces(parameters):
        priority = Priority.EXIT
    return ApiRequest(method, path, weight if isinstance(weight, int) else weight(parameters), priority)


@contextmanager
def urgently() -> Iterator[None]:
    """Let every look at the account inside the block go as far as an exit may: an emergency stop asks."""
    token = _URGENT.set(True)
    try:
        yield
    finally:
        _URGENT.reset(token)


def as_it_matters(request: ApiRequest) -> ApiRequest:
    """Return ``request`` with the priority that it has here: looks of an emergency stop count as exits."""
    if request.priority is Priority.ACCOUNT and _URGENT.get():
        return replace(request, priority=Priority.EXIT)
    return request


def as_look(request: ApiRequest) -> ApiRequest:
    """Return ``request`` as important as a look at the account."""
    return replace(request, priority=Priority.ACCOUNT)


def _only_reduces(parameters: Parameters) -> bool:
    return parameters.get("reduceOnly") in _SURE or parameters.get("closePosition") in _SURE
