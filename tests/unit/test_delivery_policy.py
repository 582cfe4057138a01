from __future__ import annotations

import pytest

from shared.backoff import Backoff
from shared.bus.delivery_policy import ACK, DeadLetter, DeliveryPolicy, Refused, Retry
from shared.errors import (
    CommandExpiredError,
    ConnectionLostError,
    DeadlineExceededError,
    DecodeError,
    InvalidInputError,
    OrderRejectedError,
    OutcomeUnknownError,
    OverloadedError,
)

POLICY = DeliveryPolicy(max_attempts=3, max_deliveries=6, backoff=Backoff(base_seconds=1.0, factor=2.0, cap_seconds=60))


def test_success_is_acknowledged_whatever_the_attempt() -> None:
    assert [POLICY.after(None, attempt=n, outages=0) for n in (1, 3, 99)] == [ACK] * 3


def test_a_late_command_is_refused_and_done() -> None:
    assert POLICY.after(CommandExpiredError("2 s late"), attempt=1, outages=0) == Refused("2 s late")


@pytest.mark.parametrize("error", [DecodeError("bytes"), InvalidInputError("value")])
def test_a_permanent_error_is_put_aside_at_once(error: Exception) -> None:
    assert POLICY.after(error, attempt=1, outages=0) == DeadLetter(f"{type(error).__name__}: {error}")


@pytest.mark.parametrize(
    "error",
    [
        ValueError("x"),
        DeadlineExceededError("x"),
        OverloadedError("x"),
        OrderRejectedError("x"),
        OutcomeUnknownError("x"),
        TimeoutError("x"),
    ],
)
def test_any_other_error_is_tried_again_until_the_attempts_are_used_up(error: Exception) -> None:
    told = f"{type(error).__name__}: x"

    verdicts = [POLICY.after(error, attempt=attempt, outages=0) for attempt in (1, 2, 3)]

    assert verdicts == [Retry(1.0, 2, told), Retry(2.0, 3, told), DeadLetter(told)]


def test_a_lost_connection_does_not_use_up_attempts() -> None:
    error = ConnectionLostError("away")

    verdict = POLICY.after(error, attempt=3, outages=4)

    assert verdict == Retry(8.0, 3, "ConnectionLostError: away")


def test_the_wait_for_a_lost_connection_is_capped() -> None:
    verdict = POLICY.after(ConnectionLostError("away"), attempt=1, outages=10_000)

    assert isinstance(verdict, Retry)
    assert verdict.delay_seconds == 60


def test_lost_connections_can_be_bounded() -> None:
    policy = DeliveryPolicy(max_outages=2)

    assert isinstance(policy.after(ConnectionLostError("away"), attempt=1, outages=1), Retry)
    assert isinstance(policy.after(ConnectionLostError("away"), attempt=1, outages=2), DeadLetter)


def test_tries_that_never_end_are_bounded() -> None:
    assert POLICY.before(6) is None
    assert POLICY.before(7) == DeadLetter("6 tries began and none ended: it may crash its consumer")
