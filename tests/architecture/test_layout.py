"""Names and sizes that the style asks for."""

from __future__ import annotations

import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
#: The top level is fixed by the customer.
TOP_LEVEL = {"services", "shared", "infrastructure", "tests", "docs", "Makefile", "pyproject.toml"}
ALLOWED_BESIDES = {"README.md", "LICENSE", "CHANGELOG.md", "docker-compose.v3.yml"}
VAGUE_NAMES = {"utils", "helpers", "common", "base", "manager", "misc", "util"}
LONGEST_MODULE = 600


def sources(*folders: str) -> list[Path]:
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def test_the_top_level_is_as_fixed() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    names = {line.split("/")[0] for line in listed}
    names = {name for name in names if not name.startswith(".")}

    assert names >= TOP_LEVEL
    assert names <= TOP_LEVEL | ALLOWED_BESIDES


def test_no_module_has_a_name_that_says_nothing() -> None:
    vague = [path for path in sources("shared", "services", "infrastructure", "tests") if path.stem in VAGUE_NAMES]

    assert vague == []


def test_no_module_is_too_long_to_read() -> None:
    long = [
        path
        for path in sources("shared", "services", "infrastructure")
        if len(path.read_text().splitlines()) > LONGEST_MODULE
    ]

    assert long == []


def test_every_module_says_what_it_is_for() -> None:
    silent = [
        path
        for path in sources("shared", "services", "infrastructure")
        if (text := path.read_text().lstrip()) and not text.startswith('"""')
    ]

    assert silent == []
