"""exec-risk dies at every effect once, comes back by itself, and the exchange's books say that nothing is amiss."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.exec_risk_service.adapters.crash_points import crash_points
from tests.support.account_stage import AccountStage, account_stage
from tests.support.crash_script import live_on, live_until_the_crash

pytestmark = pytest.mark.timeout(240)

#: These are met more than once: by the entry, its two protective orders and the exit, or by each step of the book.
AGAIN = {
    "gateway.submit": (2, 3, 4),
    "journal.commit": (2, 3, 4, 5, 6, 8, 10, 14),
    "redis.XADD": (4, 8),
    "redis.XACK": (2, 3),
}
#: These need a resting entry: tests/integration/test_countdown.py passes them.
ELSEWHERE = ("countdown.",)
#: The ones that hurt most; they run on every occasion.
FAST = ("journal.commit:after#3", "gateway.submit:after", "redis.XACK:before#3")


def _every_time() -> list[str]:
    return [
        point if time == 1 else f"{point}#{time}"
        for point in crash_points()
        if not point.startswith(ELSEWHERE)
        for time in (1, *AGAIN.get(point.rpartition(":")[0], ()))
    ]


@pytest.fixture
async def stage(redis_url: str, database_url: str, tmp_path: Path) -> AsyncIterator[AccountStage]:
    async with account_stage(redis_url, database_url, tmp_path) as made:
        yield made


@pytest.mark.parametrize(
    "point", [pytest.param(point, marks=() if point in FAST else pytest.mark.long) for point in _every_time()]
)
async def test_the_account_survives_a_crash_at(stage: AccountStage, point: str) -> None:
    await live_until_the_crash(stage, point)

    await live_on(stage)

    await stage.end()
    await stage.assert_sound()
