"""Whatever is done to a disk buffer in whatever order, it holds what a plain list would hold."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from shared.clock import ManualClock
from shared.disk_buffer import BufferedEntry, DiskBuffer
from shared.disk_buffer.changes import Bounds
from shared.disk_buffer.entries import packed
from shared.disk_buffer.storage import BufferFile
from shared.errors import BufferFullError
from tests.support.event_payloads import START

T = TypeVar("T")

LIMIT = 8_000
KEEP_SECONDS = 60.0
KEEP_EVENTS = 5

#: Priority and size of each entry of one call.
calls = st.lists(st.tuples(st.integers(1, 4), st.integers(0, 3_000)), min_size=1, max_size=4)


class Model:
    """The backlog and the memory as plain lists."""

    def __init__(self) -> None:
        self.backlog: list[BufferedEntry] = []
        self.acknowledged: list[tuple[str, str, float]] = []
        self.cursors: dict[str, str] = {}

    def after_append(self, new: list[BufferedEntry]) -> list[BufferedEntry] | None:
        """Return the backlog after ``new`` was appended, None when it has to be refused."""
        left = list(self.backlog)
        least = max(one.priority for one in new)
        for priority in range(4, max(least, 2) - 1, -1):
            for one in [one for one in left if one.priority == priority]:
                if size_of([*left, *new]) > LIMIT:
                    left.remove(one)
        if size_of([*left, *new]) > LIMIT and least > 1:
            return None
        return [*left, *new]


def size_of(entries: list[BufferedEntry]) -> int:
    return sum(len(packed([(one, "", 0.0)])) for one in entries)


class DiskBufferMachine(RuleBasedStateMachine):
    """One buffer through many lives, beside the model."""

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="disk-buffer-"))
        self.lives = 0
        self.events = 0
        self.clock = ManualClock(START)
        self.model = Model()
        self.runner = asyncio.Runner()
        self.is_full = False
        self.memory_has_holes = False
        self.numbers: dict[int, str] = {}
        self.open()

    def open(self) -> None:
        bounds = Bounds(LIMIT, KEEP_SECONDS, KEEP_EVENTS, 2**20)
        self.file = BufferFile(self.path, bounds, self.clock)
        self.buffer = DiskBuffer(self.path, clock=self.clock, service="ai-service", storage=self.file)
        self.run(self.buffer.start())

    @property
    def path(self) -> Path:
        return self.folder / f"life-{self.lives}" / "events.buffer"

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    def new_entry(self, priority: int, size: int) -> BufferedEntry:
        self.events += 1
        return BufferedEntry(f"stream-{size % 3}", {b"payload": bytes(size)}, f"event-{self.events}", priority)

    # -- what callers do ----------------------------------------------------------------------------------------------

    @rule(call=calls)
    def append(self, call: list[tuple[int, int]]) -> None:
        new = [self.new_entry(*one) for one in call]
        expected = self.model.after_append(new)
        try:
            self.run(self.buffer.append(new))
        except BufferFullError:
            assert expected is None or self.is_full
            assert self.buffer.alarm is not None
        else:
            assert expected is not None
            self.model.backlog = expected

    @rule(calls=st.lists(calls, min_size=2, max_size=5))
    def append_at_once(self, calls: list[list[tuple[int, int]]]) -> None:
        new = [[self.new_entry(*one) for one in call] for call in calls]

        async def at_once() -> list[BaseException | None]:
            return await asyncio.gather(*(self.buffer.append(call) for call in new), return_exceptions=True)

        for call, error in zip(new, self.run(at_once()), strict=True):
            expected = self.model.after_append(call)
            if error is None:
                assert expected is not None
                self.model.backlog = expected
            else:
                assert isinstance(error, BufferFullError)
                assert expected is None or self.is_full

    @rule(limit=st.integers(1, 10))
    def look_at_the_oldest(self, limit: int) -> None:
        found = self.run(self.buffer.oldest(limit))
        assert [replace(one, number=0) for one in found] == self.model.backlog[:limit]
        numbers = [one.number for one in found]
        assert numbers == sorted(set(numbers))

    @rule(limit=st.integers(1, 10), skipped=st.sets(st.integers(0, 9)))
    def settle(self, limit: int, skipped: set[int]) -> None:
        oldest = self.run(self.buffer.oldest(limit))
        entries = [one for place, one in enumerate(oldest) if place not in skipped]
        ids = [f"settled-{one.number}" for one in entries]
        self.run(self.buffer.settle(entries, ids))
        gone = {one.event_id for one in entries}
        self.model.backlog = [one for one in self.model.backlog if one.event_id not in gone]
        self._acknowledge(entries, ids)

    @rule(count=st.integers(1, 4))
    def remember(self, count: int) -> None:
        entries = [self.new_entry(4, 10) for _ in range(count)]
        ids = [f"id-{one.event_id}" for one in entries]
        self.buffer.remember(entries, ids)
        self._acknowledge(entries, ids)

    def _acknowledge(self, entries: list[BufferedEntry], ids: list[str]) -> None:
        at = self.clock.now().timestamp()
        self.model.acknowledged += [(one.event_id, id_, at) for one, id_ in zip(entries, ids, strict=True)]

    @rule(seconds=st.sampled_from([1, 30, 61]))
    def time_passes(self, seconds: int) -> None:
        self.run(self.buffer.remembered())  # what is acknowledged later is another batch
        self.clock.advance(seconds)

    @rule(within=st.sampled_from([None, 10.0, 45.0]))
    def recall(self, within: float | None) -> None:
        now = self.clock.now().timestamp()
        found = [
            (one.entry.event_id, one.entry_id, one.at)
            for one in self.run(self.buffer.remembered(within_seconds=within))
        ]
        everything = [one for one in self.model.acknowledged if within is None or one[2] >= now - within]
        if self.memory_has_holes:
            assert found == [one for one in everything if one in found]
            return
        assert found == everything[len(everything) - len(found) :]
        enough = {one for one in everything if one[2] >= now - KEEP_SECONDS}
        enough |= set(everything[max(0, len(everything) - KEEP_EVENTS) :])
        assert enough <= set(found)

    @rule(stream=st.sampled_from("ab"), entry_id=st.integers(0, 99).map(str))
    def save_a_cursor(self, stream: str, entry_id: str) -> None:
        try:
            self.run(self.buffer.save_cursors({stream: entry_id}))
        except BufferFullError:
            assert self.is_full
        self.model.cursors[stream] = entry_id  # as long as this life lasts

    # -- what happens to it -------------------------------------------------------------------------------------------

    @precondition(lambda self: not self.is_full)
    @rule()
    def start_again(self) -> None:
        self.run(self.buffer.stop())
        self.open()

    @precondition(lambda self: not self.is_full)
    @rule()
    def die_and_start_again(self) -> None:
        """What lies on the disk at this moment is all that the next life has."""
        self.run(self.buffer.remembered())
        dead, folder = self.path, self.path.parent
        self.lives += 1
        self.path.parent.mkdir()
        for ending in ("", "-wal"):
            shutil.copy(f"{dead}{ending}", f"{self.path}{ending}")
        self.run(self.buffer.stop())
        shutil.rmtree(folder)
        self.open()

    @precondition(lambda self: not self.is_full)
    @rule()
    def the_disk_refuses(self) -> None:
        self._let_the_disk_refuse(True)
        self.is_full = self.memory_has_holes = True

    @precondition(lambda self: self.is_full)
    @rule()
    def the_disk_is_well_again(self) -> None:
        self._let_the_disk_refuse(False)
        self.is_full = False

        async def until_well() -> None:
            while "cannot take more" in (self.buffer.alarm or ""):
                self.clock.advance(1)
                await asyncio.sleep(0.001)

        self.run(asyncio.wait_for(until_well(), 20))

    def _let_the_disk_refuse(self, is_refusing: bool) -> None:
        def tell() -> None:
            self.file._file.use(lambda connection: connection.execute(f"PRAGMA query_only = {is_refusing}"))

        self.run(self.buffer._ask(tell))

    # -- what always holds --------------------------------------------------------------------------------------------

    @invariant()
    def it_counts_right(self) -> None:
        if hasattr(self, "buffer"):
            assert self.buffer.events == len(self.model.backlog)
            assert self.buffer.bytes == size_of(self.model.backlog)

    @invariant()
    def it_holds_what_the_model_holds(self) -> None:
        if hasattr(self, "buffer"):
            found = self.run(self.buffer.oldest(1000))
            assert [one.event_id for one in found] == [one.event_id for one in self.model.backlog]
            for one in found:
                assert self.numbers.setdefault(one.number, one.event_id) == one.event_id, "a number was given twice"
            assert self.run(self.buffer.cursors()) == self.model.cursors

    def teardown(self) -> None:
        if hasattr(self, "buffer"):
            self.run(self.buffer.stop())
            self.runner.close()
            shutil.rmtree(self.folder)


TestDiskBufferMachine = DiskBufferMachine.TestCase
TestDiskBufferMachine.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
