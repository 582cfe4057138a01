"""A journal in memory, for replay and tests: the same rules as the real one, gone with the process."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field

from services.exec_risk_service.domain.book import Book
from services.exec_risk_service.domain.lease import NOBODY
from services.exec_risk_service.domain.step import Step
from services.exec_risk_service.ports import Commit, StoredFact, taken_over
from shared.errors import FencedError, InvalidInputError


@dataclass(slots=True)
class _Account:
    """What is stored of one account."""

    book: Book
    epoch: int = 0
    lease_holder: str = NOBODY
    lease_version: int = 0
    lease_expires_at: float = 0.0
    inbox: set[str] = field(default_factory=set)
    intents: set[tuple[str, str, int]] = field(default_factory=set)
    trades: set[tuple[str, int]] = field(default_factory=set)
    outbox: deque[StoredFact] = field(default_factory=deque)
    facts: int = 0


class MemoryStore:
    """Outlives the journals that are opened on it, as a database outlives processes."""

    def __init__(self) -> None:
        self.accounts: dict[str, _Account] = {}

    def account(self, name: str) -> _Account:
        """Return what is stored of one account; nothing of a new one."""
        return self.accounts.setdefault(name, _Account(Book(name)))


class MemoryJournal:
    """``OrderJournal`` over a ``MemoryStore``."""

    def __init__(self, store: MemoryStore | None = None, *, holder: str = NOBODY) -> None:
        """Prepare.

        Args:
            store: What outlives the process.
            holder: Who must hold the account's lease when it is loaded; ``NOBODY`` asks for none.
        """
        self._store = store or MemoryStore()
        self._holder = holder
        self._name = ""
        self._epoch = 0

    async def load(self, account: str) -> Book:
        stored = self._store.account(account)
        if self._holder not in (NOBODY, stored.lease_holder):
            raise FencedError(taken_over(account))
        stored.epoch += 1
        self._name, self._epoch = account, stored.epoch
        return stored.book

    async def commit(self, step: Step) -> Commit:
        stored = self._store.accounts[self._name]
        if stored.epoch != self._epoch or stored.book.step != step.number - 1:
            return Commit.FENCED
        trades = {(fill.symbol, fill.trade_id) for fill in step.fills}
        if step.cause_event_id in stored.inbox or trades & stored.trades:
            return Commit.DUPLICATE
        intents = {(o.cause_event_id, o.leg.value, o.sequence) for o in step.orders if o.created_step == step.number}
        if intents & stored.intents:
            raise InvalidInputError(f"intent {min(intents & stored.intents)} exists already in {self._name}")
        if step.cause_event_id is not None:
            stored.inbox.add(step.cause_event_id)
        stored.trades |= trades
        stored.intents |= intents
        for fact in step.facts:
            stored.facts += 1
            stored.outbox.append(StoredFact(stored.facts, fact))
        stored.book = step.book
        return Commit.STORED

    async def unpublished(self, limit: int) -> tuple[StoredFact, ...]:
        outbox = self._store.accounts[self._name].outbox
        return tuple(outbox[index] for index in range(min(limit, len(outbox))))

    async def mark_published(self, positions: Collection[int]) -> None:
        stored = self._store.accounts[self._name]
        stored.outbox = deque(waiting for waiting in stored.outbox if waiting.position not in positions)
