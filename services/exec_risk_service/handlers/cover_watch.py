"""How long positions stand without a stop, as figures of ``/metrics``."""

from __future__ import annotations

from collections.abc import Callable

from services.exec_risk_service.domain.book import Book
from services.exec_risk_service.domain.positions import Position
from services.exec_risk_service.domain.step import Step
from shared.clock import Clock
from shared.telemetry.metrics import Metrics


class CoverWatch:
    """Notes each time without a stop when it is over, and tells the longest that is not."""

    def __init__(self, metrics: Metrics, book: Callable[[], Book], clock: Clock) -> None:
        """Prepare.

        Args:
            metrics: Where they are shown.
            book: The account as it stands.
            clock: Wall clock.
        """
        self._book = book
        self._clock = clock
        self._metrics = metrics
        metrics.watch_unprotected(self.longest_now)

    def on_step(self, step: Step, before: Book) -> None:
        """Note the times that ``step`` ended."""
        for position in step.positions:
            known = _known(before, position)
            exposed = position.cover.exposed - known.cover.exposed if known else position.cover.exposed
            if position.cover.since is None and (known is None or known.cover.since is not None):
                self._metrics.position_protected(exposed.total_seconds())

    def longest_now(self) -> float:
        """Return the longest present time without a stop, seconds."""
        now = self._clock.now()
        times = [position.cover.present(now).total_seconds() for position in self._book().positions.values()]
        return max(times, default=0.0)


def _known(before: Book, position: Position) -> Position | None:
    held = before.positions.get(position.symbol)
    return held if held is not None and held.position_id == position.position_id else None
