"""``quantum-trader events replay``: what lies in the streams, shown from a point on, or read again by a service."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from infrastructure.cli.options import JsonOption, StateDirOption, state_dir_from
from infrastructure.cli.output import write_json, write_json_line, write_line

if TYPE_CHECKING:  # the command line starts fast because heavy imports wait for their command
    from shared.bus.redis_streams import RedisStreamsBus
    from shared.clock import Clock
    from shared.events.envelope import Event, EventPayload

_ENTRY_ID = re.compile(r"\d{13}(-\d+)?")
_AGO = re.compile(r"(?P<number>\d+)(?P<unit>[smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
#: The services whose place in the streams can be moved.
_SERVICES = ("ai-service", "exec-risk-service", "analytics-os-service")


def replay_events(
    *,
    since: Annotated[
        str, typer.Option(metavar="WHEN", help="2026-01-31T12:00:00Z, 15m (ago; s, m, h, d), or an entry id.")
    ],
    pattern: Annotated[
        str, typer.Option("--type", metavar="PATTERN", help="Event types, for example signal.generated or position.*.")
    ] = "*",
    service: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Let this service read them again; else they are only shown."),
    ] = None,
    state_dir: StateDirOption = None,
    json: JsonOption = False,
) -> None:
    """Show the events in the streams from a point on, or let a service read them again.

    Handlers are idempotent, so what took effect does not take effect twice, and commands that are too old are refused.
    An instance that runs skips what it handled lately, the last 10,000 events; restart it first to have those again.
    Uses the Redis of the running system, else REDIS_URL.
    """
    from infrastructure.cli.quiet_logs import silence_logs
    from shared.clock import SystemClock

    if service is not None and service not in _SERVICES:
        raise typer.BadParameter(f"no service is called {service!r}; known: {', '.join(_SERVICES)}")
    silence_logs()
    clock = SystemClock()
    begin = _when(since, clock.now())
    asyncio.run(_replay(state_dir_from(state_dir), clock, begin, pattern, service, json=json))


async def _replay(
    state_dir: Path, clock: Clock, begin: datetime | str, pattern: str, service: str | None, *, json: bool
) -> None:
    from infrastructure.cli.redis_access import open_redis
    from shared.bus.redis_streams import RedisStreamsBus
    from shared.ids import RandomIds

    async with open_redis(state_dir, clock=clock) as connection:
        bus = RedisStreamsBus(
            connection, service="command-line", instance="replay", clock=clock, ids=RandomIds(), market_clock=clock
        )
        if service is None:
            await _show(bus, pattern, begin, json=json)
        else:
            await _rewind(bus, pattern, begin, service, json=json)


async def _show(bus: RedisStreamsBus, pattern: str, begin: datetime | str, *, json: bool) -> None:
    from infrastructure.cli.causation import as_json
    from infrastructure.cli.event_listing import readable
    from services.analytics_os_service.domain.archived_event import archived

    for event in await _found(bus, pattern, begin):
        if json:
            write_json_line(as_json(archived(event)))
        else:
            write_line(readable(archived(event)))


async def _rewind(bus: RedisStreamsBus, pattern: str, begin: datetime | str, service: str, *, json: bool) -> None:
    event_types = await bus.rewind(pattern, to=begin, service=service)
    count = sum([len(await _found(bus, event_type, begin)) for event_type in event_types])
    if json:
        write_json({"service": service, "events": count})
    else:
        write_line(f"{service} reads {count} events again")


async def _found(bus: RedisStreamsBus, pattern: str, begin: datetime | str) -> list[Event[EventPayload]]:
    found = [event async for event in bus.history(pattern, since=begin)]
    return sorted(found, key=lambda event: (event.metadata.timestamp, event.metadata.source, event.metadata.sequence))


def _when(text: str, now: datetime) -> datetime | str:
    """Return the moment or the entry id that ``text`` names."""
    if _ENTRY_ID.fullmatch(text):
        return text
    if ago := _AGO.fullmatch(text):
        return now - timedelta(**{_UNITS[ago["unit"]]: int(ago["number"])})
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(
            f"--since {text!r} is no time, no age like 15m, and no entry id like 1763700000000-0"
        ) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
