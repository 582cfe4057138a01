"""A recorded order book: lines of ``<receive time in ns> <message>``, as hftbacktest records Binance's streams."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeAlias

import orjson

from shared.errors import ConfigurationError
from shared.trading.orders import Side

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
#: Price and what stands there now; 0 means the level is gone.
Change: TypeAlias = tuple[Decimal, Decimal]


@dataclass(frozen=True, slots=True)
class BookShown:
    """A whole book, as REST showed it.

    Attributes:
        at: Time of receipt, UTC; likewise in the other records.
        update_id: Number of the state.
    """

    at: datetime
    update_id: int
    bids: tuple[Change, ...]
    asks: tuple[Change, ...]


@dataclass(frozen=True, slots=True)
class BookChanged:
    """Levels that changed since the message that ended with ``previous_id``."""

    at: datetime
    first_id: int
    last_id: int
    previous_id: int
    bids: tuple[Change, ...]
    asks: tuple[Change, ...]


@dataclass(frozen=True, slots=True)
class Traded:
    """One trade between other people; ``taker`` is who took."""

    at: datetime
    price: Decimal
    quantity: Decimal
    taker: Side


Record: TypeAlias = BookShown | BookChanged | Traded


def read_capture(path: Path) -> tuple[Record, ...]:
    """Return what the file at ``path`` recorded, from its first snapshot on, oldest first.

    Changes that the snapshot already holds are left out. Messages of other streams (bookTicker) are left out, too:
    their state is in the changes, which come some 20 times a second.

    Raises:
        ConfigurationError: The file is missing or damaged, holds no snapshot, or misses a change.
    """
    try:
        with gzip.open(path) as lines:
            return tuple(_in_step(_records(lines)))
    except (OSError, EOFError, zlib.error, ValueError, KeyError, ArithmeticError) as error:
        raise ConfigurationError(f"book recording {path} cannot be read: {error!r}") from None


def _records(lines: Iterable[bytes]) -> Iterator[Record]:
    for line in lines:
        stamp, _, message = line.partition(b" ")
        at = _EPOCH + timedelta(microseconds=int(stamp) // 1000)
        record = _record(at, orjson.loads(message))
        if record is not None:
            yield record


def _record(at: datetime, message: Mapping[str, Any]) -> Record | None:
    if "lastUpdateId" in message:
        return BookShown(at, message["lastUpdateId"], _changes(message["bids"]), _changes(message["asks"]))
    data = message["data"]
    if data["e"] == "depthUpdate":
        return BookChanged(at, data["U"], data["u"], data["pu"], _changes(data["b"]), _changes(data["a"]))
    # Trades outside the book (liquidation fund, ADL) say so in X and took nothing from it.
    if data["e"] == "trade" and data["X"] == "MARKET":
        return Traded(at, Decimal(data["p"]), Decimal(data["q"]), Side.SELL if data["m"] else Side.BUY)
    return None


def _changes(levels: Iterable[tuple[str, str]]) -> tuple[Change, ...]:
    return tuple((Decimal(price), Decimal(quantity)) for price, quantity in levels)


def _in_step(records: Iterable[Record]) -> Iterator[Record]:
    """Start with the first snapshot and make sure that no change is missing after it."""
    told: int | None = None
    for record in _from_snapshot(records):
        if isinstance(record, BookChanged):
            if told is None or record.last_id <= told:
                continue
            if record.first_id > told and record.previous_id != told:
                raise ValueError(f"the change after update {told} is missing")
            told = record.last_id
        elif isinstance(record, BookShown):
            told = record.update_id
        yield record
    if told is None:
        raise ValueError("it holds no snapshot")


def _from_snapshot(records: Iterable[Record]) -> Iterator[Record]:
    """Yield the first snapshot, the changes that came before it, and then what follows; later snapshots are left out.

    A snapshot is asked for while changes already come, so one of them may reach beyond it.
    """
    early: list[BookChanged] = []
    has_begun = False
    for record in records:
        if has_begun:
            if not isinstance(record, BookShown):
                yield record
        elif isinstance(record, BookShown):
            has_begun = True
            yield record
            yield from early
        elif isinstance(record, BookChanged):
            early.append(record)
