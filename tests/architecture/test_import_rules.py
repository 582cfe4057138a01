"""The import rules hold, and each of them can be broken: a planted violation is caught by the contract it breaks."""

from __future__ import annotations

import configparser
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("shared", "services", "infrastructure")
CONFIG = ".importlinter"

#: Section of the contract -> (file, import that breaks the contract).
VIOLATIONS = {
    "top": ("shared/ids.py", "import services.ai_service.config"),
    "services": ("services/ai_service/domain/sizing.py", "import services.exec_risk_service.domain.book"),
    "inside": ("services/exec_risk_service/domain/book.py", "import services.exec_risk_service.handlers.ledger"),
    "shared": ("shared/trading/money.py", "import shared.bus.consumer"),
    "pure": ("services/exec_risk_service/domain/sizing.py", "import time"),
    "redis": ("shared/bus/middleware.py", "import redis"),
    "ccxt": ("services/exec_risk_service/handlers/ledger.py", "import ccxt"),
    "fastapi": ("services/exec_risk_service/handlers/ledger.py", "import fastapi"),
    "opentelemetry": ("shared/telemetry/trace.py", "import opentelemetry.trace"),
}


def contracts() -> dict[str, str]:
    """Return section -> name of every contract in the configuration."""
    config = configparser.ConfigParser()
    config.read(ROOT / CONFIG)
    prefix = "importlinter:contract:"
    return {section.removeprefix(prefix): config[section]["name"] for section in config if section.startswith(prefix)}


def lint(root: Path) -> subprocess.CompletedProcess[str]:
    # The installed console script of the same environment; the copy comes first on the path.
    program = Path(sys.executable).with_name("lint-imports")
    return subprocess.run(
        [program, "--no-cache", "--config", root / CONFIG],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def status_of(contract: str, output: str) -> str:
    line = next(line for line in output.splitlines() if line.startswith(contract) and line.split(contract)[1].strip())
    return line.removeprefix(contract).split()[0]


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the packages to plant violations in."""
    root = tmp_path_factory.mktemp("copy")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, root / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / CONFIG, root / CONFIG)
    return root


def test_the_tree_keeps_every_rule() -> None:
    result = lint(ROOT)

    assert result.returncode == 0, result.stdout


def test_every_contract_has_a_violation_here() -> None:
    assert set(VIOLATIONS) == set(contracts())


@pytest.mark.parametrize("contract", sorted(VIOLATIONS))
def test_a_planted_violation_is_caught(copy: Path, contract: str) -> None:
    path, planted = VIOLATIONS[contract]
    module = copy / path
    clean = module.read_text()
    module.write_text(f"{clean}\n{planted}\n")
    try:
        result = lint(copy)
    finally:
        module.write_text(clean)

    assert status_of(contracts()[contract], result.stdout) == "BROKEN", result.stdout


def test_purity_is_checked_through_modules_in_between(copy: Path) -> None:
    """``domain`` may not reach a clock by way of a module that looks harmless."""
    between = copy / "shared" / "trading" / "harmless.py"
    domain = copy / "services" / "exec_risk_service" / "domain" / "sizing.py"
    clean = domain.read_text()
    between.write_text('"""Harmless."""\nimport shared.clock\n')
    domain.write_text(f"{clean}\nimport shared.trading.harmless\n")
    try:
        result = lint(copy)
    finally:
        between.unlink()
        domain.write_text(clean)

    assert status_of(contracts()["pure"], result.stdout) == "BROKEN", result.stdout


def test_a_new_module_of_shared_must_find_its_place_in_the_order(copy: Path) -> None:
    stranger = copy / "shared" / "stranger.py"
    stranger.write_text('"""Nobody said where it belongs."""\n')
    try:
        result = lint(copy)
    finally:
        stranger.unlink()

    assert status_of(contracts()["shared"], result.stdout) == "BROKEN", result.stdout
