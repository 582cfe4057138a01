"""``quantum-trader emergency-stop`` and ``resume``: end all exposure from a shell, and let trading go on again.

The stop asks the running service first. When nobody answers, it writes the latch file, which the service looks at
while it runs and before it does anything else when it starts: that way needs neither the service nor Redis.
"""

from __future__ import annotations

import asyncio
import getpass
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from infrastructure.cli import exit_codes
from infrastructure.cli.options import JsonOption, StateDirOption, state_dir_from
from infrastructure.cli.output import write_error, write_json, write_line

if TYPE_CHECKING:  # the command line starts fast because heavy imports wait for their command
    import httpx

EXEC_RISK = "exec-risk-service"
_DEFAULT_URL = "http://127.0.0.1:8002"
_TOKEN = "QT_API_TOKEN"  # noqa: S105 - the name of the variable
_REQUEST_SECONDS = 3.0
_POLL_SECONDS = 0.25

ReasonOption = Annotated[str, typer.Option("--reason", help="Why; stands in the record.")]


@dataclass(frozen=True, slots=True)
class Target:
    """The account that is meant.

    Attributes:
        url: Where its service answers, if it runs.
        token: Opens the control endpoints; None when none is known.
        state_dir: Folder of everything that is kept.
        mode: Trading mode.
        run_id: Life of the account.
    """

    url: str
    token: str | None
    state_dir: Path
    mode: str
    run_id: str


def emergency_stop(
    *,
    reason: ReasonOption,
    by: Annotated[str | None, typer.Option("--by", help="Who; else the user of this shell.")] = None,
    wait: Annotated[float, typer.Option("--wait", min=0, help="Seconds to wait for an account that is flat.")] = 30.0,
    state_dir: StateDirOption = None,
    json: JsonOption = False,
) -> int:
    """Cancel every order, close every position, open nothing until a person resumes.

    Exit code 0: verified flat. 3: the service does not run, the stop is latched and carried out when it starts.
    5: latched and under way, but not flat yet.
    """
    answer = asyncio.run(_stop(_target(state_dir), _one_line(reason), by or getpass.getuser(), wait))
    _tell(answer, json=json)
    return _exit_code(answer)


def resume(
    *,
    reason: ReasonOption,
    by: Annotated[str, typer.Option("--by", help="Name of the person who answers for it.")],
    state_dir: StateDirOption = None,
    json: JsonOption = False,
) -> int:
    """Let trading go on after a stop, a halt or a restriction."""
    answer = asyncio.run(_resume(_target(state_dir), _one_line(reason), by))
    if json:
        write_json(answer)
    else:
        write_line(f"trading is {answer['state']}: {answer['reason']}")
    return exit_codes.OK


# -- who is meant ------------------------------------------------------------------------------------------------------


def _target(option: Path | None) -> Target:
    from infrastructure.supervisor.environment import configured, read_environment
    from infrastructure.supervisor.run_state import StateFile

    environment, state_dir = read_environment(), state_dir_from(option)
    token, state = configured(_TOKEN, environment), StateFile(state_dir).read()
    if state is None:
        return Target(
            url=environment.get("QT_EXEC_RISK_URL", _DEFAULT_URL),
            token=token,
            state_dir=state_dir,
            mode=environment.get("TRADING_MODE", "paper"),
            run_id=environment.get("QT_RUN_ID", "live"),
        )
    return Target(
        url=state.urls[EXEC_RISK],
        token=token or _token_of_run(Path(state.run_dir)),
        state_dir=state_dir,
        mode=str(state.settings.get("trading_mode", "paper")),
        run_id=state.run_id,
    )


def _token_of_run(run_dir: Path) -> str | None:
    try:
        return (run_dir / "api_token").read_text(encoding="ascii").strip()
    except OSError:
        return None


def _one_line(reason: str) -> str:
    text = " ".join(reason.split())
    if len(text) < 3:
        raise typer.BadParameter("--reason must say why, in one line of at least 3 characters")
    return text[:500]


# -- stop --------------------------------------------------------------------------------------------------------------


async def _stop(target: Target, reason: str, by: str, wait: float) -> dict[str, Any]:
    import httpx

    async with httpx.AsyncClient(base_url=target.url, timeout=_REQUEST_SECONDS, trust_env=False) as client:
        asked, why_not = await _asked(client, target, reason, by)
        way = "service" if asked else "latch file"
        path = None if asked else _latch(target, reason, by)
        progress = await _progress_within(client, wait)
    latched = {"way": way, "latch_file": None if path is None else str(path), "service_did_not_take_it": why_not}
    return {**latched, "runs": progress is not None, **(progress or {"status": "latched"})}


async def _asked(client: httpx.AsyncClient, target: Target, reason: str, by: str) -> tuple[bool, str | None]:
    """Ask the service; return whether it took the stop, and why not."""
    import httpx

    headers = {} if target.token is None else {"Authorization": f"Bearer {target.token}"}
    try:
        body = {"reason": reason, "requested_by": by}
        answer = await client.post("/api/v1/emergency-stop", json=body, headers=headers)
    except httpx.HTTPError as error:
        return False, f"{target.url} does not answer ({type(error).__name__})"
    return answer.is_success, None if answer.is_success else f"HTTP {answer.status_code}: {_detail(answer)}"


def _latch(target: Target, reason: str, by: str) -> Path:
    """Write the latch file.

    Raises:
        QuantumTraderError: It cannot be written, so that nothing was stopped.
    """
    from services.exec_risk_service.adapters.stop_latch import latch_path, write_latch
    from services.exec_risk_service.ports import LatchedStop
    from shared.clock import SystemClock
    from shared.errors import QuantumTraderError
    from shared.ids import RandomIds

    path = latch_path(target.state_dir, target.mode, target.run_id)
    try:
        if not path.exists():  # a stop that is latched already is joined
            write_latch(path, LatchedStop(RandomIds().new(), reason, by, SystemClock().now()))
    except OSError as error:
        raise QuantumTraderError(
            f"NOTHING WAS STOPPED: the service did not answer and {path} cannot be written ({error.strerror})"
        ) from error
    return path


async def _progress_within(client: httpx.AsyncClient, seconds: float) -> dict[str, Any] | None:
    """Follow the stop until it is done or ``seconds`` are over; None when no service tells of it."""
    from shared.clock import SystemClock

    clock = SystemClock()
    end, progress = clock.monotonic() + seconds, None
    while True:
        found = await _progress(client)
        progress = found or progress
        away = found is None
        if (progress or {}).get("status") == "stopped" or clock.monotonic() >= end or (away and progress is None):
            return progress
        await clock.sleep(_POLL_SECONDS)


async def _progress(client: httpx.AsyncClient) -> dict[str, Any] | None:
    import httpx

    try:
        stop = (await client.get("/api/v1/trading-state")).json()["emergency_stop"]
    except (httpx.HTTPError, ValueError, KeyError, TypeError):
        return None
    return dict(stop)


def _tell(answer: dict[str, Any], *, json: bool) -> None:
    if json:
        write_json(answer)
        return
    if answer["way"] == "service":
        write_line("the running service took the stop")
    else:
        write_error(f"the service did not take the stop ({answer['service_did_not_take_it']})")
        write_line(f"the stop is latched in {answer['latch_file']}")
    if answer["runs"]:
        write_line(str(answer["message"]))
    else:
        write_line("no service runs that would carry it out: it is the first thing that the next start does")


def _exit_code(answer: dict[str, Any]) -> int:
    if not answer["runs"]:
        return exit_codes.NOT_RUNNING
    return exit_codes.OK if answer["status"] == "stopped" else exit_codes.TIMEOUT


# -- resume ------------------------------------------------------------------------------------------------------------


async def _resume(target: Target, reason: str, by: str) -> dict[str, Any]:
    import httpx

    from shared.errors import ConfigurationError, NotRunningError, QuantumTraderError

    if target.token is None:
        raise ConfigurationError(f"a resume needs the token of the service: set {_TOKEN} or {_TOKEN}_FILE")
    async with httpx.AsyncClient(base_url=target.url, timeout=10.0, trust_env=False) as client:
        try:
            headers = {"Authorization": f"Bearer {target.token}"}
            answer = await client.post("/api/v1/resume", json={"reason": reason, "by": by}, headers=headers)
        except httpx.HTTPError as error:
            raise NotRunningError(
                f"{target.url} does not answer ({type(error).__name__}); a resume needs the running service"
            ) from error
    if not answer.is_success:
        raise QuantumTraderError(f"trading was not resumed: {_detail(answer)}")
    return dict(answer.json())


def _detail(answer: httpx.Response) -> str:
    try:
        detail = answer.json()["detail"]
    except (ValueError, KeyError, TypeError):
        return answer.text[:200]
    if isinstance(detail, list):
        return "; ".join(f"{'.'.join(map(str, one.get('loc', ())))}: {one.get('msg')}" for one in detail)
    return str(detail)
