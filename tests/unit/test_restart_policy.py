"""What follows a death is decided from its exit code and the earlier deaths alone."""

from __future__ import annotations

import pytest

from infrastructure.supervisor.restart_policy import EndRun, Restart, RestartPolicy, after_exit
from shared.backoff import Backoff

POLICY = RestartPolicy(
    max_restarts=3, window_seconds=60.0, backoff=Backoff(base_seconds=0.2, factor=3.0, cap_seconds=1.0)
)


@pytest.mark.parametrize(
    ("earlier", "delay"), [((), 0.2), ((99.0,), pytest.approx(0.6)), ((98.0, 99.0), 1.0), ((10.0, 11.0, 12.0), 0.2)]
)
def test_delays_grow_with_recent_deaths_and_old_ones_are_forgiven(earlier: tuple[float, ...], delay: float) -> None:
    assert after_exit(-9, policy=POLICY, restarts_at=earlier, now=100.0) == Restart(delay)


def test_one_death_too_many_ends_the_run() -> None:
    verdict = after_exit(1, policy=POLICY, restarts_at=(70.0, 80.0, 90.0), now=100.0)

    assert verdict == EndRun("ended with exit code 1 and was already restarted 3 times within 60 s")


def test_a_wrong_setting_is_never_tried_again() -> None:
    verdict = after_exit(4, policy=POLICY, restarts_at=(), now=100.0)

    assert isinstance(verdict, EndRun)
    assert verdict.configuration


def test_the_death_of_what_cannot_be_replaced_says_what_is_lost() -> None:
    policy = RestartPolicy(max_restarts=0, irreplaceable_because="its order book is lost")

    assert after_exit(-9, policy=policy, restarts_at=(), now=0.0) == EndRun(
        "was ended by signal 9; its order book is lost"
    )


def test_an_unasked_for_clean_exit_is_a_death_too() -> None:
    assert isinstance(after_exit(0, policy=POLICY, restarts_at=(), now=0.0), Restart)
