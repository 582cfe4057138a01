"""The disk buffer as its callers see it: coroutines around a file that has a thread of its own.

All that callers bring while the disk is busy is gathered and becomes the next transaction (``_commit``). A disk that
stalls holds up its callers for a while, and the event loop never.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import structlog

from shared.cancellation import end_task
from shared.clock import Clock
from shared.disk_buffer.changes import Batch, Bounds, BufferStorage, Changes, Outcome, Row
from shared.disk_buffer.disk_thread import DiskThread
from shared.disk_buffer.entries import BufferedEntry, Remembered, latest_of_each, packed, unpacked
from shared.disk_buffer.figures import Figures
from shared.disk_buffer.sqlite_file import DISK_ERRORS, reason_of
from shared.disk_buffer.storage import BufferFile
from shared.errors import BufferFullError, TransientError
from shared.telemetry.metrics import Metrics

log = structlog.get_logger(__name__)

#: Time for which acknowledged events gather before they are written, in batches of about so many.
_LINGER_SECONDS = 0.1
_BATCH_EVENTS = 1000
#: Acknowledged events that may wait in memory for a slow disk.
_MOST_UNWRITTEN = 50_000
#: Time between two looks at whether the disk answers, is well again, and has something to forget.
_LOOK_SECONDS = 1.0
#: A disk that needs longer for one answer is treated as one that takes no more.
_STALLED_SECONDS = 10.0

T = TypeVar("T")
#: When, which entries, and under which ids.
_Acknowledgement = tuple[datetime, Sequence[BufferedEntry], Sequence[str]]


@dataclass(slots=True)
class _Gathered:
    """What goes into the next transaction, and who waits for it: they are told None, or why it was not written."""

    changes: Changes = field(default_factory=Changes)
    acknowledged: deque[_Acknowledgement] = field(default_factory=deque)
    acknowledged_events: int = 0
    appending: list[asyncio.Future[str | None]] = field(default_factory=list)
    waiting: list[asyncio.Future[str | None]] = field(default_factory=list)
    is_urgent: bool = False


class DiskBuffer:
    """The backlog, the memory and the cursors of one process, in one file.

    What is appended is on the disk when ``append`` returns, and outlives the process; so does what is remembered, but
    for the last moment. A damaged file is put aside, and what can be read of it goes on in a new one.

    Attributes:
        name: Component name.
    """

    name = "disk-buffer"

    def __init__(
        self,
        path: Path,
        *,
        clock: Clock,
        service: str,
        limit_bytes: int = 256 * 1024**2,
        keep_seconds: float = 60.0,
        keep_events: int = 10_000,
        keep_bytes: int = 256 * 1024**2,
        metrics: Metrics | None = None,
        storage: BufferStorage | None = None,
    ) -> None:
        """Prepare, without touching the disk.

        Args:
            path: The file; folders are made. One process at a time can have it.
            clock: Wall clock.
            service: Label of the figures.
            limit_bytes: Size at which entries of the backlog are dropped, those of priority 1 excepted.
            keep_seconds: How long acknowledged events are remembered.
            keep_events: Latest events that are remembered however old they are.
            keep_bytes: Size of what is remembered; comes before the other two.
            metrics: Figures of the process.
            storage: Stands in for the file.
        """
        self._path = path
        self._clock = clock
        self._storage = storage or BufferFile(path, Bounds(limit_bytes, keep_seconds, keep_events, keep_bytes), clock)
        self._disk = DiskThread(clock)
        self._stand = Outcome()
        self._is_open = False
        self._is_stalled = False
        self._reported: str | None = None
        self._gathered = _Gathered()
        self._is_committing = False
        self._waiters: set[asyncio.Future[Any]] = set()
        self._has_acknowledged = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._figures = Figures(service, metrics, events=lambda: self.events, size=lambda: self.bytes)

    async def start(self) -> None:
        """Open the file; what an earlier life left is counted when this returns.

        Raises:
            ConfigurationError: There can be no file, it is another program's, or another process has it.
        """
        self._disk.start(asyncio.get_running_loop())
        self._take(await self._ask(self._storage.open))
        self._is_open = True
        self._tasks = [
            asyncio.create_task(self._look(), name="disk-buffer-look"),
            asyncio.create_task(self._write_acknowledged(), name="disk-buffer-remember"),
        ]
        if self.events:
            log.info("disk_buffer_holds_backlog", events=self.events, bytes=self.bytes)

    async def stop(self) -> None:
        """Write what is in hand and close the file."""
        if not self._disk.is_running:
            return
        try:
            if self._is_open:
                self._is_open = False
                await self._written()
            closed = self._asked(self._storage.close)
            self._disk.end()  # nothing that wakes up meanwhile may open the file again
            await closed
        except TransientError as error:
            log.error("disk_buffer_not_closed", reason=str(error))
            self._disk.end()
        await asyncio.gather(*(end_task(task) for task in self._tasks))

    @property
    def events(self) -> int:
        """Entries in the backlog."""
        return self._stand.events

    @property
    def bytes(self) -> int:
        """Size of the backlog."""
        return self._stand.bytes

    @property
    def alarm(self) -> str | None:
        """Why the file cannot take more at the moment, in one line; None when all is well."""
        return self._said("cannot take more: the disk does not answer") if self._is_stalled else self._stand.trouble

    # -- the backlog --------------------------------------------------------------------------------------------------

    async def append(self, entries: Sequence[BufferedEntry]) -> None:
        """Put ``entries`` behind the backlog; they are on the disk when this returns.

        Raises:
            BufferFullError: They cannot be kept, none of them. After a disk that does not answer, they may be.
        """
        if not entries:
            return
        if not self._is_open or self._is_stalled:
            raise BufferFullError(self.alarm or self._said("is not open"))
        rows = [Row(entry.priority, packed([(entry, "", 0.0)])) for entry in entries]
        told: asyncio.Future[str | None] = self._waiter()
        self._gathered.changes.appends.append(rows)
        self._gathered.appending.append(told)
        self._commit_now()
        try:
            trouble = await told
        except TransientError as error:
            raise BufferFullError(str(error)) from error
        if trouble is not None:
            raise BufferFullError(trouble)

    async def oldest(self, limit: int) -> list[BufferedEntry]:
        """Return the first ``limit`` entries of the backlog.

        Raises:
            TransientError: The disk cannot be read.
        """
        return await self._ask(lambda: [_entry_of(row) for row in self._storage.oldest(limit)])

    async def settle(self, entries: Sequence[BufferedEntry], appended: Sequence[str]) -> None:
        """Move entries from the backlog to what is remembered: they are on their streams, under the ids ``appended``.

        They leave the backlog even when the disk takes nothing: it is told later, unless the process ends before.

        Raises:
            TransientError: The disk cannot be read, or does not answer; in the latter case they leave once it does.
        """
        self._gathered.changes.settled += [entry.number for entry in entries]
        self.remember(entries, appended)
        await self._written()

    # -- what is remembered -------------------------------------------------------------------------------------------

    def remember(self, entries: Sequence[BufferedEntry], appended: Sequence[str]) -> None:
        """Keep acknowledged events for a while; ``appended`` are their entry ids. Neither waits nor fails."""
        if not entries:
            return
        gathered = self._gathered
        gathered.acknowledged.append((self._clock.now(), entries, appended))
        gathered.acknowledged_events += len(entries)
        while gathered.acknowledged_events > _MOST_UNWRITTEN:
            _, forgotten, _ = gathered.acknowledged.popleft()
            gathered.acknowledged_events -= len(forgotten)
        self._has_acknowledged.set()

    async def remembered(self, *, within_seconds: float | None = None) -> list[Remembered]:
        """Return what was acknowledged in the last ``within_seconds`` (None: all that is kept), the oldest first.

        An event that was remembered several times is returned once, as it was the last time. A disk that cannot be read
        leaves the list empty: what is published now matters more.
        """
        since = 0.0 if within_seconds is None else self._clock.now().timestamp() - within_seconds
        try:
            await self._written()
            return await self._ask(lambda: latest_of_each(self._storage.remembered(), since=since))
        except TransientError as error:
            log.error("disk_buffer_forgot", reason=str(error))
            return []

    # -- cursors ------------------------------------------------------------------------------------------------------

    async def save_cursors(self, cursors: Mapping[str, str]) -> None:
        """Keep the position of each stream, beside those of other streams.

        Raises:
            TransientError: They are not on the disk yet.
        """
        self._gathered.changes.cursors.update(cursors)
        if (trouble := await self._written()) is not None:
            raise BufferFullError(trouble)

    async def cursors(self) -> dict[str, str]:
        """Return the position of each stream.

        Raises:
            TransientError: The disk does not answer.
        """
        return await self._ask(self._storage.cursors)

    # -- one transaction after the other ------------------------------------------------------------------------------

    async def _written(self) -> str | None:
        """Wait until all that has gathered is written; return why it was not."""
        told: asyncio.Future[str | None] = self._waiter()
        self._gathered.waiting.append(told)
        self._commit_now()
        try:
            self._require_answers()
        except TransientError:
            told.cancel()
            raise
        return await told

    async def _write_acknowledged(self) -> None:
        while True:
            await self._has_acknowledged.wait()
            await self._clock.sleep(_LINGER_SECONDS)
            self._has_acknowledged.clear()
            self._commit_now()

    def _commit_now(self) -> None:
        self._gathered.is_urgent = True
        self._commit()

    def _commit(self) -> None:
        """Hand over what has gathered; while a transaction is on its way, its end does so."""
        if self._is_committing or not self._gathered.is_urgent or not self._disk.is_running:
            return
        gathered, self._gathered = self._gathered, _Gathered()
        self._is_committing = True
        self._disk.submit(partial(_carry_out, self._storage, gathered), partial(self._committed, gathered))

    def _committed(self, gathered: _Gathered, outcome: Outcome, error: Exception | None) -> None:
        self._is_committing = False
        self._commit()
        if error is not None:
            for told in (*gathered.appending, *gathered.waiting):
                _fail(told, self._ours(error))
            return
        for told, is_kept in zip(gathered.appending, outcome.is_kept, strict=True):
            _answer(told, None if is_kept else outcome.trouble)
        for told in gathered.waiting:
            _answer(told, None if outcome.is_written else outcome.trouble)
        self._take(outcome)

    def _take(self, outcome: Outcome) -> None:
        self._stand = outcome
        self._is_stalled = False
        self._figures.count(outcome)
        self._report()

    # -- whether the disk is well -------------------------------------------------------------------------------------

    async def _look(self) -> None:
        while True:
            await self._clock.sleep(_LOOK_SECONDS)
            since = self._disk.busy_since
            if since is None:
                self._disk.submit(self._storage.tidy, self._tidied)
            elif self._clock.monotonic() - since > _STALLED_SECONDS:
                self._give_up_waiting()

    def _tidied(self, outcome: Outcome, error: Exception | None) -> None:
        if error is None:
            self._take(outcome)
        else:
            log.error("disk_buffer_not_tidied", reason=str(self._ours(error)))

    def _give_up_waiting(self) -> None:
        self._is_stalled = True
        self._report()
        self._gathered.changes.appends.clear()  # what the disk was not given yet it shall not keep
        self._gathered.appending.clear()
        for told in tuple(self._waiters):
            _fail(told, TransientError(self.alarm))

    def _report(self) -> None:
        """Write one line for each cause, and one at the end."""
        if self.alarm != self._reported:
            self._reported = self.alarm
            if self._reported is None:
                log.info("disk_buffer_well_again")
            else:
                log.error("disk_buffer_alarm", alarm=self._reported)

    # -- asking the disk ----------------------------------------------------------------------------------------------

    async def _ask(self, work: Callable[[], T]) -> T:
        return await self._asked(work)

    def _asked(self, work: Callable[[], T]) -> asyncio.Future[T]:
        self._require_answers()
        answer: asyncio.Future[T] = self._waiter()

        def done(result: T, error: Exception | None) -> None:
            if error is None:
                _answer(answer, result)
            else:
                _fail(answer, self._ours(error))

        self._disk.submit(work, done)
        return answer

    def _require_answers(self) -> None:
        if self._is_stalled or not self._disk.is_running:
            raise TransientError(self.alarm or self._said("is not open"))

    def _waiter(self) -> asyncio.Future[Any]:
        waiter: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        waiter.add_done_callback(self._waiters.discard)
        return waiter

    def _ours(self, error: Exception) -> Exception:
        """Translate what the disk did; anything else is a mistake in the code and passes."""
        if isinstance(error, DISK_ERRORS):
            return TransientError(self._said(f"cannot be read: {reason_of(error)}"))
        return error

    def _said(self, what: str) -> str:
        return f"disk buffer {str(self._path)!r} {what}"


def _carry_out(storage: BufferStorage, gathered: _Gathered) -> Outcome:
    gathered.changes.batches += _batches(gathered.acknowledged)
    return storage.commit(gathered.changes)


def _batches(acknowledged: Iterable[_Acknowledgement]) -> Iterator[Batch]:
    together: list[tuple[BufferedEntry, str, float]] = []
    for moment, entries, appended in acknowledged:
        at = moment.timestamp()
        together += ((entry, entry_id, at) for entry, entry_id in zip(entries, appended, strict=True))
        if len(together) >= _BATCH_EVENTS:
            yield Batch(at, len(together), packed(together))
            together = []
    if together:
        yield Batch(together[-1][2], len(together), packed(together))


def _entry_of(row: Row) -> BufferedEntry:
    (remembered,) = unpacked(row.body)
    return replace(remembered.entry, number=row.number)


def _answer(future: asyncio.Future[T], result: T) -> None:
    if not future.done():  # whoever waited may have been cancelled
        future.set_result(result)


def _fail(future: asyncio.Future[Any], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
