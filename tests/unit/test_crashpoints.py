"""A process ends at the one point that was armed, at the time that was asked for, and nowhere else."""

from __future__ import annotations

import pytest

from services.exec_risk_service.adapters.crash_points import crash_points, redis_with_points
from shared.crashpoints import EXIT_CODE, Crashpoints
from shared.errors import ConfigurationError


class Ended(BaseException):
    """Stands for the end of the process."""


def end(code: int) -> None:
    raise Ended(code)


class Desk:
    """Something with one effect and one read."""

    name = "desk"

    def __init__(self) -> None:
        self.sent: list[str] = []

    async def send(self, what: str, *, twice: bool = False) -> int:
        self.sent += [what] * (1 + twice)
        return len(self.sent)

    async def look(self) -> int:
        return len(self.sent)

    async def execute(self, *commands: tuple[str, ...]) -> int:
        self.sent += [command[0] for command in commands]
        return len(commands)


def armed(point: str) -> Crashpoints:
    return Crashpoints(point, known=("desk.send:before", "desk.send:after"), end=end)


async def test_before_means_that_nothing_happened_and_after_that_all_of_it_did() -> None:
    desk = Desk()
    with pytest.raises(Ended, match=str(EXIT_CODE)):
        await armed("desk.send:before").around(desk, "desk", ("send",)).send("a")
    assert desk.sent == []

    with pytest.raises(Ended, match=str(EXIT_CODE)):
        await armed("desk.send:after").around(desk, "desk", ("send",)).send("a", twice=True)
    assert desk.sent == ["a", "a"]


async def test_the_nth_time_counts() -> None:
    desk = Desk()
    pointed = armed("desk.send:after#3").around(desk, "desk", ("send",))

    assert [await pointed.send("a"), await pointed.send("b"), await pointed.look(), pointed.name] == [1, 2, 2, "desk"]
    with pytest.raises(Ended):
        await pointed.send("c")
    assert desk.sent == ["a", "b", "c"]


def test_nothing_stands_in_between_when_nothing_is_armed() -> None:
    desk = Desk()

    assert Crashpoints().around(desk, "desk", ("send",)) is desk
    assert redis_with_points(desk, Crashpoints()) is desk


async def test_commands_of_the_bus_have_points_of_their_own() -> None:
    desk = Desk()
    pointed = redis_with_points(desk, Crashpoints("redis.XACK:before", known=crash_points(), end=end))

    assert await pointed.execute(("XADD", "stream"), ("XLEN", "stream")) == 2
    with pytest.raises(Ended):
        await pointed.execute(("XACK", "stream"))
    assert desk.sent == ["XADD", "XLEN"]


@pytest.mark.parametrize("name", ["desk.sent:before", "desk.send", "desk.send:after#0", "desk.send:after#x"])
def test_a_point_that_there_is_not_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="doctor --crashpoints"):
        armed(name)
