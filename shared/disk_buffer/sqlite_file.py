"""A SQLite file of one process: locked against others, checked when it is opened, mended when it is damaged.

A transaction is on the disk when it returns (write-ahead log, synchronous=FULL). All methods wait for the disk.
"""

from __future__ import annotations

import errno
import fcntl
import os
import sqlite3
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from struct import Struct
from typing import Any, TypeVar

import structlog

from shared.clock import Clock
from shared.errors import ConfigurationError

log = structlog.get_logger(__name__)

#: What a disk can do to us; anything else is a mistake in the code.
DISK_ERRORS = (sqlite3.Error, OSError)
_SETTINGS_OF_A_NEW_FILE = (
    f"PRAGMA page_size = {16 * 1024}",  # a frame of the log costs two calls of the system, however large it is
    "PRAGMA auto_vacuum = INCREMENTAL",
)
_SETTINGS = (
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA secure_delete = OFF",  # some builds overwrite with zeros what is deleted
    f"PRAGMA journal_size_limit = {16 * 1024**2}",
)
_LOG_HEAD = Struct(">8xI4x8s8x")  # page size, salt
_FRAME_HEAD = Struct(">4xI8s8x")  # pages of the file after a commit, else 0; salt
#: How long a program that looks into the file, a backup perhaps, is waited for.
_BUSY_SECONDS = 1.0
#: Rows that are tried one by one behind a damaged one, before the search goes on in growing steps.
_TRIED_ONE_BY_ONE = 64
_LAST_ROWID = 2**63 - 1

T = TypeVar("T")


class DamagedError(sqlite3.DatabaseError):
    """What lies on the disk is not what was written."""


@dataclass(frozen=True, slots=True)
class Schema:
    """What is in a file.

    Attributes:
        application_id: Says in the file's header what it is; above 0.
        statements: Make tables and indexes.
        tables: What is carried over from a damaged file; tables without ``WITHOUT ROWID``.
        sealed: Those among them whose last two columns are a checksum and the body that it belongs to.
    """

    application_id: int
    statements: Sequence[str]
    tables: Sequence[str]
    sealed: Collection[str]


def checksum_of(body: bytes) -> int:
    """Return what belongs beside ``body`` in a sealed table."""
    return zlib.crc32(body)


def require_intact(checksum: object, body: object) -> None:
    """Raise DamagedError unless the two belong together."""
    if not isinstance(body, bytes) or zlib.crc32(body) != checksum:
        raise DamagedError("a checksum does not fit")


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Write all that happens inside, or nothing."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            with suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
        raise


class SqliteFile:
    """One file, opened at the first use."""

    def __init__(
        self, path: Path, schema: Schema, *, clock: Clock, on_open: Callable[[sqlite3.Connection], None]
    ) -> None:
        """Prepare, without touching the disk.

        Args:
            path: Where it is; folders are made.
            schema: What is in it.
            clock: Wall clock, for the names of damaged files.
            on_open: Told of every new connection; a mended file can hold less than before.
        """
        self._path = path
        self._schema = schema
        self._clock = clock
        self._on_open = on_open
        self._lock: int | None = None
        self._connection: sqlite3.Connection | None = None

    def use(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do ``work``; when the file turns out to be damaged, mend it and do the work once more.

        Raises:
            ConfigurationError: There can be no file here, it is something else, or another process has it.
            sqlite3.Error, OSError: The disk does not take it or cannot be read.
        """
        try:
            return work(self._opened())
        except sqlite3.DatabaseError as error:
            if not _is_damage(error):
                raise
            self._disconnect()
            self._mend(error)
            return work(self._opened())

    def close(self) -> None:
        """Close the file; from now on another process may have it."""
        self._disconnect()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def discard(self) -> None:
        """Throw away all that is in the file; the next use makes a new one."""
        self._disconnect()
        self._beside("wal").unlink(missing_ok=True)  # first: alone it would mean nothing, without it the file does
        self._path.unlink(missing_ok=True)

    def _opened(self) -> sqlite3.Connection:
        if self._connection is None:
            try:
                self._take_place()
                self._connection = self._connect()
            except DISK_ERRORS as error:
                if _is_misplaced(error):
                    raise ConfigurationError(
                        f"{str(self._path)!r} cannot be opened: {error}; choose another place"
                    ) from error
                raise
        return self._connection

    def _take_place(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        if self._lock is None:
            self._lock = _locked(self._beside("lock"))
        if not self._path.exists() and self._beside("mended").exists():  # the end came in the middle of ``_mend``
            self._beside("wal").unlink(missing_ok=True)
            self._beside("mended").rename(self._path)
        self._path.touch(mode=0o600)

    def _connect(self) -> sqlite3.Connection:
        connection = _connection(self._path)
        try:
            if not self._is_ours(connection):
                _create(connection, self._schema)
            for setting in _SETTINGS:
                connection.execute(setting)
            (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            if verdict != "ok":
                raise DamagedError(verdict)
            self._report_torn(connection)
            self._on_open(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _is_ours(self, connection: sqlite3.Connection) -> bool:
        """Tell whether the file is one of ours; False for an empty one."""
        (application_id,) = connection.execute("PRAGMA application_id").fetchone()
        (objects,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if objects and application_id != self._schema.application_id:
            raise ConfigurationError(f"{str(self._path)!r} belongs to another program; choose another place")
        return bool(objects)

    def _report_torn(self, connection: sqlite3.Connection) -> None:
        """Tell what of the log SQLite passed over: a transaction that was cut off is normal, more of them are not."""
        try:
            _, sound_frames, _ = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            log_bytes = self._beside("wal").read_bytes()
        except (sqlite3.OperationalError, OSError):  # a full disk, no log
            return
        frames, transactions = _left_over(log_bytes, max(0, sound_frames))
        if transactions > 1:
            aside = self._beside(f"damaged-{self._clock.now():%Y%m%dT%H%M%S%f}-wal")
            aside.write_bytes(log_bytes)
            log.error("log_damaged", file=str(self._path), transactions_lost=transactions, set_aside=str(aside))
        elif frames:
            log.warning("log_torn", file=str(self._path), frames_ignored=frames)

    def _mend(self, reason: Exception) -> None:
        """Put the damaged file aside, and what can be read of it into a new one. A crash in between does no harm."""
        mended = self._beside("mended")
        for leftover in (mended, mended.with_name(f"{mended.name}-wal")):
            leftover.unlink(missing_ok=True)
        rows = _carry_over(self._path, mended, self._schema)
        aside = self._beside(f"damaged-{self._clock.now():%Y%m%dT%H%M%S%f}")
        self._path.rename(aside)
        with suppress(FileNotFoundError):
            self._beside("wal").rename(aside.with_name(f"{aside.name}-wal"))
        mended.rename(self._path)
        _sync_folder(self._path.parent)
        log.error(
            "file_damaged", file=str(self._path), reason=str(reason), set_aside=str(aside), carried_over=dict(rows)
        )

    def _beside(self, ending: str) -> Path:
        return self._path.with_name(f"{self._path.name}-{ending}")

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def reason_of(error: Exception) -> str:
    """Say in words that stay the same for the same cause why the disk did not do what it should."""
    code = getattr(error, "sqlite_errorcode", 0)
    if code & 0xFF == sqlite3.SQLITE_FULL or getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
        return "the disk is full; make room on it"
    if code & 0xFF == sqlite3.SQLITE_IOERR:
        name = getattr(error, "sqlite_errorname", "")
        return f"the disk refuses ({name}); look at its quota and at the system's log"
    return " ".join(str(error).split())


def _connection(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None)
    # Nobody else looks inside: no memory has to be shared. It counts only before anything is read.
    connection.execute("PRAGMA locking_mode = EXCLUSIVE")
    return connection


def _left_over(log_bytes: bytes, sound_frames: int) -> tuple[int, int]:
    """Return how many frames of the present log lie behind the sound ones, and how many transactions end there.

    The format is https://www.sqlite.org/fileformat2.html#the_write_ahead_log: frames of an earlier round of the same
    file carry another salt.
    """
    if len(log_bytes) < _LOG_HEAD.size:
        return 0, 0
    page_size, salt = _LOG_HEAD.unpack_from(log_bytes)
    frame_size = _FRAME_HEAD.size + page_size
    frames = transactions = 0
    for place in range(_LOG_HEAD.size + sound_frames * frame_size, len(log_bytes) - _FRAME_HEAD.size, frame_size):
        pages_after_commit, frame_salt = _FRAME_HEAD.unpack_from(log_bytes, place)
        if frame_salt != salt:
            break
        frames += 1
        transactions += pages_after_commit > 0
    return frames, transactions


def _create(connection: sqlite3.Connection, schema: Schema) -> None:
    for setting in (*_SETTINGS_OF_A_NEW_FILE, *_SETTINGS):
        connection.execute(setting)
    with transaction(connection):
        for statement in (f"PRAGMA application_id = {schema.application_id}", *schema.statements):
            connection.execute(statement)


def _carry_over(damaged: Path, mended: Path, schema: Schema) -> Counter[str]:
    """Copy every row that can be read; return how many there were, by table."""
    rows: Counter[str] = Counter()
    with closing(_connection(mended)) as target:
        _create(target, schema)
        with closing(_connection(damaged)) as source, transaction(target):
            for table in schema.tables:
                for row in _readable(source, table, is_sealed=table in schema.sealed):
                    places = ", ".join("?" * len(row))
                    target.execute(f"INSERT OR REPLACE INTO {table} VALUES ({places})", row)  # noqa: S608 - ours
                    rows[table] += 1
        target.execute("PRAGMA journal_mode = DELETE")  # all of it is in this one file, which gets another name now
    return rows


def _readable(source: sqlite3.Connection, table: str, *, is_sealed: bool) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of ``table`` in their order, and pass over what cannot be read."""
    next_one, failures = 0, 0
    while next_one < _LAST_ROWID:
        try:
            rows = source.execute(f"SELECT rowid, * FROM {table} WHERE rowid >= ? ORDER BY rowid", (next_one,))  # noqa: S608
            for rowid, *row in rows:
                if is_sealed:
                    require_intact(*row[-2:])
                yield tuple(row)
                next_one, failures = rowid + 1, 0
            return
        except sqlite3.DatabaseError:
            next_one += 1 << max(0, failures - _TRIED_ONE_BY_ONE)
            failures += 1


def _locked(path: Path) -> int:
    """Return the descriptor of the lock file; the lock lasts as long as it is open, however the process ends."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(lock, 20).decode(errors="replace").strip() or "unknown"
        os.close(lock)
        raise ConfigurationError(
            f"{str(path)!r} is held by process {holder}; stop that one or give each process a file of its own"
        ) from None
    with suppress(OSError):  # the number is for people; a full disk is reported elsewhere
        os.truncate(lock, 0)
        os.write(lock, f"{os.getpid()}\n".encode())
    return lock


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _is_damage(error: sqlite3.DatabaseError) -> bool:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return isinstance(error, DamagedError) or code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def _is_misplaced(error: Exception) -> bool:
    """Tell whether waiting cannot help: no such folder, no permission, a folder where a file should be."""
    if isinstance(error, OSError):
        return error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EIO)
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return code in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_AUTH)
