"""A book that is followed by snapshot and differences equals the book that is shown."""

from __future__ import annotations

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from infrastructure.paper_exchange.depth_diffs import DepthBook, DepthDiff, DepthDiffs
from shared.trading.money import ZERO

Sides = tuple[dict[Decimal, Decimal], dict[Decimal, Decimal]]

LEVELS = st.dictionaries(st.integers(1, 8).map(Decimal), st.integers(1, 3).map(Decimal), max_size=6)
#: The state a book moves to, and what happens there: nothing, a difference is told, or a snapshot is shown.
MOVES = st.lists(
    st.tuples(LEVELS, LEVELS, st.integers(0, 3), st.sampled_from(["pass", "tell", "show", "show and tell"])),
    min_size=1,
    max_size=20,
)


class Follower:
    """A reader by Binance's rules: drop what is older than the snapshot, then every ``pu`` must fit."""

    def __init__(self, snapshot: DepthBook) -> None:
        self.bids, self.asks = dict(snapshot.bids), dict(snapshot.asks)
        self.update_id = snapshot.update_id
        self.has_begun = False

    def read(self, diff: DepthDiff) -> None:
        if diff.last_id < self.update_id:
            return
        if self.has_begun:
            assert diff.previous_id == self.update_id
        else:
            assert diff.first_id <= self.update_id <= diff.last_id or diff.previous_id == self.update_id
        self.has_begun = True
        for side, levels in ((self.bids, diff.bids), (self.asks, diff.asks)):
            for level in levels:
                if level.quantity:
                    side[level.price] = level.quantity
                else:
                    side.pop(level.price, None)
        self.update_id = diff.last_id


@given(start=st.tuples(LEVELS, LEVELS), moves=MOVES)
def test_whoever_starts_from_a_snapshot_stays_in_step(
    start: Sides, moves: list[tuple[dict[Decimal, Decimal], dict[Decimal, Decimal], int, str]]
) -> None:
    book = DepthBook(100, *start)
    diffs = DepthDiffs(book)
    followers: list[Follower] = []
    for bids, asks, step, what in moves:
        if step:
            book = DepthBook(book.update_id + step, bids, asks)
        if "show" in what:
            diffs.note(book)
            followers.append(Follower(book))
        if "tell" in what and (diff := diffs.advance(book)) is not None:
            for follower in followers:
                follower.read(diff)
            for follower in followers:
                assert (follower.bids, follower.asks) == (book.bids, book.asks)


def test_a_level_that_came_back_is_told_to_who_saw_it_gone() -> None:
    full, gone = {Decimal(1): Decimal(5)}, dict[Decimal, Decimal]()
    diffs = DepthDiffs(DepthBook(1, full, {}))
    diffs.note(DepthBook(2, gone, {}))
    diff = diffs.advance(DepthBook(3, full, {}))
    assert diff is not None
    assert [(level.price, level.quantity) for level in diff.bids] == [(Decimal(1), Decimal(5))]
    assert (diff.first_id, diff.last_id, diff.previous_id) == (2, 3, 1)


def test_levels_that_are_gone_are_told_with_nothing_left_and_no_news_is_not_told() -> None:
    diffs = DepthDiffs(DepthBook(1, {Decimal(1): Decimal(5)}, {}))
    assert diffs.advance(DepthBook(1, {Decimal(1): Decimal(5)}, {})) is None
    diff = diffs.advance(DepthBook(4, {}, {Decimal(2): Decimal(1)}))
    assert diff is not None
    assert [(level.price, level.quantity) for level in diff.bids] == [(Decimal(1), ZERO)]
    assert [(level.price, level.quantity) for level in diff.asks] == [(Decimal(2), Decimal(1))]
