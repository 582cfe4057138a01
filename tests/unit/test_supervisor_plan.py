"""A plan that could never start is refused before anything is started."""

from __future__ import annotations

import pytest

from infrastructure.supervisor.plan import Program, Running, check_plan, dependents, start_order
from shared.errors import ConfigurationError


async def _never_launched() -> Running:
    raise AssertionError("a plan is only looked at here")


async def _ready() -> bool:
    return True


def program(name: str, *needs: str) -> Program:
    return Program(name=name, launch=_never_launched, ready=_ready, depends_on=needs)


def test_every_program_comes_after_what_it_needs_and_otherwise_in_the_order_given() -> None:
    plan = [program("exec", "redis", "exchange"), program("exchange"), program("ai", "redis"), program("redis")]

    assert start_order(plan) == ["exchange", "redis", "exec", "ai"]
    assert dependents(plan, "redis") == ["exec", "ai"]


@pytest.mark.parametrize(
    ("plan", "complaint"),
    [
        ([program("a", "b"), program("b", "a")], "wait for each other: a, b"),
        ([program("a", "redis")], "'redis', which is not in the plan"),
        ([program("a"), program("a")], "named twice"),
    ],
)
def test_a_plan_that_cannot_start_is_refused(plan: list[Program], complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        check_plan(plan)
