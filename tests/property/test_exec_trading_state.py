"""Whatever happens in whatever order: only a person leaves HALTED, and an entry is denied exactly while not ACTIVE."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from services.exec_risk_service.domain.book import Book
from services.exec_risk_service.domain.decide import decide
from services.exec_risk_service.domain.inputs import (
    Input,
    StopReported,
    StopRequested,
    TradingLifted,
    TradingRestricted,
    TradingResumed,
)
from services.exec_risk_service.domain.rules import Context, Rules
from services.exec_risk_service.domain.trading_state import Ends, TradingCause, TradingState
from tests.support.exec_risk_desk import ACCOUNT, NORMAL, WALL

CAUSES = st.sampled_from(TradingCause)
STATES = st.sampled_from([TradingState.REDUCING, TradingState.HALTED])
RULES_SAY = st.one_of(
    st.builds(TradingRestricted, CAUSES, st.just("a reason"), st.just("a rule"), STATES),
    st.builds(TradingLifted, CAUSES, st.just("it is over"), st.just("a rule")),
    st.builds(StopRequested, st.sampled_from(["one", "two"]), st.just("a reason"), st.just("a rule")),
    st.builds(StopReported, st.sampled_from(["one", "two"]), st.just("a line"), st.booleans()),
)
A_PERSON_SAYS = st.builds(TradingResumed, st.just("looked into it"), st.just("ada"))


def fold(book: Book, items: list[Input]) -> list[tuple[Input, Book]]:
    """Apply ``items`` one second after the other; return each with the book after it."""
    seen = []
    for second, item in enumerate(items):
        step = decide(book, item, Context(Rules(), NORMAL, {}, WALL + timedelta(seconds=second)))
        book = book if step is None else step.book
        seen.append((item, book))
    return seen


@given(st.lists(RULES_SAY, max_size=30))
def test_no_rule_leaves_halted(items: list[Input]) -> None:
    halted = False
    for _, book in fold(Book(ACCOUNT), items):
        assert book.trading.state is TradingState.HALTED or not halted
        halted = book.trading.state is TradingState.HALTED


@given(st.lists(st.one_of(RULES_SAY, A_PERSON_SAYS), max_size=40))
def test_the_state_follows_from_what_is_in_force(items: list[Input]) -> None:
    for item, book in fold(Book(ACCOUNT), items):
        trading = book.trading
        assert (trading.denial is None) == (trading.state is TradingState.ACTIVE)
        if trading.state is TradingState.ACTIVE:
            assert trading.restrictions == ()
        if trading.state is TradingState.REDUCING:
            assert trading.restrictions
        if trading.stop is not None:
            assert trading.state is TradingState.HALTED
        if isinstance(item, TradingResumed):
            assert trading.state is not TradingState.HALTED
            assert all(one.ends is Ends.WITH_ITS_CAUSE for one in trading.restrictions)
