"""Whether the user stream is alive, by what it should have told: a connection that stands proves nothing.

A listen key that expired and an old address both leave a socket that answers pings and says nothing. So each change of
one of our orders, and each trade found by REST, is a probe: if the stream says nothing at all for some seconds after
it, the stream is dead. Then entries wait, a new listen key is made, everything is read by REST, and entries go on.
"""

from __future__ import annotations

import structlog

from services.exec_risk_service.domain.book import Book
from services.exec_risk_service.domain.inputs import TradingLifted, TradingRestricted
from services.exec_risk_service.domain.orders import Order
from services.exec_risk_service.domain.step import Step
from services.exec_risk_service.domain.trading_state import TradingCause
from services.exec_risk_service.handlers.ledger import Ledger
from services.exec_risk_service.handlers.reconciler import Reconciler
from services.exec_risk_service.ports import StreamLink
from shared.backoff import Backoff
from shared.clock import Clock
from shared.trading.orders import OrderStatus

#: An event may have come a little before: its report waits for its turn while the answer is applied already.
_SLACK_SECONDS = 3.0
#: What is seen by REST only, and has an event.
_SEEN_BY_REST = frozenset({"FillReport", "PositionObserved"})
#: States that only the exchange gives an order, each with an event.
_TOLD_BY_EVENT = frozenset(
    {
        OrderStatus.NEW,
        OrderStatus.PARTIALLY_FILLED,
        OrderStatus.TRIGGERED,
        OrderStatus.FILLED,
        OrderStatus.CANCELED,
        OrderStatus.EXPIRED,
    }
)
_WHO = "user-stream"

log = structlog.get_logger(__name__)


class UserStreamWatch:
    """Compares what the stream says with what it should have said; all times are wall times."""

    def __init__(
        self, ledger: Ledger, reconciler: Reconciler, stream: StreamLink, clock: Clock, *, patience_seconds: float = 5.0
    ) -> None:
        """Prepare; probes count from the first complete comparison with the exchange on.

        Args:
            ledger: The single writer; its restriction holds the entries back.
            reconciler: Tells when everything was read by REST.
            stream: The user stream.
            clock: Wall clock.
            patience_seconds: Silence after a probe, or time without a connection, that makes the stream dead.
        """
        self._ledger = ledger
        self._reconciler = reconciler
        self._stream = stream
        self._clock = clock
        self._patience = patience_seconds
        self._hold = Backoff(base_seconds=10.0, factor=2.0, cap_seconds=600.0)
        self._probe: float | None = None
        self._connection = 0
        self._comparisons = 0
        self._connected_at = clock.monotonic()
        self._dead_since: float | None = None
        self._deaths = 0

    @property
    def line(self) -> str:
        """What ``/health`` says about it."""
        quiet = self._clock.monotonic() - self._stream.heard_at
        if self._dead_since is not None:
            return f"dead for {self._clock.monotonic() - self._dead_since:.0f} s: entries wait"
        if not self._stream.is_connected:
            return "not connected"
        return f"live, last event {quiet:.0f} s ago" if self._stream.heard_at else "live, no event yet"

    def on_step(self, step: Step, before: Book) -> None:
        """Note a change that the stream has to tell, unless it happened before the stream was there."""
        if self._probe is not None or not self._is_settled:
            return
        if _is_seen_by_rest(step) or any(_moved(order, before) for order in step.orders):
            self._probe = self._clock.monotonic()

    async def check(self) -> None:
        """Judge the stream; to be called a few times per second.

        Raises:
            ConnectionLostError: The restriction could not be stored; the next call tries again.
        """
        now = self._clock.monotonic()
        if self._stream.connection != self._connection:
            self._connection, self._comparisons = self._stream.connection, self._reconciler.comparisons
            self._connected_at, self._probe = now, None
        if self._probe is not None and self._stream.heard_at >= self._probe - _SLACK_SECONDS:
            self._probe = None
            self._deaths = 0
        why = self._verdict(now)
        if self._dead_since is not None:
            await self._revive(now)
        elif why is not None:
            await self._declare_dead(now, why)
        elif self._is_settled and self._ledger.book.trading.restriction(TradingCause.USER_STREAM_LOST):
            await self._lift("it was lost before this process began, and is connected")

    @property
    def _is_settled(self) -> bool:
        """Everything from before this connection was read by REST: what changes from here on has an event."""
        compared = self._reconciler.comparisons > self._comparisons or self._connection <= 1
        return self._stream.is_connected and self._stream.connection == self._connection and compared

    def _verdict(self, now: float) -> str | None:
        if not self._stream.is_connected:
            away = now - max(self._connected_at, self._stream.lost_at)
            return f"no connection for {away:.0f} s" if away > self._patience else None
        if self._probe is not None and now - self._probe > self._patience:
            return f"nothing was told for {now - self._probe:.0f} s after an order had changed"
        return None

    async def _declare_dead(self, now: float, why: str) -> None:
        log.error("user_stream_dead", reason=why, connection=self._connection)
        reason = f"the user stream is dead: {why}"
        await self._ledger.apply(TradingRestricted(TradingCause.USER_STREAM_LOST, reason, changed_by=_WHO))
        self._dead_since, self._deaths = now, self._deaths + 1
        self._stream.renew(why)
        self._connection = self._stream.connection
        self._probe = None

    async def _revive(self, now: float) -> None:
        """Let entries go on after a new connection and a full comparison; each further death holds them longer."""
        assert self._dead_since is not None
        held = 0.0 if self._deaths <= 1 else self._hold.delay(self._deaths - 1)
        if not self._is_settled or self._connected_at < self._dead_since or now - self._dead_since < held:
            return
        passed = now - self._dead_since
        await self._lift(f"connected anew and all read by REST after {passed:.0f} s")
        log.info("user_stream_live", connection=self._connection, dead_seconds=passed)
        self._dead_since = None

    async def _lift(self, how: str) -> None:
        await self._ledger.apply(
            TradingLifted(TradingCause.USER_STREAM_LOST, f"the user stream: {how}", changed_by=_WHO)
        )


def _is_seen_by_rest(step: Step) -> bool:
    return bool(step.facts) and step.facts[0].payload.metadata["input"]["kind"] in _SEEN_BY_REST


def _moved(order: Order, before: Book) -> bool:
    known = before.orders.get(order.client_order_id)
    return order.status in _TOLD_BY_EVENT and (known is None or known.status is not order.status)
