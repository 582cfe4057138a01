"""The single writer of an account: one input at a time is decided, stored as a whole, and only then acted upon."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Protocol, TypeAlias

import structlog

from services.exec_risk_service.domain.book import Book
from services.exec_risk_service.domain.decide import decide
from services.exec_risk_service.domain.inputs import Input
from services.exec_risk_service.domain.reports import OrderReport
from services.exec_risk_service.domain.rules import Context, Rules
from services.exec_risk_service.domain.step import Request, Step
from services.exec_risk_service.handlers.trade_log import tell
from services.exec_risk_service.ports import Commit, OrderJournal, taken_over
from shared.clock import Clock
from shared.errors import ConnectionLostError, FencedError, InvalidInputError
from shared.policy.store import PolicyStore
from shared.trading.instruments import Instrument

log = structlog.get_logger(__name__)


#: Looks at a stored step and the book before it.
Observer: TypeAlias = Callable[[Step, Book], None]


class Lanes(Protocol):
    """Carries out requests after their step was stored."""

    async def dispatch(self, requests: tuple[Request, ...]) -> None:
        """Start the requests; whether they are finished on return is the implementation's choice."""
        ...


class Ledger:
    """Holds the book and applies inputs to it.

    Attributes:
        account: Name of the account and its run.
        instruments: Filters by venue symbol; set by recovery.
        is_fenced: Another process took the account over: this one must not act any more.
        needs_recovery: The last step may or may not be stored: recovery must run before the next one.
    """

    def __init__(
        self,
        *,
        account: str,
        journal: OrderJournal,
        policy: PolicyStore,
        rules: Rules,
        clock: Clock,
        lanes: Lanes,
        on_stored: Callable[[], Awaitable[None]],
        storage_alarm: Callable[[], str | None] = lambda: None,
        entry_bar: Callable[[], str | None] = lambda: None,
        observers: Sequence[Observer] = (),
    ) -> None:
        """Prepare with an empty book; ``load`` reads the true one.

        Args:
            account: Name of the account and its run: ``paper:live``.
            journal: Durable record.
            policy: Policy in force.
            rules: Limits of the installation.
            clock: Wall clock.
            lanes: Carries out requests.
            on_stored: Called after each stored step: its events wait in the outbox.
            storage_alarm: Tells why events could get lost, None while all is well; entries wait for that.
            entry_bar: Tells why this process may send no entry now, None while it may.
            observers: Get each stored step, and the book before it.
        """
        self.account = account
        self.instruments: Mapping[str, Instrument] = MappingProxyType({})
        self.is_fenced = False
        self.needs_recovery = True
        self._journal = journal
        self._policy = policy
        self._rules = rules
        self._clock = clock
        self._lanes = lanes
        self._on_stored = on_stored
        self._storage_alarm = storage_alarm
        self._entry_bar = entry_bar
        self._observers = (tell, *observers)
        self._book = Book(account)
        self._lock = asyncio.Lock()

    @property
    def book(self) -> Book:
        """The account after the last stored step."""
        return self._book

    def observe(self, observer: Observer) -> None:
        """Give each step that is stored from now on to ``observer`` too."""
        self._observers = (*self._observers, observer)

    def context(self) -> Context:
        """Return what a decision may read besides the book."""
        return Context(
            self._rules,
            self._policy.current(),
            self.instruments,
            self._clock.now(),
            storage_alarm=self._storage_alarm(),
            entry_bar=self._entry_bar(),
        )

    async def load(self, instruments: Mapping[str, Instrument]) -> None:
        """Take the account over and read its book; inputs may be applied afterwards."""
        async with self._lock:
            try:
                self._book = await self._journal.load(self.account)
            except FencedError:
                self.is_fenced = True
                raise
            self.instruments = instruments
            self.needs_recovery = False

    async def apply(self, item: Input) -> Step | None:
        """Decide, store, act. Returns the stored step, or None when the input changed nothing.

        Raises:
            ConnectionLostError: The input was not applied, or no one knows: it may be given again after recovery.
        """
        async with self._lock:
            step = await self._decide_and_store(item)
        if step is not None:
            await self._on_stored()
            await self._lanes.dispatch(step.requests)
        return step

    async def _decide_and_store(self, item: Input) -> Step | None:
        self._require_open()
        step = decide(self._book, item, self.context())
        if step is None:
            return None
        match await self._commit(step):
            case Commit.STORED:
                before, self._book = self._book, step.book
                for observe in self._observers:
                    observe(step, before)
                return step
            case Commit.DUPLICATE:
                return await self._without_known_fill(item)
            case Commit.FENCED:
                self.is_fenced = True
                log.critical("account_taken_over", account=self.account, step=step.number)
                self._require_open()
        return None

    async def _without_known_fill(self, item: Input) -> Step | None:
        """A fill that the journal knows but the memory forgot is left out; the rest of the report still counts."""
        if isinstance(item, OrderReport) and item.fill is not None:
            return await self._decide_and_store(replace(item, fill=None))
        log.info("input_was_handled_before", kind=type(item).__name__)
        return None

    async def _commit(self, step: Step) -> Commit:
        try:
            return await self._journal.commit(step)
        except InvalidInputError:
            raise  # rolled back for certain
        except BaseException:  # also a cancelled task: the transaction may have gone through
            self.needs_recovery = True
            raise

    def _require_open(self) -> None:
        if self.is_fenced:
            raise ConnectionLostError(taken_over(self.account))
        if self.needs_recovery:
            raise ConnectionLostError(f"account {self.account} is being recovered; try again")
