"""The points at which a test can end this service: before and after everything that changes something outside it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

from services.exec_risk_service.ports import (
    AccountView,
    CandleHistory,
    DeadMansSwitch,
    LeaseStore,
    MarketView,
    OrderGateway,
    OrderJournal,
    ReportStream,
    StopJournal,
    StopLatch,
    StreamLink,
    TradingTerms,
)
from shared.crashpoints import Crashpoints, points_of

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Effects:
    """What the methods of one port do to the outside.

    Attributes:
        name: First part of the names of its points.
        port: The protocol.
        effects: Methods that change something outside this process; each has a point before and after it.
        reads: Methods that only look, or open and close what they look through.
    """

    name: str
    port: type[Any]
    effects: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()


#: Every method of every port stands in one row; a test compares this table with the ports.
PORTS: tuple[Effects, ...] = (
    Effects("gateway", OrderGateway, effects=("submit", "cancel", "set_leverage"), reads=("find_order",)),
    Effects("journal", OrderJournal, effects=("load", "commit", "mark_published"), reads=("unpublished",)),
    Effects("lease", LeaseStore, effects=("take", "renew", "release"), reads=("read",)),
    Effects("countdown", DeadMansSwitch, effects=("count_down",)),
    Effects("latch", StopLatch, effects=("write", "clear"), reads=("read",)),
    Effects("stop_journal", StopJournal, effects=("add", "mark_told"), reads=("orders", "close")),
    Effects("view", AccountView, reads=("account", "open_orders", "fills_after", "payments_since")),
    Effects("market", MarketView, reads=("quote",)),
    Effects("terms", TradingTerms, reads=("instruments", "account_terms")),
    Effects("history", CandleHistory, reads=("candles",)),
    Effects("stream", ReportStream, reads=("start", "stop", "reports")),
    Effects("stream-link", StreamLink, reads=("renew",)),
)
#: What the bus sends to Redis on our behalf: an event, and the word that one is handled.
BUS_COMMANDS = ("XADD", "XACK")
_BUS_METHODS = ("execute", "execute_atomically")


def crash_points() -> tuple[str, ...]:
    """Return the name of every point of this service, in the order of the tables."""
    effects = [f"{row.name}.{effect}" for row in PORTS for effect in row.effects]
    return tuple(point for effect in (*effects, *(f"redis.{c}" for c in BUS_COMMANDS)) for point in points_of(effect))


def with_points(inner: T, points: Crashpoints) -> T:
    """Return ``inner``, which stands behind one or more ports, with the points of all of them.

    A method belongs to the port that names it; a name that two ports share is the business of the first.
    """
    for row in PORTS:
        if row.effects and all(hasattr(inner, method) for method in (*row.effects, *row.reads)):
            inner = points.around(inner, row.name, row.effects)
    return inner


def redis_with_points(connection: T, points: Crashpoints) -> T:
    """Return the connection of the bus with a point around each command that adds or acknowledges an entry."""
    return points.around_commands(connection, "redis", _BUS_METHODS, BUS_COMMANDS)
