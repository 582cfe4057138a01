"""Ours and the rivals round by round, in turn, so that whatever the machine does meanwhile hits all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from statistics import median
from typing import Any

from infrastructure.bench.figures import Measured, Row, Target, conclude
from infrastructure.bench.plays import Play
from infrastructure.bench.rivals.nats_program import nats_program
from infrastructure.bench.stage import MachineUse, Stage
from shared.errors import QuantumTraderError

#: Told one line about what is going on.
Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Contestant:
    """Ours, or a rival.

    Attributes:
        name: For people.
        play: What it does.
        library: Module that must be installed for it; None when it comes with the project.
        program: Whether it needs ``nats-server``.
    """

    name: str
    play: Play
    library: str | None = None
    needs_nats: bool = False

    def missing(self) -> str | None:
        """Return, in one line, what it lacks on this machine; None when it can take part."""
        if self.library is not None and find_spec(self.library) is None:
            return f"{self.name} takes no part: {self.library} is not installed (pip install -e '.[dev]')"
        if self.needs_nats and nats_program() is None:
            return f"{self.name} takes no part: there is no nats-server (on Debian: apt-get install nats-server)"
        return None


@dataclass(frozen=True, slots=True)
class Benchmark:
    """One row to be measured.

    Attributes:
        name: As the architecture calls it.
        title: What it measures, for people.
        unit: Of the values.
        ours: Our side.
        rivals: The others, the one that is told in the first place first.
        targets: What must be met; the first one is told in the first place.
        explain: Says, from the details of our median round, what people should know; None says nothing.
    """

    name: str
    title: str
    unit: str
    ours: Play
    rivals: tuple[Contestant, ...] = ()
    targets: tuple[Target, ...] = ()
    explain: Callable[[Mapping[str, Any]], str] | None = None


@dataclass(slots=True)
class _Course:
    """What has been measured so far."""

    rounds: dict[str, list[Measured]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


_OURS = "quantum-trader"


async def hold(benchmark: Benchmark, stage: Stage, *, rounds: int, seconds: float, tell: Tell) -> Row:
    """Let everybody play ``rounds`` times for about ``seconds`` and return the row.

    A rival that is missing or fails is left out, with a note; when we fail, the row has no value.
    """
    load = MachineUse().load
    course = _Course()
    in_play = _present(benchmark, course)
    for number in range(rounds):
        for contestant in _turned(in_play, number):
            if contestant in in_play:
                tell(f"{benchmark.name}: round {number + 1} of {rounds}: {contestant.name}")
                if not await _play(contestant, stage, seconds, course):
                    in_play.remove(contestant)
        if not in_play or in_play[0].name != _OURS:
            break
    ours = course.rounds.pop(_OURS, [])
    row_notes = [*course.notes, *_explained(benchmark, ours)]
    return conclude(
        name=benchmark.name,
        unit=benchmark.unit,
        ours=ours,
        rivals=course.rounds,
        targets=benchmark.targets,
        load=load,
        foreign_cpu=_foreign([*ours, *(one for rival in course.rounds.values() for one in rival)]),
        notes=row_notes,
    )


def _present(benchmark: Benchmark, course: _Course) -> list[Contestant]:
    present = [Contestant(_OURS, benchmark.ours)]
    for rival in benchmark.rivals:
        lack = rival.missing()
        if lack is None:
            present.append(rival)
        else:
            course.notes.append(lack)
    return present


def _turned(contestants: Sequence[Contestant], number: int) -> list[Contestant]:
    """Return them in the order of round ``number``: each begins now and then."""
    shift = number % len(contestants)
    return [*contestants[shift:], *contestants[:shift]]


async def _play(contestant: Contestant, stage: Stage, seconds: float, course: _Course) -> bool:
    try:
        measured = await contestant.play.perform(stage, seconds)
    except QuantumTraderError as error:
        course.notes.append(f"{contestant.name} failed: {error}")
        course.rounds.pop(contestant.name, None)
        return False
    course.rounds.setdefault(contestant.name, []).append(measured)
    return True


def _explained(benchmark: Benchmark, ours: Sequence[Measured]) -> list[str]:
    if benchmark.explain is None or not ours:
        return []
    return [benchmark.explain(sorted(ours, key=lambda one: one.value)[len(ours) // 2].details)]


def _foreign(rounds: Sequence[Measured]) -> float | None:
    return median(one.details["foreign_cpu"] for one in rounds) if rounds else None
