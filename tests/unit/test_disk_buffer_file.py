"""The file of a disk buffer does what it can while its disk refuses, and is well again by itself."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.clock import ManualClock
from shared.disk_buffer.changes import Batch, Bounds, Changes, Row
from shared.disk_buffer.storage import BufferFile
from tests.support.event_payloads import START


class Desk:
    """A file and its disk."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "events.buffer"
        self.clock = ManualClock(START)
        self.file = BufferFile(self.path, Bounds(10_000_000, 60.0, 10, 10_000_000), self.clock)
        self.file.open()

    def pragma(self, text: str) -> int:
        found = self.file._file.use(lambda connection: connection.execute(f"PRAGMA {text}").fetchone())
        return int(found[0]) if found else 0

    def append(self, *numbers: int, size: int = 500) -> list[bool]:
        rows = [Row(1, b"%d" % number + bytes(size)) for number in numbers]
        return self.file.commit(Changes(appends=[rows])).is_kept

    def backlog(self) -> list[str]:
        return [row.body.rstrip(b"\0").decode() for row in self.file.oldest(1000)]


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path)
    yield desk
    desk.file.close()


def test_every_transaction_waits_for_the_disk(desk: Desk) -> None:
    assert desk.pragma("synchronous") == 2
    assert desk.file._file.use(lambda connection: connection.execute("PRAGMA journal_mode").fetchone()) == ("wal",)


def test_what_is_to_be_remembered_gives_way_to_what_is_to_be_kept(desk: Desk) -> None:
    desk.pragma(f"max_page_count = {desk.pragma('page_count') + 20}")

    outcome = desk.file.commit(Changes(appends=[[Row(1, b"1")]], batches=[Batch(0.0, 1, bytes(1_000_000))]))

    assert outcome.is_kept == [True]
    assert outcome.trouble is not None
    assert "the disk is full" in outcome.trouble
    assert desk.backlog() == ["1"]
    assert desk.file.remembered() == []
    assert desk.file.tidy().trouble is not None

    desk.pragma("max_page_count = 1000000")
    assert desk.file.tidy().trouble is None


def test_a_disk_that_takes_little_is_not_well_again(desk: Desk) -> None:
    desk.pragma(f"max_page_count = {desk.pragma('page_count') + 10}")
    assert desk.append(1, size=300_000) == [False]

    assert desk.append(2, size=100) == [True]

    assert desk.file.tidy().trouble is not None, "it still does not take what it refused"


def test_what_is_settled_is_gone_though_the_disk_refuses_to_delete_it(desk: Desk) -> None:
    desk.append(1, 2, 3)
    first = desk.file.oldest(1)[0].number
    desk.pragma("query_only = 1")

    outcome = desk.file.commit(Changes(settled=[first]))

    assert (outcome.settled, outcome.events, outcome.is_written) == (1, 2, False)
    assert desk.backlog() == ["2", "3"]
    assert [row.number for row in desk.file.oldest(1)] == [first + 1]
    desk.pragma("query_only = 0")
    desk.file.tidy()
    desk.file.close()
    assert desk.file.open().events == 2


def test_what_is_settled_stays_gone_when_the_file_is_mended_meanwhile(desk: Desk) -> None:
    desk.append(1, 2, 3, 4)
    numbers = [row.number for row in desk.file.oldest(4)]
    desk.file._file.use(lambda it: it.execute("UPDATE backlog SET checksum = 0 WHERE number = ?", (numbers[2],)))
    desk.pragma("query_only = 1")
    desk.file.commit(Changes(settled=numbers[:1]))

    assert desk.backlog() == ["2", "4"]
    assert desk.file.tidy().events == 2


def test_a_new_file_is_begun_when_the_last_entries_cannot_be_deleted(desk: Desk) -> None:
    desk.file.commit(Changes(cursors={"stream": "1-0"}))
    desk.append(1, 2)
    numbers = [row.number for row in desk.file.oldest(2)]
    desk.pragma("query_only = 1")
    assert desk.file.commit(Changes(settled=numbers)).trouble is not None

    assert desk.file.tidy().trouble is None

    desk.append(3)
    assert desk.file.oldest(1)[0].number > numbers[-1]
    assert desk.file.cursors() == {"stream": "1-0"}
    desk.file.close()
    assert desk.file.open().events == 1
    assert desk.file.cursors() == {"stream": "1-0"}


def test_a_file_with_entries_is_never_begun_anew(desk: Desk) -> None:
    desk.append(1, 2)
    desk.pragma("query_only = 1")
    desk.file.commit(Changes(settled=[desk.file.oldest(1)[0].number]))

    assert desk.file.tidy().trouble is not None
    assert desk.backlog() == ["2"]


def test_an_idle_file_is_left_alone(desk: Desk) -> None:
    desk.append(1, 2)
    desk.file.commit(Changes(settled=[desk.file.oldest(1)[0].number], batches=[Batch(START.timestamp(), 1, b"")]))
    log = Path(f"{desk.path}-wal")
    before = log.stat().st_mtime_ns

    for _ in range(3):
        desk.clock.advance(100)
        desk.file.tidy()

    assert log.stat().st_mtime_ns == before


def test_a_file_that_cannot_be_opened_for_now_is_opened_later(tmp_path: Path) -> None:
    path = tmp_path / "events.buffer"
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    file = BufferFile(path, Bounds(1000, 60.0, 10, 1000), ManualClock(START))

    outcome = file.open()
    assert outcome.trouble is not None
    assert "locked" in outcome.trouble
    assert file.commit(Changes(appends=[[Row(1, b"1")]])).is_kept == [False]

    other.close()
    assert file.tidy().trouble is None
    assert file.commit(Changes(appends=[[Row(1, b"1")]])).is_kept == [True]
    file.close()
