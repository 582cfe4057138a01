"""What lies in the file of a disk buffer: a backlog bounded by size, batches to remember, cursors.

What the bodies say is known elsewhere. Everything here waits for the disk.
"""

from __future__ import annotations

import sqlite3
from collections import Counter, deque
from collections.abc import Callable, Collection, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import orjson
import structlog

from shared.clock import Clock
from shared.disk_buffer.changes import Batch, Bounds, Changes, Outcome, Row
from shared.disk_buffer.sqlite_file import (
    DISK_ERRORS,
    Schema,
    SqliteFile,
    checksum_of,
    reason_of,
    require_intact,
    transaction,
)
from shared.errors import ConfigurationError

log = structlog.get_logger(__name__)

_SCHEMA = Schema(
    application_id=0x51744466,
    statements=(
        "CREATE TABLE backlog (number INTEGER PRIMARY KEY, priority INTEGER, checksum INTEGER, body BLOB)",
        "CREATE INDEX droppable ON backlog (priority) WHERE priority > 1",
        "CREATE TABLE remembered (number INTEGER PRIMARY KEY, at REAL, events INTEGER, checksum INTEGER, body BLOB)",
        "CREATE TABLE cursors (stream TEXT PRIMARY KEY, entry_id TEXT)",
        "CREATE TABLE floor (only_row INTEGER PRIMARY KEY, next_number INTEGER)",
        "CREATE TABLE proof (room BLOB)",
    ),
    tables=("backlog", "remembered", "cursors", "floor"),
    sealed=("backlog", "remembered"),
)
#: A disk that refused something is well again when it takes as much, at least this and at most that.
_LEAST_PROOF_BYTES, _MOST_PROOF_BYTES = 64 * 1024, 4 * 1024**2
#: The limit's alarm ends at this share of it: an alarm must not come and go with every entry.
_WELL_BELOW = 0.95
#: Free pages that stay in the file for reuse, and how many more are given back to the disk at a time.
_SPARE_PAGES, _PAGES_AT_ONCE = 1024, 256


@dataclass(slots=True)
class _Backlog:
    """What the backlog holds, by priority, and the number of the next entry."""

    next_number: int = 1
    events: Counter[int] = field(default_factory=Counter)
    bytes: Counter[int] = field(default_factory=Counter)

    def copy(self) -> _Backlog:
        return _Backlog(self.next_number, self.events.copy(), self.bytes.copy())

    def add(self, priority: int, events: int, size: int) -> None:
        self.events[priority] += events
        self.bytes[priority] += size

    def droppable(self, priority: int) -> list[int]:
        """Return what may be dropped for an entry of ``priority``: its like and lesser ones, the least first."""
        return sorted((one for one in self.bytes if one >= max(priority, 2)), reverse=True)


@dataclass(slots=True)
class _Memory:
    """Which batches are remembered: number, time, events and size of each, the oldest first, and the sums."""

    batches: deque[tuple[int, float, int, int]] = field(default_factory=deque)
    events: int = 0
    bytes: int = 0

    def add(self, number: int, at: float, events: int, size: int) -> None:
        self.batches.append((number, at, events, size))
        self.events += events
        self.bytes += size

    def forget_oldest(self) -> None:
        _, _, events, size = self.batches.popleft()
        self.events -= events
        self.bytes -= size


class BufferFile:
    """One file, for one thread."""

    def __init__(self, path: Path, bounds: Bounds, clock: Clock) -> None:
        """Prepare, without touching the disk."""
        self._path = path
        self._bounds = bounds
        self._clock = clock
        self._file = SqliteFile(path, _SCHEMA, clock=clock, on_open=self._load)
        self._backlog = _Backlog()
        self._memory = _Memory()
        self._cursors: dict[str, str] = {}
        self._unsaved: dict[str, str] = {}  # cursors that the disk does not know yet
        self._gone: set[int] = set()  # settled, and the disk does not know it yet
        self._disk_trouble: str | None = None
        self._refused_bytes = 0
        self._is_full = False

    def open(self) -> Outcome:
        """Open the file, make it when there is none, mend it when it is damaged.

        Raises:
            ConfigurationError: There can be no file, it is another program's, or another process has it.
        """
        try:
            self._file.use(lambda connection: None)
        except DISK_ERRORS as error:
            self._note(error)
        return self._stand(Outcome())

    def close(self) -> None:
        """Close the file; from now on another process may have it."""
        self._file.close()

    def commit(self, changes: Changes) -> Outcome:
        """Write ``changes`` as one transaction.

        What is settled has left the backlog from now on, also when the disk can be told only later. When the disk does
        not take all, what is to be remembered is left out.

        Raises:
            sqlite3.Error, OSError: What is settled cannot be looked up.
        """
        self._cursors |= changes.cursors
        self._unsaved |= changes.cursors
        outcome = Outcome(is_kept=[False] * len(changes.appends))
        if changes.settled:
            outcome.settled = self._file.use(lambda connection: self._strike(connection, changes.settled))
        is_written = self._try(lambda connection: self._write(connection, changes, outcome), changes.bytes)
        if not is_written and changes.batches:
            rest = replace(changes, batches=[])
            self._try(lambda connection: self._write(connection, rest, outcome), rest.bytes)
        return self._stand(outcome)

    def tidy(self) -> Outcome:
        """Write what could not be written before, forget what is old, find out whether the disk is well again."""
        outcome = self.commit(Changes())
        if self._disk_trouble and self._gone and not self._backlog.events.total():
            self._try(lambda _: self._start_over())
        if (self._disk_trouble or not self._path.exists()) and self._try(self._prove, self._refused_bytes):
            self._disk_trouble, self._refused_bytes = None, 0
        self._try(_give_back_room)
        return self._stand(outcome)

    def oldest(self, limit: int) -> list[Row]:
        """Return the first entries of the backlog.

        Raises:
            sqlite3.Error, OSError: The disk cannot be read.
        """
        return self._file.use(lambda connection: self._first_rows(connection, limit))

    def remembered(self) -> list[bytes]:
        """Return the bodies of all batches, the oldest first.

        Raises:
            sqlite3.Error, OSError: The disk cannot be read.
        """
        return self._file.use(_bodies)

    def cursors(self) -> dict[str, str]:
        """Return the position of each stream."""
        return dict(self._cursors)

    # -- the backlog --------------------------------------------------------------------------------------------------

    def _strike(self, connection: sqlite3.Connection, numbers: Collection[int]) -> int:
        """Take entries off the books, so that they are gone whatever the disk does next; return how many."""
        rows = [row for row in _sizes(connection, numbers) if row[0] not in self._gone]
        for number, priority, size in rows:
            self._backlog.add(priority, -1, -size)
            self._gone.add(number)
        return len(rows)

    def _write(self, connection: sqlite3.Connection, changes: Changes, outcome: Outcome) -> None:
        outdated = self._outdated(changes.batches)
        if not (changes.appends or changes.batches or self._unsaved or self._gone or outdated):
            return
        backlog, dropped = self._backlog.copy(), Counter[int]()
        with transaction(connection):
            _delete(connection, self._gone)
            kept = [self._append(connection, backlog, rows, dropped) for rows in changes.appends]
            if self._gone or dropped:  # else the highest number is still there to be seen
                connection.execute("INSERT OR REPLACE INTO floor VALUES (1, ?)", (backlog.next_number,))
            numbers = [_insert(connection, batch) for batch in changes.batches]
            if outdated:
                last = self._memory.batches[outdated - 1][0]
                connection.execute("DELETE FROM remembered WHERE number <= ?", (last,))
            connection.executemany("INSERT OR REPLACE INTO cursors VALUES (?, ?)", self._unsaved.items())
        self._gone.clear()
        self._unsaved.clear()
        self._backlog = backlog
        for _ in range(outdated):
            self._memory.forget_oldest()
        for number, batch in zip(numbers, changes.batches, strict=True):
            self._memory.add(number, batch.at, batch.events, len(batch.body))
        outcome.is_written, outcome.is_kept, outcome.dropped = True, kept, dropped

    def _append(
        self, connection: sqlite3.Connection, backlog: _Backlog, rows: Sequence[Row], dropped: Counter[int]
    ) -> bool:
        """Add ``rows`` within the limit; tell whether there was room."""
        excess = backlog.bytes.total() + sum(len(row.body) for row in rows) - self._bounds.limit_bytes
        least = max(row.priority for row in rows)
        if excess > 0 and not _make_room(connection, backlog, excess, least, dropped):
            return False
        first = backlog.next_number
        connection.executemany(
            "INSERT INTO backlog VALUES (?, ?, ?, ?)",
            [(number, row.priority, checksum_of(row.body), row.body) for number, row in enumerate(rows, first)],
        )
        backlog.next_number += len(rows)
        for row in rows:
            backlog.add(row.priority, 1, len(row.body))
        return True

    def _first_rows(self, connection: sqlite3.Connection, limit: int) -> list[Row]:
        rows = connection.execute(
            "SELECT number, priority, checksum, body FROM backlog ORDER BY number LIMIT ?", (limit + len(self._gone),)
        ).fetchall()
        for _, _, checksum, body in rows:
            require_intact(checksum, body)
        left = [Row(priority, body, number) for number, priority, _, body in rows if number not in self._gone]
        return left[:limit]

    # -- how it stands ------------------------------------------------------------------------------------------------

    def _load(self, connection: sqlite3.Connection) -> None:
        """Count what is there."""
        (floor,) = connection.execute("SELECT coalesce(max(next_number), 1) FROM floor").fetchone()
        (highest,) = connection.execute("SELECT coalesce(max(number), 0) FROM backlog").fetchone()
        self._backlog = _Backlog(max(floor, highest + 1, self._backlog.next_number))
        for row in connection.execute("SELECT priority, count(*), sum(length(body)) FROM backlog GROUP BY priority"):
            self._backlog.add(*row)
        for _, priority, size in _sizes(connection, self._gone):
            self._backlog.add(priority, -1, -size)
        self._memory = _Memory()
        for row in connection.execute("SELECT number, at, events, length(body) FROM remembered ORDER BY number"):
            self._memory.add(*row)
        self._cursors = dict(connection.execute("SELECT stream, entry_id FROM cursors")) | self._cursors

    def _outdated(self, new: Sequence[Batch]) -> int:
        """Return how many of the oldest batches nobody needs once the ``new`` ones are there."""
        events = self._memory.events + sum(batch.events for batch in new)
        size = self._memory.bytes + sum(len(batch.body) for batch in new)
        horizon = self._clock.now().timestamp() - self._bounds.keep_seconds
        for count, (_, at, batch_events, batch_size) in enumerate(self._memory.batches):
            is_old = at < horizon and events - batch_events >= self._bounds.keep_events
            if not is_old and size <= self._bounds.keep_bytes:
                return count
            events -= batch_events
            size -= batch_size
        return len(self._memory.batches)

    def _try(self, work: Callable[[sqlite3.Connection], object], size: int = 0) -> bool:
        """Do what the disk may refuse; ``size`` is how much room it needs."""
        try:
            self._file.use(work)
        except (*DISK_ERRORS, ConfigurationError) as error:
            self._note(error, size)
            return False
        return True

    def _note(self, error: Exception, size: int = 0) -> None:
        self._disk_trouble = f"disk buffer {str(self._path)!r} cannot take more: {reason_of(error)}"
        self._refused_bytes = min(max(size, self._refused_bytes, _LEAST_PROOF_BYTES), _MOST_PROOF_BYTES)

    def _prove(self, connection: sqlite3.Connection) -> None:
        """Show that the disk takes as much as it refused."""
        if not self._path.exists():
            raise FileNotFoundError("its file was removed while in use; restart the process")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        with transaction(connection):
            connection.execute("INSERT INTO proof VALUES (zeroblob(?))", (self._refused_bytes,))
        with transaction(connection):
            connection.execute("DELETE FROM proof")

    def _start_over(self) -> None:
        """Begin a new file: when the disk is so full that the last entries cannot be deleted, this makes the room.

        What was remembered is lost, as it is on any full disk.
        """
        self._file.discard()
        self._unsaved |= self._cursors
        self._file.use(lambda connection: self._write(connection, Changes(), Outcome()))
        log.warning("disk_buffer_began_anew", file=str(self._path), reason=self._disk_trouble)

    def _stand(self, outcome: Outcome) -> Outcome:
        limit = self._bounds.limit_bytes
        outcome.events, outcome.bytes = self._backlog.events.total(), self._backlog.bytes.total()
        is_over = outcome.bytes > limit or not all(outcome.is_kept)
        self._is_full = is_over or (self._is_full and outcome.bytes > _WELL_BELOW * limit)
        outcome.trouble = self._disk_trouble
        if outcome.trouble is None and self._is_full:
            outcome.trouble = (
                f"disk buffer {str(self._path)!r} has reached its limit of {limit} bytes with entries that may not be "
                "dropped; it takes the most important ones only until it is drained"
            )
        return outcome


def _make_room(
    connection: sqlite3.Connection, backlog: _Backlog, excess: int, priority: int, dropped: Counter[int]
) -> bool:
    """Drop the least important entries, the oldest of them first; tell whether an entry of ``priority`` may come in."""
    droppable = backlog.droppable(priority)
    if priority > 1 and excess > sum(backlog.bytes[one] for one in droppable):
        return False
    for one in droppable:
        if excess <= 0:
            break
        last, events, size = _victims(connection, one, excess)
        connection.execute("DELETE FROM backlog WHERE priority > 1 AND priority = ? AND number <= ?", (one, last))
        backlog.add(one, -events, -size)
        dropped[one] += events
        excess -= size
    return True


def _victims(connection: sqlite3.Connection, priority: int, excess: int) -> tuple[int, int, int]:
    """Return the last number, the count and the size of the oldest entries that together free ``excess`` bytes."""
    last, events, size = 0, 0, 0
    with closing(
        connection.execute(
            "SELECT number, length(body) FROM backlog WHERE priority > 1 AND priority = ? ORDER BY number", (priority,)
        )
    ) as rows:
        for number, victim_size in rows:
            last = number
            events += 1
            size += victim_size
            if size >= excess:
                break
    return last, events, size


def _sizes(connection: sqlite3.Connection, numbers: Collection[int]) -> list[tuple[int, int, int]]:
    return connection.execute(
        "SELECT number, priority, length(body) FROM backlog WHERE number IN (SELECT value FROM json_each(?))",
        (_given(numbers),),
    ).fetchall()


def _delete(connection: sqlite3.Connection, numbers: Collection[int]) -> None:
    if numbers:
        connection.execute("DELETE FROM backlog WHERE number IN (SELECT value FROM json_each(?))", (_given(numbers),))


def _given(numbers: Collection[int]) -> str:
    """Return any count of numbers as one parameter."""
    return orjson.dumps([*numbers]).decode()


def _insert(connection: sqlite3.Connection, batch: Batch) -> int:
    cursor = connection.execute(
        "INSERT INTO remembered (at, events, checksum, body) VALUES (?, ?, ?, ?)",
        (batch.at, batch.events, checksum_of(batch.body), batch.body),
    )
    assert cursor.lastrowid is not None
    return cursor.lastrowid


def _bodies(connection: sqlite3.Connection) -> list[bytes]:
    rows = connection.execute("SELECT checksum, body FROM remembered ORDER BY number").fetchall()
    for checksum, body in rows:
        require_intact(checksum, body)
    return [body for _, body in rows]


def _give_back_room(connection: sqlite3.Connection) -> None:
    (free,) = connection.execute("PRAGMA freelist_count").fetchone()
    if free > _SPARE_PAGES:
        pages = min(free - _SPARE_PAGES, _PAGES_AT_ONCE)
        connection.executescript(f"PRAGMA incremental_vacuum({pages})")  # execute() would free a single page
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
