"""The gate of the control endpoints."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from shared.access import Denial, TokenGate
from shared.clock import ManualClock

TOKEN = "4f1d7c0ba98e5d32" * 2
HERE, THERE = "127.0.0.1", "10.0.0.7"


class Stage:
    def __init__(self, token: str | None = TOKEN) -> None:
        self.clock = ManualClock(datetime(2025, 5, 4, tzinfo=UTC))
        self.gate = TokenGate(token, variable="QT_API_TOKEN", clock=self.clock)

    def check(self, token: str | None = TOKEN, *, caller: str = HERE) -> Denial | None:
        denied = self.gate.check(None if token is None else f"Bearer {token}", caller=caller)
        if denied is not None:
            assert TOKEN not in denied.message
            assert "\n" not in denied.message
        return denied.kind if denied else None


def test_without_a_token_nobody_gets_in_and_the_answer_says_what_to_set() -> None:
    denied = Stage(token=None).gate.check(f"Bearer {TOKEN}", caller=HERE)

    assert denied is not None
    assert denied.kind is Denial.CLOSED
    assert "QT_API_TOKEN_FILE" in denied.message


@pytest.mark.parametrize("header", [f"Bearer {TOKEN}", f"bearer {TOKEN}", f"BEARER   {TOKEN}  "])
def test_who_shows_the_token_gets_in(header: str) -> None:
    assert Stage().gate.check(header, caller=HERE) is None


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", TOKEN, f"Basic {TOKEN}", f"Token {TOKEN}"])
def test_who_shows_none_is_told_how(header: str | None) -> None:
    denied = Stage().gate.check(header, caller=HERE)

    assert denied is not None
    assert denied.kind is Denial.NO_TOKEN


@pytest.mark.parametrize("token", [TOKEN[:-1], TOKEN + "0", TOKEN.upper(), "ÿ" * 32, "\udcff", "0"])
def test_any_other_token_is_wrong(token: str) -> None:
    assert Stage().check(token) is Denial.WRONG_TOKEN


def test_after_five_failures_even_the_right_token_has_to_wait_and_longer_each_time() -> None:
    stage = Stage()
    for _ in range(5):
        assert stage.check("wrong") is Denial.WRONG_TOKEN

    for wait in (1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0):
        assert stage.check() is Denial.THROTTLED
        denied = stage.gate.check(None, caller=HERE)
        assert denied is not None
        assert denied.retry_after_seconds == wait
        stage.clock.advance(wait - 0.01)
        assert stage.check() is Denial.THROTTLED
        stage.clock.advance(0.01)
        assert stage.check("wrong") is Denial.WRONG_TOKEN

    stage.clock.advance(30.0)
    assert stage.check() is None


def test_others_do_not_wait_for_who_fails() -> None:
    stage = Stage()
    for _ in range(5):
        stage.check("wrong", caller=THERE)

    assert stage.check(caller=THERE) is Denial.THROTTLED
    assert stage.check(caller=HERE) is None


def test_a_success_and_ten_quiet_minutes_forgive_everything() -> None:
    stage = Stage()
    for _ in range(4):
        stage.check("wrong")
    assert stage.check() is None
    for _ in range(4):
        assert stage.check("wrong") is Denial.WRONG_TOKEN
    stage.clock.advance(601.0)
    for _ in range(5):
        assert stage.check("wrong") is Denial.WRONG_TOKEN


def test_callers_without_number_fill_no_memory() -> None:
    stage = Stage()
    for number in range(5000):
        stage.check("wrong", caller=f"caller {number}")

    assert len(stage.gate._failures) == 1024
