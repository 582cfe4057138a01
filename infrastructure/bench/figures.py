"""What a benchmark comes to: figures of the contestants, targets, and the verdict on them. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Literal

from infrastructure.bench.statistics import paired_ratio, spread


@dataclass(frozen=True, slots=True)
class Measured:
    """What one contestant came to in one round.

    Attributes:
        value: In the unit of the benchmark.
        details: More about it, for people who want to know why.
    """

    value: float
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Target:
    """What our figure must come to.

    Attributes:
        sense: Whether more is better.
        bound: A value, or with ``rival`` a multiple of that contestant's value.
        rival: Name of the contestant that it is compared with; None where the bound stands alone.
    """

    sense: Literal["at least", "at most"]
    bound: float
    rival: str | None = None

    def told(self, unit: str) -> str:
        """Return the target in words."""
        sign = ">=" if self.sense == "at least" else "<="
        return f"{sign} {self.bound:g} {unit}" if self.rival is None else f"{sign} {self.bound:g} x {self.rival}"

    def holds(self, value: float, ratio: float | None) -> bool | None:
        """Return whether it is met; None when the rival has no figure."""
        figure = value if self.rival is None else ratio
        if figure is None:
            return None
        return figure >= self.bound if self.sense == "at least" else figure <= self.bound


@dataclass(frozen=True, slots=True)
class Comparison:
    """Our figure beside that of one rival.

    Attributes:
        rival: Its name.
        rival_value: Its median.
        ratio: Ours divided by it, the median of the ratios round by round.
        target: In words; None when it is there for information.
        ok: Whether the target is met; None when it cannot be judged or there is none.
    """

    rival: str | None
    rival_value: float | None
    ratio: float | None
    target: str | None
    ok: bool | None

    def as_json(self) -> dict[str, Any]:
        """Return the comparison as JSON values."""
        return {
            "target": self.target,
            "ok": self.ok,
            "rival": self.rival,
            "rival_value": rounded(self.rival_value),
            "ratio": rounded(self.ratio),
        }


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the result.

    Attributes:
        name: Of the benchmark.
        unit: Of the values.
        value: Our median; None when it could not be measured.
        first: The comparison that the architecture asks for.
        others: Further rivals.
        load: Load average of the machine when the benchmark began.
        foreign_cpu: Share of the machine (0 to 1) that other programs used meanwhile: above a few percent, only ratios
            mean something.
        spread: (Largest - smallest) / median of our rounds.
        notes: One line each, for people.
        details: Of our median round and of each rival's.
    """

    name: str
    unit: str
    value: float | None
    first: Comparison
    others: tuple[Comparison, ...] = ()
    load: float = 0.0
    foreign_cpu: float | None = None
    spread: float | None = None
    notes: tuple[str, ...] = ()
    details: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def ok(self) -> bool | None:
        """Whether every target that could be judged is met; None when the first one could not."""
        judged = [one.ok for one in (self.first, *self.others) if one.ok is not None]
        if not all(judged):
            return False
        return self.first.ok

    def as_json(self) -> dict[str, Any]:
        """Return the row as JSON values, first what the architecture names."""
        first = self.first.as_json()
        return {
            "name": self.name,
            "value": rounded(self.value),
            "unit": self.unit,
            "target": first["target"],
            "ok": self.ok,
            "rival": first["rival"],
            "rival_value": first["rival_value"],
            "ratio": first["ratio"],
            "others": [other.as_json() for other in self.others],
            "load": round(self.load, 2),
            "foreign_cpu": rounded(self.foreign_cpu),
            "spread": rounded(self.spread),
            "notes": list(self.notes),
            "details": self.details,
        }


def conclude(
    *,
    name: str,
    unit: str,
    ours: Sequence[Measured],
    rivals: Mapping[str, Sequence[Measured]],
    targets: Sequence[Target],
    load: float,
    foreign_cpu: float | None,
    notes: Sequence[str],
) -> Row:
    """Return the row of a benchmark whose rounds are over.

    Args:
        name: Of the benchmark.
        unit: Of its values.
        ours: Our rounds.
        rivals: Their rounds, in the same order in time; the first one is compared in the first place.
        targets: What must be met; the first one is told in the first place.
        load: Load average at the beginning.
        foreign_cpu: Share of the machine that others used.
        notes: What people should know.
    """
    own_values = [round_.value for round_ in ours]
    value = median(own_values) if own_values else None
    judged = {target.rival for target in targets}
    named = [target for target in targets if target.rival is not None]
    comparisons = [_compare(own_values, target.rival, rivals, target, unit) for target in named]
    comparisons += [_compare(own_values, rival, rivals, None, unit) for rival in rivals if rival not in judged]
    for target in targets:
        if target.rival is None:
            comparisons = _with_absolute(comparisons, target, value, unit)
    nothing = Comparison(None, None, None, None, None)
    first, *others = comparisons or [nothing]
    return Row(
        name=name,
        unit=unit,
        value=value,
        first=first,
        others=tuple(others),
        load=load,
        foreign_cpu=foreign_cpu,
        spread=spread(own_values),
        notes=tuple(notes),
        details={"ours": _typical(ours), **{rival: _typical(rounds) for rival, rounds in rivals.items()}},
    )


def _compare(
    own_values: Sequence[float],
    rival: str | None,
    rivals: Mapping[str, Sequence[Measured]],
    target: Target | None,
    unit: str,
) -> Comparison:
    values = [round_.value for round_ in rivals.get(rival or "", ())]
    ratio = paired_ratio(own_values, values)
    own = median(own_values) if own_values else None
    return Comparison(
        rival=rival,
        rival_value=median(values) if values else None,
        ratio=ratio,
        target=target.told(unit) if target else None,
        ok=target.holds(own, ratio) if target and own is not None else None,
    )


def _with_absolute(comparisons: list[Comparison], target: Target, value: float | None, unit: str) -> list[Comparison]:
    """Put a target that stands alone into the first place, beside the first rival, which is there to compare with."""
    beside = comparisons[0] if comparisons else Comparison(None, None, None, None, None)
    verdict = None if value is None else target.holds(value, None)
    told = Comparison(beside.rival, beside.rival_value, beside.ratio, target.told(unit), verdict)
    return [told, *(comparisons[1:] if beside.target is None else comparisons)]


def _typical(rounds: Sequence[Measured]) -> Mapping[str, Any]:
    """Return the details of the round in the middle."""
    ordered = sorted(rounds, key=lambda round_: round_.value)
    return ordered[len(ordered) // 2].details if ordered else {}


def rounded(value: float | None) -> float | None:
    """Return ``value`` with four digits that mean something; large values whole."""
    if value is None:
        return None
    return float(f"{value:.4g}") if abs(value) < 1000 else float(round(value))
