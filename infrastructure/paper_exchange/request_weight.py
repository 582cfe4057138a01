"""What requests cost and how much one may use: weights by parameter, windows of wall time, the headers that tell."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType

from infrastructure.paper_exchange.parameters import Parameters

#: A fixed weight, or one that depends on the parameters.
Weight = int | Callable[[Parameters], int]


def weigh(weight: Weight, parameters: Parameters) -> int:
    """Return what a request with ``parameters`` costs."""
    return weight if isinstance(weight, int) else weight(parameters)


def by_limit(default: int, *steps: tuple[int, int]) -> Weight:
    """Return a weight that grows with ``limit``: rows ``(up to and including, weight)``, the last one for all above."""

    def weight(parameters: Parameters) -> int:
        text = parameters.optional("limit") or ""
        limit = int(text) if text.isdigit() else default
        return next((cost for most, cost in steps if limit <= most), steps[-1][1])

    return weight


def without_symbol(one: int, all_: int) -> Weight:
    """Return a weight that is higher when the request names no symbol."""
    return lambda parameters: one if parameters.optional("symbol") else all_


DEPTH = by_limit(500, (50, 2), (100, 5), (500, 10), (1_000, 20))
KLINES = by_limit(500, (99, 1), (499, 2), (1_000, 5), (1_500, 10))


@dataclass(frozen=True, slots=True)
class Limit:
    """One row of ``exchangeInfo.rateLimits``.

    Attributes:
        kind: REQUEST_WEIGHT, per address, or ORDERS, per account.
        interval: Its unit and how many of it, in Binance's words.
        seconds: The same in seconds.
        most: What fits into the interval.
        header: Header that tells what is used.
    """

    kind: str
    interval: str
    number: int
    seconds: int
    most: int
    header: str


WEIGHT_PER_MINUTE = Limit("REQUEST_WEIGHT", "MINUTE", 1, 60, 2_400, "X-MBX-USED-WEIGHT-1M")
ORDERS_PER_MINUTE = Limit("ORDERS", "MINUTE", 1, 60, 1_200, "X-MBX-ORDER-COUNT-1M")
ORDERS_PER_TEN_SECONDS = Limit("ORDERS", "SECOND", 10, 10, 300, "X-MBX-ORDER-COUNT-10S")
BINANCE_LIMITS = (WEIGHT_PER_MINUTE, ORDERS_PER_MINUTE, ORDERS_PER_TEN_SECONDS)


@dataclass(frozen=True, slots=True)
class Cost:
    """What one request uses up.

    Attributes:
        weight: Of the address.
        orders_10s: Of the account's order count per ten seconds; likewise ``orders_1m``.
    """

    weight: int
    orders_10s: int = 0
    orders_1m: int = 0

    def of(self, limit: Limit) -> int:
        """Return the share that counts against ``limit``."""
        if limit.kind == "REQUEST_WEIGHT":
            return self.weight
        return self.orders_1m if limit.interval == "MINUTE" else self.orders_10s


@dataclass(frozen=True, slots=True)
class Usage:
    """The windows after one request.

    Attributes:
        headers: What the answer tells of them.
        exceeded: The first limit that is used up, or None.
        seconds_left: Until its window ends.
    """

    headers: Mapping[str, str]
    exceeded: Limit | None = None
    seconds_left: int = 0


class UsedWeight:
    """Counts what is used, in windows that begin on the full minute (ten seconds) of wall time.

    Args:
        limits: Rows of ``exchangeInfo.rateLimits``.
    """

    def __init__(self, limits: tuple[Limit, ...] = BINANCE_LIMITS) -> None:
        self.limits = limits
        self._windows: dict[Limit, tuple[int, int]] = {}

    def count(self, cost: Cost, now: datetime) -> Usage:
        """Count one request, whether or not it still fits."""
        headers: dict[str, str] = {}
        exceeded: Limit | None = None
        for limit in self.limits:
            amount = cost.of(limit)
            used = self._add(limit, amount, now)
            if limit.kind == "REQUEST_WEIGHT" or amount:
                headers[limit.header] = str(used)
            if amount and used > limit.most and exceeded is None:
                exceeded = limit
        left = exceeded.seconds - int(now.timestamp()) % exceeded.seconds if exceeded else 0
        return Usage(MappingProxyType(headers), exceeded, left)

    def used(self, limit: Limit, now: datetime) -> int:
        """Return what is used of ``limit`` in its present window."""
        return self._add(limit, 0, now)

    def _add(self, limit: Limit, amount: int, now: datetime) -> int:
        window = int(now.timestamp()) // limit.seconds
        known, used = self._windows.get(limit, (window, 0))
        total = amount + (used if known == window else 0)
        self._windows[limit] = (window, total)
        return total
