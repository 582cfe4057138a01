"""The books of a chaos test: what a publisher was told is published, and what consumers did about it, both on disk."""

from __future__ import annotations

import os
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.chaos_events import Lane

_SCHEMA = """
CREATE TABLE IF NOT EXISTS inbox (event_id TEXT PRIMARY KEY) WITHOUT ROWID;
-- Without a unique key on purpose: a second effect must be able to happen, or nobody could see it.
CREATE TABLE IF NOT EXISTS effects (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    event_id TEXT, event_type TEXT, key TEXT, number INTEGER, process INTEGER
);
CREATE TABLE IF NOT EXISTS repeats (event_id TEXT);
CREATE TABLE IF NOT EXISTS refused (event_id TEXT);
CREATE TABLE IF NOT EXISTS lives (process INTEGER);
"""


class Ledger:
    """Append-only file with one line per event whose publisher was told that it is published."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read_to = 0
        self._count = 0

    def append(self, told: Sequence[tuple[Lane, int]]) -> None:
        """Write the events down; return when they are on the disk."""
        with self._path.open("a", encoding="utf-8") as file:
            file.writelines(f"{lane.event_type} {lane.key} {number}\n" for lane, number in told)
            file.flush()
            os.fsync(file.fileno())

    def count(self) -> int:
        """Return how many events stand in it; reads only what is new since the last call."""
        if self._path.exists():
            with self._path.open("rb") as file:
                file.seek(self._read_to)
                added = file.read()
            self._read_to += len(added)
            self._count += added.count(b"\n")
        return self._count

    def events(self) -> Iterator[tuple[Lane, int]]:
        """Iterate over what stands in it; a line that a kill tore apart was never told."""
        if self._path.exists():
            for line in self._path.read_text(encoding="utf-8").splitlines(keepends=True):
                if line.endswith("\n"):
                    event_type, key, number = line.split()
                    yield Lane(event_type, key), int(number)


class Effects:
    """What the replicas of one service did, in SQLite: inbox mark and effect are one transaction."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, timeout=60.0, isolation_level=None)
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = NORMAL")
        self._connection.executescript(_SCHEMA)

    def close(self) -> None:
        self._connection.close()

    # -- what a consumer writes ---------------------------------------------------------------------------------------

    def begin_life(self) -> None:
        """Note that this process consumes."""
        self._connection.execute("INSERT INTO lives VALUES (?)", (os.getpid(),))

    def record(self, event_id: str, lane: Lane, number: int) -> None:
        """Have the effect of an event, unless it was had before."""
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            if self._connection.execute("INSERT OR IGNORE INTO inbox VALUES (?)", (event_id,)).rowcount:
                self._connection.execute(
                    "INSERT INTO effects (event_id, event_type, key, number, process) VALUES (?, ?, ?, ?, ?)",
                    (event_id, lane.event_type, lane.key, number, os.getpid()),
                )
            else:
                self._connection.execute("INSERT INTO repeats VALUES (?)", (event_id,))
            self._connection.execute("COMMIT")
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise

    def refuse(self, event_id: str) -> None:
        """Note that a command came late and nothing was done."""
        self._connection.execute("INSERT INTO refused VALUES (?)", (event_id,))

    # -- what a test reads --------------------------------------------------------------------------------------------

    def count(self, table: str = "effects") -> int:
        """Return the number of rows of ``table``."""
        return int(self._connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])

    def is_consuming(self, process: int) -> bool:
        """Tell whether the process has begun to consume."""
        return self._connection.execute("SELECT 1 FROM lives WHERE process = ?", (process,)).fetchone() is not None

    def had_by(self, process: int) -> int:
        """Return how many effects the process had."""
        row = self._connection.execute("SELECT count(*) FROM effects WHERE process = ?", (process,)).fetchone()
        return int(row[0])

    def refused(self) -> set[str]:
        """Return the ids of the commands that came late."""
        return {row[0] for row in self._connection.execute("SELECT event_id FROM refused")}

    def events(self) -> Iterator[tuple[Lane, int]]:
        """Iterate over the effects in the order in which they were had."""
        rows = self._connection.execute("SELECT event_type, key, number FROM effects ORDER BY position")
        return ((Lane(event_type, key), number) for event_type, key, number in rows)


@dataclass(frozen=True, slots=True)
class Findings:
    """What a comparison of the books shows; three empty tuples when all is well.

    Attributes:
        missing: Published, no effect.
        doubled: More than one effect.
        overtaken: Had their first effect after a later one of their lane.
    """

    missing: tuple[tuple[Lane, int], ...]
    doubled: tuple[tuple[Lane, int], ...]
    overtaken: tuple[tuple[Lane, int], ...]


ALL_IS_WELL = Findings((), (), ())


def compare(published: Iterable[tuple[Lane, int]], had: Iterable[tuple[Lane, int]]) -> Findings:
    """Compare what was published with the effects in their order."""
    effects = list(had)
    times = Counter(effects)
    newest: dict[Lane, int] = {}
    overtaken = []
    for lane, number in dict.fromkeys(effects):
        if number < newest.get(lane, 0):
            overtaken.append((lane, number))
        newest[lane] = max(number, newest.get(lane, 0))
    return Findings(
        missing=tuple(event for event in published if event not in times),
        doubled=tuple(event for event, count in times.items() if count > 1),
        overtaken=tuple(overtaken),
    )
