"""Differences of one order book, numbered so that a reader who starts from a snapshot stays in step."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal

from infrastructure.paper_exchange.records import Level
from shared.trading.money import ZERO

_Side = dict[Decimal, Decimal]


@dataclass(frozen=True, slots=True)
class DepthBook:
    """Both sides of a book at one state; quantities by price.

    Attributes:
        update_id: Number of the state.
    """

    update_id: int
    bids: _Side
    asks: _Side

    @classmethod
    def of(cls, update_id: int, bids: Iterable[Level], asks: Iterable[Level]) -> DepthBook:
        """Return the book of these levels."""
        both = ({level.price: level.quantity for level in side} for side in (bids, asks))
        return cls(update_id, *both)


@dataclass(frozen=True, slots=True)
class DepthDiff:
    """Levels that changed; a quantity of 0 means the level is gone.

    Attributes:
        first_id: First update in it (``U``).
        last_id: Last update in it (``u``).
        previous_id: ``last_id`` of the difference before it (``pu``).
    """

    first_id: int
    last_id: int
    previous_id: int
    bids: tuple[Level, ...]
    asks: tuple[Level, ...]


class DepthDiffs:
    """What one stream has told of a book, and what it still has to tell.

    A level that changed and changed back between two messages is told all the same when someone was shown a snapshot
    in between: that reader knows the value in the middle.
    """

    def __init__(self, book: DepthBook) -> None:
        self._told_id = book.update_id
        self._seen = book
        self._touched: tuple[set[Decimal], set[Decimal]] = (set(), set())

    def note(self, book: DepthBook) -> None:
        """Take notice of a state that a reader was shown."""
        if book.update_id == self._seen.update_id:
            return
        self._touched[0].update(_changed(self._seen.bids, book.bids))
        self._touched[1].update(_changed(self._seen.asks, book.asks))
        self._seen = book

    def advance(self, book: DepthBook) -> DepthDiff | None:
        """Return everything that changed since the last difference up to ``book``, or None when there is no news."""
        self.note(book)
        if book.update_id == self._told_id:
            return None
        bids, asks = self._touched
        diff = DepthDiff(
            first_id=self._told_id + 1,
            last_id=book.update_id,
            previous_id=self._told_id,
            bids=tuple(Level(price, book.bids.get(price, ZERO)) for price in sorted(bids, reverse=True)),
            asks=tuple(Level(price, book.asks.get(price, ZERO)) for price in sorted(asks)),
        )
        self._told_id = book.update_id
        self._touched = (set(), set())
        return diff


def _changed(before: _Side, after: _Side) -> set[Decimal]:
    return {price for price in before.keys() | after.keys() if before.get(price) != after.get(price)}
