"""Every fault that the design answers has a test, and docs/chaos.md names one that exists."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
#: Rows of the design's table of faults; numbers that are missing there are missing here.
ROWS = {*range(1, 17), 18, 20, 21, 22, *range(24, 32), 33, *range(34, 44), 45}


def table() -> dict[int, list[str]]:
    lines = re.findall(r"^\| (\d+) \| [^|]+ \| ([^|]+) \|$", (ROOT / "docs" / "chaos.md").read_text(), re.MULTILINE)
    return {int(number): re.findall(r"`(\w+)`", tests) for number, tests in lines}


def test_every_row_names_a_test() -> None:
    assert set(table()) == ROWS
    assert all(table().values())


def test_every_named_test_exists() -> None:
    defined = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^(?:async )?def (test_\w+)", path.read_text(), re.MULTILINE)
    }

    assert {name for tests in table().values() for name in tests} <= defined
