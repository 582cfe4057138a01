"""The timer of the service: chase doubtful orders, protect, compare with the exchange, recover after a lost commit."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import structlog

from services.exec_risk_service.handlers.execution_desk import ExecutionDesk
from services.exec_risk_service.handlers.ledger import Ledger
from services.exec_risk_service.handlers.reconciler import Reconciler
from services.exec_risk_service.handlers.stream_watch import UserStreamWatch
from shared.backoff import Backoff
from shared.clock import Clock

_UPKEEP_SECONDS = 1.0
#: Pause before a difference that was seen once is looked at again.
_SECOND_LOOK_SECONDS = 1.0

log = structlog.get_logger(__name__)


class Maintenance:
    """Does what is due each time it is called; all times are wall times."""

    def __init__(
        self,
        ledger: Ledger,
        reconciler: Reconciler,
        executions: ExecutionDesk,
        *,
        recover: Callable[[], Awaitable[None]],
        on_fenced: Callable[[], None],
        clock: Clock,
        sweep_seconds: float,
        stream_watch: UserStreamWatch | None = None,
    ) -> None:
        """Prepare.

        Args:
            ledger: The single writer.
            reconciler: Does the work.
            executions: Goes on with executions.
            recover: The same recovery as at the start.
            on_fenced: Ends the process: another one holds the account.
            clock: Wall clock.
            sweep_seconds: Time between two comparisons with the exchange.
            stream_watch: Judges the user stream; None where there is none.
        """
        self._ledger = ledger
        self._reconciler = reconciler
        self._executions = executions
        self._stream_watch = stream_watch
        self._recover = recover
        self._on_fenced = on_fenced
        self._clock = clock
        self._sweep_seconds = sweep_seconds
        self._backoff = Backoff(base_seconds=0.25, factor=2.0, cap_seconds=5.0)
        self._failures = 0
        self._next_recovery = clock.monotonic()
        self._next_upkeep = clock.monotonic()
        self._next_sweep = clock.monotonic() + sweep_seconds

    def sweep_soon(self) -> None:
        """Something was missed: compare at the next call."""
        self._next_sweep = self._clock.monotonic()

    async def tick(self) -> None:
        """Do what is due now.

        Raises:
            TransientError: Exchange or journal cannot be reached; the next call tries again.
        """
        if self._ledger.is_fenced:
            self._on_fenced()
            return
        if self._ledger.needs_recovery and not await self._recovered():
            return
        if self._stream_watch is not None:
            await self._stream_watch.check()
        await self._reconciler.chase()
        if self._clock.monotonic() >= self._next_upkeep or self._stop_must_follow():
            self._next_upkeep = self._clock.monotonic() + _UPKEEP_SECONDS
            await self._reconciler.upkeep()
        if self._clock.monotonic() >= self._next_sweep:
            self._next_sweep = self._clock.monotonic() + self._sweep_seconds
            await self._reconciler.sweep()
            if self._reconciler.suspects_something:
                self._next_sweep = self._clock.monotonic() + _SECOND_LOOK_SECONDS
        # Last: an execution that cannot go on must not keep stops and exits from being looked after.
        await self._executions.work()

    def _stop_must_follow(self) -> bool:
        """Tell whether an entry fills on while no stop covers what is there."""
        book = self._ledger.book
        return any(
            position.cover.since is not None and book.entry_under_way(symbol) is not None
            for symbol, position in book.positions.items()
        )

    async def _recovered(self) -> bool:
        """Recover after a commit of which no one knows whether it was stored; pause between failures."""
        if self._clock.monotonic() < self._next_recovery:
            return False
        self._failures += 1
        self._next_recovery = self._clock.monotonic() + self._backoff.delay(self._failures)
        log.warning("recovering_after_lost_commit", account=self._ledger.account, attempt=self._failures)
        await self._recover()
        self._failures = 0
        return True
