"""Whatever happened to its file, the disk buffer starts, keeps what can still be read, and says what it found."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from shared.clock import ManualClock
from shared.disk_buffer import BufferedEntry, DiskBuffer
from shared.disk_buffer.changes import Bounds, Changes, Row
from shared.disk_buffer.storage import BufferFile
from shared.errors import ConfigurationError
from tests.support.event_payloads import START
from tests.support.eventually import eventually

PAGE = 16 * 1024


def entry(number: int, size: int = 1000) -> BufferedEntry:
    return BufferedEntry("quantum:stream:test", {b"payload": b"%d" % number + bytes(size)}, str(number), 1 + number % 4)


class Place:
    """Where a buffer has its file."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "events.buffer"
        self.clock = ManualClock(START)

    def buffer(self) -> DiskBuffer:
        return DiskBuffer(self.path, clock=self.clock, service="ai-service")

    async def filled(self, count: int = 100) -> None:
        """Leave a file with a backlog, and with some events remembered."""
        buffer = self.buffer()
        await buffer.start()
        await buffer.append([entry(number) for number in range(count)])
        buffer.remember([entry(1000), entry(1001)], ["1-0", "1-1"])
        await buffer.save_cursors({"stream": "5-0"})
        await buffer.stop()

    async def found(self) -> tuple[list[str], list[str], dict[str, str], list[Any]]:
        """Open it; return what is in the backlog, what is remembered, the cursors, and what was logged at the start."""
        buffer = self.buffer()
        with capture_logs() as lines:
            await buffer.start()
        backlog = [one.event_id for one in await buffer.oldest(1000)]
        assert buffer.events == len(backlog)
        remembered = [one.entry.event_id for one in await buffer.remembered()]
        cursors = await buffer.cursors()
        await buffer.append([entry(5000)])
        assert [one.event_id for one in await buffer.oldest(1000)] == [*backlog, "5000"]
        await buffer.stop()
        return backlog, remembered, cursors, [line for line in lines if line["log_level"] in ("error", "warning")]

    async def time_passes_until(self, condition: Callable[[], object]) -> None:
        def is_reached() -> bool:
            self.clock.advance(1)
            return bool(condition())

        await eventually(is_reached)

    def beside(self, pattern: str) -> list[Path]:
        return sorted(self.path.parent.glob(f"{self.path.name}-{pattern}"))


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def overwrite(path: Path, at: int, what: bytes) -> None:
    content = bytearray(path.read_bytes())
    content[at : at + len(what)] = what
    path.write_bytes(content)


ALL = [str(number) for number in range(100)]


async def test_a_sound_file_is_left_alone(place: Place) -> None:
    await place.filled()

    assert await place.found() == (ALL, ["1000", "1001"], {"stream": "5-0"}, [])
    assert place.beside("damaged*") == []


@pytest.mark.parametrize("content", [b"no database" * 1000, b"SQLite format 3\x00" + bytes(5000)])
async def test_a_file_that_is_no_database_is_put_aside(place: Place, content: bytes) -> None:
    place.path.write_bytes(content)

    backlog, remembered, cursors, lines = await place.found()

    assert (backlog, remembered, cursors) == ([], [], {})
    (aside,) = place.beside("damaged*")
    assert aside.read_bytes() == content
    assert [(line["event"], line["set_aside"]) for line in lines] == [("file_damaged", str(aside))]


async def test_all_but_a_damaged_page_is_carried_over(place: Place) -> None:
    await place.filled()
    page = place.path.read_bytes().index(b"payload50") // PAGE
    overwrite(place.path, page * PAGE, b"\x5a" * PAGE)

    backlog, remembered, cursors, lines = await place.found()

    assert 80 <= len(backlog) < 100
    assert "50" not in backlog
    assert backlog == [name for name in ALL if name in backlog], "in their order"
    assert remembered == ["1000", "1001"]
    assert cursors == {"stream": "5-0"}
    assert lines[0]["event"] == "file_damaged"
    assert lines[0]["carried_over"]["backlog"] == len(backlog)
    assert len(place.beside("damaged*")) == 1


@pytest.mark.parametrize("page", range(2, 14))
async def test_no_damaged_page_keeps_the_buffer_from_starting(place: Place, page: int) -> None:
    await place.filled()
    overwrite(place.path, page * PAGE + 100, b"\xff" * 12_000)

    backlog, _, _, _ = await place.found()

    assert backlog == [name for name in ALL if name in backlog]


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.95])
async def test_a_file_that_was_cut_off(place: Place, keep: float) -> None:
    await place.filled()
    content = place.path.read_bytes()
    place.path.write_bytes(content[: int(len(content) * keep)])

    backlog, _, _, _ = await place.found()

    assert backlog == [name for name in ALL if name in backlog]
    assert bool(place.beside("damaged*")) == (keep > 0)


async def test_one_changed_byte_is_found_when_it_is_read(place: Place) -> None:
    await place.filled(10)
    where = place.path.read_bytes().index(b"payload5") + 500
    overwrite(place.path, where, b"!")
    buffer = place.buffer()
    await buffer.start()
    assert buffer.events == 10

    with capture_logs() as lines:
        left = [one.event_id for one in await buffer.oldest(100)]

    assert left == [str(number) for number in range(10) if number != 5]
    assert [line["event"] for line in lines] == ["file_damaged"]
    await buffer.append([entry(10)])
    assert buffer.events == 10
    await buffer.stop()


async def test_one_changed_byte_among_what_is_remembered(place: Place) -> None:
    await place.filled(3)
    overwrite(place.path, place.path.read_bytes().index(b"payload1001") + 500, b"!")
    buffer = place.buffer()
    await buffer.start()

    assert await buffer.remembered() == []
    assert [one.event_id for one in await buffer.oldest(100)] == ["0", "1", "2"]
    await buffer.stop()


async def test_what_is_settled_stays_settled_when_the_file_is_mended(place: Place) -> None:
    await place.filled(10)
    overwrite(place.path, place.path.read_bytes().index(b"payload7") + 500, b"!")
    buffer = place.buffer()
    await buffer.start()
    first = await buffer.oldest(4)
    await buffer.settle(first, ["1-0"] * 4)

    assert [one.event_id for one in await buffer.oldest(100)] == ["4", "5", "6", "8", "9"]
    assert buffer.events == 6, "until the next transaction tells"
    await buffer.append([entry(10)])
    assert buffer.events == 6
    await buffer.stop()


async def test_numbers_go_on_in_a_mended_file(place: Place) -> None:
    await place.filled(10)
    buffer = place.buffer()
    await buffer.start()
    oldest = await buffer.oldest(10)
    await buffer.settle(oldest, ["1-0"] * 10)
    await buffer.stop()
    with sqlite3.connect(place.path) as connection:
        connection.execute("UPDATE remembered SET checksum = 0")
    connection.close()

    buffer = place.buffer()
    await buffer.start()
    await buffer.remembered()
    await buffer.append([entry(11)])

    (after,) = await buffer.oldest(10)
    assert after.number > oldest[-1].number
    assert len(place.beside("damaged*")) == 1
    await buffer.stop()


async def test_an_end_in_the_middle_of_mending_leaves_the_damaged_file(place: Place) -> None:
    await place.filled()
    mended = place.path.with_name(f"{place.path.name}-mended")
    mended.write_bytes(b"half of it")
    page = place.path.read_bytes().index(b"payload50") // PAGE
    overwrite(place.path, page * PAGE, b"\x5a" * PAGE)

    backlog, _, cursors, _ = await place.found()

    assert len(backlog) >= 80
    assert cursors == {"stream": "5-0"}
    assert not mended.exists()


async def test_an_end_right_after_mending_leaves_the_mended_file(place: Place, tmp_path: Path) -> None:
    await place.filled()
    other = tmp_path / "other"
    other.mkdir()
    crashed_one = await crashed(Place(other), tmp_path)
    shutil.move(place.path, f"{place.path}-mended")
    shutil.move(f"{crashed_one.path}-wal", f"{place.path}-wal")  # that of the damaged file

    assert await place.found() == (ALL, ["1000", "1001"], {"stream": "5-0"}, [])


# -- the write-ahead log ----------------------------------------------------------------------------------------------


async def crashed(place: Place, tmp_path: Path, change: Callable[[Path], None] = lambda log: None) -> Place:
    """Return a place that looks as if the machine had stopped after ten appends, and then something happened."""
    after = Place(tmp_path / "after")
    after.path.parent.mkdir()
    buffer = place.buffer()
    await buffer.start()
    for number in range(10):
        await buffer.append([entry(number)])
    for ending in ("", "-wal"):
        shutil.copy(f"{place.path}{ending}", f"{after.path}{ending}")
    await buffer.stop()
    change(Path(f"{after.path}-wal"))
    return after


async def test_a_crash_is_nothing_to_speak_of(place: Place, tmp_path: Path) -> None:
    after = await crashed(place, tmp_path)

    assert await after.found() == ([str(number) for number in range(10)], [], {}, [])


async def test_what_an_earlier_round_left_in_the_log_is_nothing_to_speak_of(place: Place, tmp_path: Path) -> None:
    file = BufferFile(place.path, Bounds(10**9, 60.0, 10, 10**9), place.clock)
    file.open()
    for number in range(10):
        file.commit(Changes(appends=[[Row(1, b"%d" % number)]]))
    file._file.use(lambda connection: connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchone())
    file.commit(Changes(appends=[[Row(1, b"10")]]))
    after = Place(tmp_path / "after")
    after.path.parent.mkdir()
    for ending in ("", "-wal"):
        shutil.copy(f"{place.path}{ending}", f"{after.path}{ending}")
    file.close()

    buffer = after.buffer()
    with capture_logs() as lines:
        await buffer.start()
    await buffer.stop()

    assert buffer.events == 11
    assert [line["event"] for line in lines] == ["disk_buffer_holds_backlog"]


async def test_a_transaction_that_was_cut_off_is_passed_over_and_told(place: Place, tmp_path: Path) -> None:
    after = await crashed(place, tmp_path, lambda log: overwrite(log, log.stat().st_size - 50, b"\xff" * 40))

    backlog, _, _, lines = await after.found()

    assert backlog == [str(number) for number in range(9)]
    assert [line["event"] for line in lines] == ["log_torn"]


async def test_damage_in_the_middle_of_the_log_is_an_error(place: Place, tmp_path: Path) -> None:
    after = await crashed(place, tmp_path, lambda log: overwrite(log, log.stat().st_size // 2, b"\xff" * 40))

    backlog, _, _, lines = await after.found()

    assert backlog == [str(number) for number in range(len(backlog))]
    assert len(backlog) < 9
    assert [(line["event"], line["transactions_lost"]) for line in lines] == [("log_damaged", 10 - len(backlog))]
    assert len(after.beside("damaged*-wal")) == 1


# -- whose file it is -------------------------------------------------------------------------------------------------


async def test_a_file_of_another_program_is_not_touched(place: Place) -> None:
    with sqlite3.connect(place.path) as connection:
        connection.execute("CREATE TABLE theirs (it TEXT)")
    connection.close()
    before = place.path.read_bytes()

    with pytest.raises(ConfigurationError, match="belongs to another program"):
        await place.buffer().start()

    assert place.path.read_bytes() == before


@pytest.mark.parametrize("obstacle", ["a folder in its place", "a file where a folder should be"])
async def test_a_place_where_no_file_can_be(tmp_path: Path, obstacle: str) -> None:
    place = Place(tmp_path / "folder")
    if obstacle == "a folder in its place":
        place.path.mkdir(parents=True)
    else:
        (tmp_path / "folder").write_text("")
    buffer = place.buffer()

    with pytest.raises(ConfigurationError, match="choose another place"):
        await buffer.start()
    await buffer.stop()


async def test_a_file_that_is_removed_while_in_use_raises_the_alarm(place: Place) -> None:
    buffer = place.buffer()
    await buffer.start()
    place.path.unlink()

    await place.time_passes_until(lambda: buffer.alarm)

    assert buffer.alarm is not None
    assert "was removed" in buffer.alarm
    await buffer.stop()


async def test_room_is_used_again_and_given_back(place: Place) -> None:
    buffer = DiskBuffer(place.path, clock=place.clock, service="ai-service", keep_events=1)
    await buffer.start()
    sizes = []
    for _ in range(3):
        await buffer.append([entry(number, 100_000) for number in range(400)])
        while oldest := await buffer.oldest(100):
            await buffer.settle(oldest, ["1-0"] * len(oldest))
        sizes.append(place.path.stat().st_size)
        place.clock.advance(61)
        buffer.remember([entry(0, 10)], ["1-0"])
        await buffer.remembered()

    assert max(sizes) < 1.5 * sizes[0]
    await place.time_passes_until(lambda: place.path.stat().st_size < sizes[0] / 2)
    await buffer.stop()
    assert not place.beside("wal")
