"""The checks of ``quantum-trader doctor``: each looks at one thing and says what to do about it."""

from __future__ import annotations

import asyncio
import os
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from infrastructure.embedded.binaries import postgres_install, redis_program
from infrastructure.supervisor.environment import configured, read_environment
from infrastructure.supervisor.ports import DEFAULT_PORT_BASE, busy_ports
from infrastructure.supervisor.run_state import StateFile
from shared.clock import SystemClock
from shared.errors import QuantumTraderError
from shared.settings import ServiceSettings, load_settings

if TYPE_CHECKING:  # the command line starts fast because heavy imports wait for their command
    from services.exec_risk_service.config import ExecRiskSettings
    from services.exec_risk_service.domain.account_terms import AccountTerms

OK = "ok"
WARN = "warn"
FAIL = "fail"
_PYTHONS = ((3, 11), (3, 12))
_MEBIBYTE = 1024 * 1024
_CONNECT_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found.

    Attributes:
        check: What was looked at.
        verdict: ``ok``, ``warn`` (works, but) or ``fail`` (a run would not start).
        detail: What was found.
        advice: What to do; empty when nothing is.
    """

    check: str
    verdict: str
    detail: str
    advice: str = ""

    def as_dict(self) -> dict[str, str]:
        """Return the finding for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Machine:
    """What the checks look at.

    Attributes:
        state_dir: Folder of everything that is kept.
        environment: Environment over ``.env``.
    """

    state_dir: Path
    environment: Mapping[str, str]


def diagnose(state_dir: Path) -> list[Finding]:
    """Carry out every check, in order; a check that breaks is a finding, not a traceback.

    Raises:
        ConfigurationError: ``.env`` cannot be read.
    """
    machine = Machine(state_dir, read_environment())
    return [_carried_out(name, check, machine) for name, check in _CHECKS.items()]


def _carried_out(name: str, check: Callable[[Machine], Finding], machine: Machine) -> Finding:
    try:
        return check(machine)
    except QuantumTraderError as error:
        return Finding(name, FAIL, str(error), "correct the setting that it names")
    except Exception as error:  # noqa: BLE001 - a doctor that dies of one check tells nothing about the others
        return Finding(name, FAIL, f"{type(error).__name__}: {error}", "see the detail")


def _python(_: Machine) -> Finding:
    verdict = OK if sys.version_info[:2] in _PYTHONS else FAIL
    return Finding("python", verdict, platform.python_version(), "" if verdict == OK else "use Python 3.11 or 3.12")


def _platform(machine: Machine) -> Finding:
    detail = f"{platform.system()} {platform.machine()}"
    if (platform.system(), platform.machine()) == ("Linux", "x86_64"):
        return Finding("platform", OK, detail)
    own_servers = configured("REDIS_URL", machine.environment) and configured("POSTGRES_URL", machine.environment)
    advice = "the embedded servers are built for x86-64 Linux; set REDIS_URL and POSTGRES_URL to servers of your own"
    return Finding("platform", WARN if own_servers else FAIL, detail, advice)


def _packages(_: Machine) -> Finding:
    missing = [name for name in _needed_packages() if not _is_installed(name)]
    if missing:
        return Finding("packages", FAIL, f"missing: {', '.join(missing)}", "run: make setup")
    return Finding("packages", OK, f"quantum-trader {version('quantum-trader')} and all that it needs")


def _needed_packages() -> list[str]:
    """Return the packages of all extras but the development one."""
    lines = [line for line in requires("quantum-trader") or () if not re.search(r"extra == ['\"]dev['\"]", line)]
    return sorted({match[0] for line in lines if (match := re.match(r"[A-Za-z0-9._-]+", line))})


def _is_installed(package: str) -> bool:
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True


def _redis(machine: Machine) -> Finding:
    url = configured("REDIS_URL", machine.environment)
    if url is None:
        return Finding("redis", OK, f"embedded, {redis_program()}")
    asyncio.run(_ping_redis(url))
    return Finding("redis", OK, "the server at REDIS_URL answers")


async def _ping_redis(url: str) -> None:
    from shared.redis_connection import RedisConnection

    connection = RedisConnection(url, clock=SystemClock())
    try:
        await connection.ping()
    finally:
        await connection.stop()


def _postgres(machine: Machine) -> Finding:
    url = configured("POSTGRES_URL", machine.environment)
    if url is None:
        return Finding("postgres", OK, f"embedded, {postgres_install()}")
    return Finding("postgres", OK, f"the server at POSTGRES_URL answers: {asyncio.run(_postgres_version(url))}")


async def _postgres_version(url: str) -> str:
    import asyncpg

    connection = await asyncpg.connect(url, timeout=_CONNECT_SECONDS)
    try:
        return f"PostgreSQL {await connection.fetchval('SHOW server_version')}"
    finally:
        await connection.close()


def _ports(machine: Machine) -> Finding:
    if StateFile(machine.state_dir).read() is not None:
        return Finding("ports", OK, "in use by the system that runs from this state folder")
    busy = busy_ports(DEFAULT_PORT_BASE, machine.environment)
    if not busy:
        return Finding("ports", OK, "the ports of all processes are free")
    named = ", ".join(f"{port} ({owner})" for owner, port in busy)
    return Finding("ports", FAIL, f"busy: {named}", "end what listens there, or use quantum-trader up --port-base")


def _state_folder(machine: Machine) -> Finding:
    folder = next(
        path for path in (machine.state_dir.absolute(), *machine.state_dir.absolute().parents) if path.exists()
    )
    try:
        with tempfile.NamedTemporaryFile(dir=folder):
            pass
    except OSError as error:
        advice = "give this user the right to write there, or set QT_STATE_DIR"
        return Finding("state folder", FAIL, f"{machine.state_dir} cannot be written: {error.strerror}", advice)
    return Finding("state folder", OK, f"{machine.state_dir} can be written")


def _settings(machine: Machine) -> Finding:
    from services.ai_service.config import AiServiceSettings
    from services.analytics_os_service.config import AnalyticsSettings
    from services.exec_risk_service.config import ExecRiskSettings

    _fill_in_servers(machine)
    settings: tuple[type[ServiceSettings], ...] = (AiServiceSettings, ExecRiskSettings, AnalyticsSettings)
    for kind in settings:
        load_settings(kind)
    return Finding("settings", OK, "every setting of the three services is valid")


def _exchange(machine: Machine) -> Finding:
    from services.exec_risk_service.config import ExecRiskSettings
    from services.exec_risk_service.domain.account_terms import refusals, warnings
    from shared.settings import TradingMode

    _fill_in_servers(machine)
    settings = load_settings(ExecRiskSettings)
    mode = settings.trading_mode
    if mode is TradingMode.PAPER:
        return Finding("exchange", OK, f"paper: every order goes to {settings.exchange_url}, on this machine")
    terms = asyncio.run(_account_terms(settings))
    if found := refusals(terms):
        return Finding("exchange", FAIL, f"{mode}: {'; '.join(found)}", "correct it at the exchange")
    if found := warnings(terms):
        return Finding("exchange", WARN, f"{mode}: {'; '.join(found)}", "correct it at the exchange")
    return Finding("exchange", OK, f"{mode}: one-way mode, single-asset mode, a key that can only trade")


async def _account_terms(settings: ExecRiskSettings) -> AccountTerms:
    from services.exec_risk_service.adapters.ccxt_venue import CcxtVenue
    from shared.exchange.client import create_exchange

    client = create_exchange(
        settings.trading_mode.value,
        base_url=settings.exchange_url,
        api_key=settings.binance_api_key,
        secret=settings.binance_api_secret.get_secret_value(),
    )
    try:
        return await CcxtVenue(client, SystemClock()).account_terms()
    finally:
        await client.close()


def _fill_in_servers(machine: Machine) -> None:
    """What the supervisor tells the services itself is no question of settings."""
    for name, value in {"REDIS_URL": "redis://127.0.0.1", "POSTGRES_URL": "postgresql://127.0.0.1/x"}.items():
        if configured(name, machine.environment) is None:
            os.environ[name] = value


def _clock(_: Machine) -> Finding:
    now = SystemClock().now()
    if now.year < 2025:
        return Finding("clock", FAIL, f"the clock says {now:%Y-%m-%d}", "set the clock; signed requests carry the time")
    return Finding("clock", OK, f"{now:%Y-%m-%d %H:%M:%S} UTC")


def _disk(machine: Machine) -> Finding:
    folder = next(
        path for path in (machine.state_dir.absolute(), *machine.state_dir.absolute().parents) if path.exists()
    )
    free = shutil.disk_usage(folder).free // _MEBIBYTE
    verdict = OK if free >= 2048 else WARN if free >= 256 else FAIL
    return Finding("disk", verdict, f"{free} MiB free", "" if verdict == OK else "free at least 2 GiB")


def _memory(_: Machine) -> Finding:
    free = psutil.virtual_memory().available // _MEBIBYTE
    verdict = OK if free >= 2048 else WARN
    return Finding("memory", verdict, f"{free} MiB available", "" if verdict == OK else "a run needs about 2 GiB")


_CHECKS: Mapping[str, Callable[[Machine], Finding]] = {
    "python": _python,
    "platform": _platform,
    "packages": _packages,
    "redis": _redis,
    "postgres": _postgres,
    "ports": _ports,
    "state folder": _state_folder,
    "settings": _settings,
    "exchange": _exchange,
    "clock": _clock,
    "disk": _disk,
    "memory": _memory,
}
