"""A process that ends at a chosen moment: between two steps of the journal, or around a request."""

from __future__ import annotations

from collections.abc import Collection

from services.exec_risk_service.domain.book import Book
from services.exec_risk_service.domain.orders import Order
from services.exec_risk_service.domain.reports import OrderReport
from services.exec_risk_service.domain.step import Step
from services.exec_risk_service.ports import Commit, OrderJournal, StoredFact
from tests.support.exec_risk_desk import FaultyVenue


class Crash(BaseException):
    """The process is gone. No handler may catch it."""


class CrashClock:
    """Counts the moments at which a process can end, and ends it at one of them: by number, or by name."""

    def __init__(self, at: int | None = None) -> None:
        self.at = at
        self.at_name: str | None = None
        self.moments: list[str] = []
        self.is_dead = False

    def moment(self, name: str) -> None:
        """Pass a named moment, or do not."""
        if self.is_dead:
            raise Crash(name)
        self.moments.append(name)
        if len(self.moments) == self.at or name == self.at_name:
            self.is_dead = True
            raise Crash(name)


class CrashingJournal:
    """An ``OrderJournal`` whose process can end before and after each commit and each note of publication."""

    def __init__(self, inner: OrderJournal, crashes: CrashClock) -> None:
        self._inner = inner
        self._crashes = crashes

    async def load(self, account: str) -> Book:
        return await self._inner.load(account)

    async def commit(self, step: Step) -> Commit:
        self._crashes.moment(f"before commit {step.number}")
        verdict = await self._inner.commit(step)
        self._crashes.moment(f"after commit {step.number}")
        return verdict

    async def unpublished(self, limit: int) -> tuple[StoredFact, ...]:
        return await self._inner.unpublished(limit)

    async def mark_published(self, positions: Collection[int]) -> None:
        self._crashes.moment("after publish")
        await self._inner.mark_published(positions)


class CrashingVenue(FaultyVenue):
    """A venue in front of which, and behind which, the process can end."""

    crashes: CrashClock

    async def submit(self, order: Order) -> OrderReport:
        self.crashes.moment(f"before {order.leg} is sent")
        report = await super().submit(order)
        self.crashes.moment(f"after {order.leg} was sent")
        return report
