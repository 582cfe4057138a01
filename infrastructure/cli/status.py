"""``quantum-trader status``: what runs, how it feels, where it is."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from infrastructure.cli.options import JsonOption, StateDirOption, state_dir_from
from infrastructure.cli.output import stdout_console, write_json

if TYPE_CHECKING:  # the command line starts fast because heavy imports wait for their command
    from infrastructure.supervisor.run_state import RunState


def status(*, state_dir: StateDirOption = None, json: JsonOption = False) -> None:
    """Show the running system; exit code 3 when there is none."""
    from infrastructure.supervisor.run_state import StateFile

    answer = asyncio.run(_ask(StateFile(state_dir_from(state_dir)).require()))
    if json:
        write_json(answer)
    else:
        _show(answer)


async def _ask(state: RunState) -> dict[str, Any]:
    """Return what the state file says, and how each service answers for its own health."""
    from infrastructure.supervisor.http_client import LocalHttp
    from shared.clock import SystemClock

    http = LocalHttp()
    try:
        bodies = await asyncio.gather(*(_health(http, name, state.urls) for name in state.programs))
    finally:
        await http.close()
    uptime = SystemClock().now().timestamp() - state.pid_started
    return {
        "run_id": state.run_id,
        "phase": state.phase,
        "started_at": state.started_at,
        "uptime_seconds": round(uptime, 1),
        "pid": state.pid,
        "run_dir": state.run_dir,
        "settings": state.settings,
        "versions": state.versions,
        "urls": {name: without_password(url) for name, url in state.urls.items()},
        "services": {
            name: {**entry, "url": without_password(state.urls.get(name, "")), "health": body.get("status")}
            | {key: body[key] for key in ("dependencies", "modules") if key in body}
            for (name, entry), body in zip(state.programs.items(), bodies, strict=True)
        },
    }


async def _health(http: Any, name: str, urls: Mapping[str, str]) -> Mapping[str, Any]:
    """Return the ``/health`` of a service; empty for programs that have none."""
    if not name.endswith("-service"):
        return {}
    return await http.get_json(f"{urls[name]}/health") or {"status": "DOWN"}


def without_password(url: str) -> str:
    """Return ``url`` with its password hidden; the state file, which only its owner can read, holds it."""
    password = urlsplit(url).password
    return url.replace(f":{password}@", ":***@", 1) if password else url


def _show(answer: Mapping[str, Any]) -> None:
    from rich.table import Column, Table

    settings = answer["settings"]
    table = Table(Column("process", no_wrap=True), "state", "health", "restarts", "pid", Column("url", overflow="fold"))
    for name, entry in answer["services"].items():
        cells = (entry["state"], entry["health"] or "", entry["restarts"], entry["pid"] or "", entry["url"])
        table.add_row(name, *map(str, cells))
    console = stdout_console()
    console.print(f"run {answer['run_id']} ({answer['phase']}), up for {answer['uptime_seconds']:.0f} s")
    console.print(
        f"{settings.get('trading_mode')} trading of {', '.join(settings.get('symbols', ()))} on "
        f"{settings.get('timeframe')} candles from {settings.get('candles')} at speed {settings.get('speed')}",
        soft_wrap=True,
    )
    console.print(table)
    console.print(f"logs: {answer['run_dir']}/logs", soft_wrap=True)
