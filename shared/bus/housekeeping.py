"""Keeps streams short, remembers how far this service is, and raises the alarm when somebody does not keep up."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import structlog

from shared.bus.sequence_watch import Gap, SequenceWatch
from shared.bus.transport import EventBuffer, StreamKeeper
from shared.bus.trimming import Overfull, StreamState, TrimRule, overfull, trim_of
from shared.cancellation import end_task
from shared.clock import Clock
from shared.errors import TransientError

log = structlog.get_logger(__name__)

#: Says in one line that something needs a person: ``(what it is about, message)``.
Alarm = Callable[[str, str], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class HousekeepingRule:
    """When and how streams are kept short.

    Attributes:
        trim: Lengths.
        interval_seconds: Time between two rounds.
        after_events: Published events after which a round comes early.
    """

    trim: TrimRule = field(default_factory=TrimRule)
    interval_seconds: float = 10.0
    after_events: int = 5_000


class Housekeeper:
    """Rounds over all streams of an installation; every instance of every service makes them, which does no harm."""

    def __init__(
        self,
        keeper: StreamKeeper,
        *,
        streams: Sequence[str],
        service: str,
        clock: Clock,
        rule: HousekeepingRule,
        alarm: Alarm,
        buffer: EventBuffer | None,
        watch: SequenceWatch | None,
        on_gap: Callable[[Gap], None],
        on_length: Callable[[str, int], None],
    ) -> None:
        """Prepare, without looking.

        Args:
            keeper: Looks at streams and trims them.
            streams: All of them.
            service: Whose position is made durable.
            clock: Wall clock.
            rule: When and how.
            alarm: Told once when a stream goes over its cap, and once when events were lost.
            buffer: Where positions are kept; None keeps none.
            watch: Knows which events never came.
            on_gap: Told of each gap.
            on_length: Told how many entries each stream holds.
        """
        self._keeper = keeper
        self._streams = streams
        self._service = service
        self._clock = clock
        self._rule = rule
        self._alarm = alarm
        self._buffer = buffer
        self._watch = watch
        self._on_gap = on_gap
        self._on_length = on_length
        self._overfull: set[str] = set()
        self._published = 0
        self._early = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin the rounds."""
        self._task = asyncio.create_task(self._rounds(), name="bus-housekeeping")

    async def stop(self) -> None:
        """End them."""
        if self._task is not None:
            await end_task(self._task)

    def published(self, count: int) -> None:
        """Take note of events that were published: the more there are, the sooner the next round comes."""
        self._published += count
        if self._published >= self._rule.after_events:
            self._early.set()

    async def tidy(self) -> None:
        """Make one round.

        Raises:
            ConnectionLostError: The store cannot be reached.
        """
        self._published = 0
        self._early.clear()
        states = await self._keeper.states(self._streams)
        for state in states:
            self._on_length(state.stream, state.length)
            await self._shorten(state)
            await self._watch_length(state)
        if self._buffer is not None:
            floors = {state.stream: state.floors[self._service] for state in states if self._service in state.floors}
            await self._buffer.save_cursors(floors)
        await self._report_gaps()

    async def _rounds(self) -> None:
        while True:
            waiting = [
                asyncio.create_task(self._early.wait()),
                asyncio.create_task(self._clock.sleep(self._rule.interval_seconds)),
            ]
            try:
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            finally:
                await asyncio.gather(*(end_task(task) for task in waiting))
            try:
                await self.tidy()
            except TransientError as error:
                log.warning("housekeeping_failed", reason=str(error))
            except Exception:
                log.exception("housekeeping_failed")

    async def _shorten(self, state: StreamState) -> None:
        trim = trim_of(state, self._rule.trim)
        if trim is not None:
            await self._keeper.trim(trim.stream, below=trim.below, at_most=trim.at_most)

    async def _watch_length(self, state: StreamState) -> None:
        """One cause, one alarm: it is raised again only after the stream was short in between."""
        found = overfull(state, self._rule.trim)
        if found is None:
            self._overfull.discard(state.stream)
        elif state.stream not in self._overfull:
            self._overfull.add(state.stream)
            await self._alarm(state.stream, _told(found, self._rule.trim))

    async def _report_gaps(self) -> None:
        if self._watch is None:
            return
        for gap in self._watch.gaps(now=self._clock.monotonic()):
            self._on_gap(gap)
            message = (
                f"{gap.count} events of {gap.producer} never arrived, sequences {gap.first} to {gap.last}; "
                "its log and its disk buffer tell more"
            )
            await self._alarm("events", message)


def _told(found: Overfull, rule: TrimRule) -> str:
    who = f"{found.group} does not keep up" if found.group else "nobody reads it"
    return (
        f"{found.stream} holds {found.length} entries, more than {rule.hard_cap}: {who}; start it, or Redis runs out "
        "of memory, because nothing unread is dropped"
    )
