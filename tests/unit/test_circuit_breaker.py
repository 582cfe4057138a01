"""The circuit breaker, by the table."""

from __future__ import annotations

import pytest

from shared.circuit_breaker import BreakerState, CircuitBreaker
from shared.errors import IllegalTransitionError


def failed_probe(breaker: CircuitBreaker, now: float) -> bool:
    breaker.probed(now)
    return breaker.failed(now)


def opened(at: float = 0.0) -> CircuitBreaker:
    breaker = CircuitBreaker(failures_to_open=1)
    failed_probe(breaker, at)
    return breaker


def test_it_starts_closed_and_owes_nothing() -> None:
    breaker = CircuitBreaker()

    assert breaker.state is BreakerState.CLOSED
    assert breaker.away_since is None
    assert not breaker.owes_a_probe(1e9)


def test_it_opens_at_the_third_failure_in_a_row_and_says_so_once() -> None:
    breaker = CircuitBreaker()

    assert [failed_probe(breaker, now) for now in (10.0, 11.0, 12.0, 13.0)] == [False, False, True, False]
    assert breaker.state is BreakerState.OPEN
    assert breaker.away_since == 10.0


def test_a_success_in_between_starts_the_row_anew() -> None:
    breaker = CircuitBreaker()
    failed_probe(breaker, 1.0)
    failed_probe(breaker, 2.0)

    breaker.probed(3.0)
    breaker.succeeded()

    assert breaker.away_since is None
    assert [failed_probe(breaker, now) for now in (4.0, 5.0)] == [False, False]
    assert breaker.is_closed


def test_a_probe_half_opens_it_and_its_success_closes_it() -> None:
    breaker = opened()

    breaker.probed(5.0)
    assert (breaker.state, breaker.is_closed) == (BreakerState.HALF_OPEN, False)
    breaker.succeeded()

    assert (breaker.state, breaker.is_closed) == (BreakerState.CLOSED, True)


def test_a_probe_that_fails_opens_it_again_and_the_outage_keeps_its_beginning() -> None:
    breaker = opened(at=1.0)

    assert failed_probe(breaker, 30.0) is False

    assert (breaker.state, breaker.away_since) == (BreakerState.OPEN, 1.0)


@pytest.mark.parametrize("is_open", [True, False])
def test_a_probe_that_was_broken_off_changes_nothing(is_open: bool) -> None:
    breaker = opened() if is_open else CircuitBreaker()
    before = breaker.state

    breaker.probed(5.0)
    breaker.abandoned()

    assert breaker.state is before


def test_a_request_may_probe_when_nobody_has_for_a_minute() -> None:
    breaker = opened(at=100.0)

    assert not breaker.owes_a_probe(159.9)
    assert breaker.owes_a_probe(160.0)
    failed_probe(breaker, 160.0)
    assert not breaker.owes_a_probe(200.0)


def test_success_without_a_probe_is_no_transition_of_an_open_breaker() -> None:
    with pytest.raises(IllegalTransitionError, match="circuit breaker"):
        opened().succeeded()
