"""Rows of the benchmarks: values, verdicts, and their JSON."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import pytest
from rich.console import Console

from infrastructure.bench.figures import Measured, Row, Target, conclude, rounded
from infrastructure.bench.report import notes_of, table_of


def row_of(
    ours: Sequence[float],
    rivals: Mapping[str, Sequence[float]] | None = None,
    targets: Sequence[Target] = (),
    *,
    notes: Sequence[str] = (),
    foreign_cpu: float = 0.0,
) -> Row:
    return conclude(
        name="bus_e2e_events_per_s",
        unit="events/s",
        ours=[Measured(value, {"value": value}) for value in ours],
        rivals={name: [Measured(value, {"of": name}) for value in values] for name, values in (rivals or {}).items()},
        targets=targets,
        load=1.234,
        foreign_cpu=foreign_cpu,
        notes=notes,
    )


def test_a_row_has_first_what_the_architecture_names() -> None:
    row = row_of([40_000.0, 50_000.0, 60_000.0], {"limit": [80_000.0] * 3}, [Target("at least", 0.6, "limit")])

    fields = row.as_json()

    assert list(fields)[:8] == ["name", "value", "unit", "target", "ok", "rival", "rival_value", "ratio"]
    assert fields["name"] == "bus_e2e_events_per_s"
    assert fields["value"] == 50_000.0
    assert fields["unit"] == "events/s"
    assert fields["target"] == ">= 0.6 x limit"
    assert fields["ok"] is True
    assert fields["rival"] == "limit"
    assert fields["rival_value"] == 80_000.0
    assert fields["ratio"] == 0.625
    assert fields["load"] == 1.23


@pytest.mark.parametrize(
    ("target", "ours", "rival", "ok"),
    [
        (Target("at least", 0.6, "rival"), 60.0, 100.0, True),
        (Target("at least", 0.6, "rival"), 59.0, 100.0, False),
        (Target("at most", 1.3, "rival"), 130.0, 100.0, True),
        (Target("at most", 1.3, "rival"), 131.0, 100.0, False),
        (Target("at least", 100.0), 100.0, 1.0, True),
        (Target("at least", 100.0), 99.0, 1.0, False),
        (Target("at most", 5.0), 5.0, 1.0, True),
        (Target("at most", 5.0), 5.1, 1.0, False),
    ],
)
def test_a_target_holds_up_to_its_bound(target: Target, ours: float, rival: float, ok: bool) -> None:
    row = row_of([ours], {"rival": [rival]}, [target])

    assert row.ok is ok
    assert row.first.ok is ok


def test_a_row_is_ok_only_when_every_target_is_met() -> None:
    targets = [Target("at least", 0.6, "limit"), Target("at least", 10, "slow")]

    both = row_of([60.0], {"limit": [100.0], "slow": [6.0]}, targets)
    one = row_of([60.0], {"limit": [100.0], "slow": [7.0]}, targets)

    assert both.ok is True
    assert one.ok is False
    assert one.first.ok is True
    assert [other.ok for other in one.others] == [False]


def test_a_rival_without_a_target_is_there_for_information() -> None:
    row = row_of([60.0], {"limit": [100.0], "other": [30.0]}, [Target("at least", 0.6, "limit")])

    assert row.ok is True
    assert [(other.rival, other.ratio, other.target, other.ok) for other in row.others] == [("other", 2.0, None, None)]


def test_a_target_that_stands_alone_is_told_beside_the_first_rival() -> None:
    row = row_of([4.0], {"floor": [2.0], "other": [1.0]}, [Target("at most", 5)])

    assert (row.first.target, row.first.ok, row.first.rival, row.first.ratio) == ("<= 5 events/s", True, "floor", 2.0)
    assert [other.rival for other in row.others] == ["other"]


def test_a_missing_rival_leaves_its_target_open() -> None:
    row = row_of([60.0], {}, [Target("at least", 2, "grpc.aio")], notes=["grpc.aio takes no part: not installed"])

    assert row.ok is None
    fields = row.as_json()
    assert fields["value"] == 60.0
    assert fields["rival"] == "grpc.aio"
    assert fields["rival_value"] is None
    assert fields["ratio"] is None
    assert fields["notes"] == ["grpc.aio takes no part: not installed"]


def test_a_row_that_could_not_be_measured_has_no_value() -> None:
    row = row_of([], {}, [Target("at most", 5)], notes=["quantum-trader failed: no disk"])

    assert row.as_json()["value"] is None
    assert row.ok is None


def test_details_are_those_of_the_round_in_the_middle() -> None:
    row = row_of([30.0, 10.0, 20.0], {"rival": [1.0, 2.0, 3.0]})

    assert row.details["ours"] == {"value": 20.0}
    assert row.details["rival"] == {"of": "rival"}


@pytest.mark.parametrize(
    ("value", "told"), [(None, None), (0.123456, 0.1235), (12.3456, 12.35), (123_456.7, 123_457.0), (999.96, 1000.0)]
)
def test_values_are_told_with_the_digits_that_mean_something(value: float | None, told: float | None) -> None:
    assert rounded(value) == told


def test_people_see_rows_rivals_and_verdicts() -> None:
    good = row_of([60.0], {"limit": [100.0], "other": [30.0]}, [Target("at least", 0.6, "limit")])
    failed = row_of([], {}, [Target("at most", 5)])
    console = Console(file=io.StringIO(), width=200, record=True)

    console.print(table_of([good, failed]))

    lines = console.export_text().splitlines()
    assert any("bus_e2e_events_per_s" in line and ">= 0.6 x limit" in line and "yes" in line for line in lines)
    assert any("other" in line and "30" in line for line in lines)
    assert any("failed" in line for line in lines)


def test_people_are_told_when_others_kept_the_machine_busy() -> None:
    quiet, busy = row_of([1.0], foreign_cpu=0.05), row_of([1.0], foreign_cpu=0.5, notes=["a note"])

    assert notes_of([quiet]) == []
    assert notes_of([busy]) == [
        "bus_e2e_events_per_s: a note",
        "other programs used more than 10 % of the machine during bus_e2e_events_per_s: trust the ratios",
    ]
