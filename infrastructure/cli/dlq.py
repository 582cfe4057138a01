"""``quantum-trader dlq``: the events that services could not handle, looked at, sent again, or dropped."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from infrastructure.cli import exit_codes
from infrastructure.cli.options import JsonOption, StateDirOption, state_dir_from
from infrastructure.cli.output import stdout_console, write_error, write_json, write_line

if TYPE_CHECKING:  # the command line starts fast because heavy imports wait for their command
    from shared.bus.dead_letters import DeadLetter, DeadLetterBox, Redriven

T = TypeVar("T")

dlq_app = typer.Typer(
    no_args_is_help=True,
    help="Look at dead letters, the events that services gave up on; send them again, or drop them. "
    "Uses the Redis of the running system, else REDIS_URL.",
)

ServiceOption = Annotated[str | None, typer.Option("--service", help="Only of this service; else of every one.")]
IdsArgument = Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Ids of: quantum-trader dlq list.")]
_LONGEST_ERROR = 160


@dlq_app.command("list")
def list_letters(
    *,
    service: ServiceOption = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many of each service.")] = 100,
    after: Annotated[str | None, typer.Option(metavar="ID", help="Only letters behind this one.")] = None,
    state_dir: StateDirOption = None,
    json: JsonOption = False,
) -> None:
    """List dead letters, the oldest first."""

    async def read(box: DeadLetterBox) -> tuple[dict[str, int], list[DeadLetter]]:
        services = _services(service)
        letters = [letter for name in services for letter in await box.page(name, limit=limit, after=after)]
        return await box.counts(services), letters

    counts, letters = _with_box(state_dir, read)
    summaries = [letter.summary() for letter in letters]
    if json:
        write_json({"counts": counts, "dead_letters": summaries})
    else:
        _show_list(counts, summaries)


@dlq_app.command("show")
def show(
    letter_id: Annotated[str, typer.Argument(metavar="ID", help="Id of: quantum-trader dlq list.")],
    *,
    service: ServiceOption = None,
    state_dir: StateDirOption = None,
    json: JsonOption = False,
) -> None:
    """Show one dead letter with its raw fields, printable and without secrets."""
    [letter] = _with_box(state_dir, lambda box: _found(box, service, [letter_id]))
    details = letter.details()
    if json:
        write_json(details)
        return
    for name, value in details.items():
        if name != "fields":
            write_line(f"{name:<11} {'-' if value is None else value}")
    for name, value in details["fields"].items():
        write_line(f"field {name}: {value}")


@dlq_app.command("redrive")
def redrive(
    ids: IdsArgument = None,
    *,
    every: Annotated[bool, typer.Option("--all", help="Every letter that is there now.")] = False,
    service: ServiceOption = None,
    state_dir: StateDirOption = None,
    json: JsonOption = False,
) -> None:
    """Send events again to the streams that they came from.

    Every service that listens there gets them; handlers recognise what they have seen before.
    """
    from shared.bus.dead_letters import joined

    _require_ids_or_all(ids, every=every)

    async def send(box: DeadLetterBox) -> Redriven:
        if every:
            return joined([await box.redrive_all(name) for name in _services(service)])
        return await box.redrive_each(await _found(box, service, ids or ()))

    redriven = _with_box(state_dir, send)
    if json:
        refused = [{"service": one.service, "id": one.letter_id, "why": why} for one, why in redriven.refused]
        write_json({"sent": redriven.sent, "refused": refused})
    else:
        write_line(f"sent again: {redriven.sent}")
        for letter, why in redriven.refused:
            write_error(f"{letter.letter_id} of {letter.service} stays: {why}")
    raise typer.Exit(exit_codes.ERROR if redriven.refused else exit_codes.OK)


@dlq_app.command("drop")
def drop(
    ids: IdsArgument = None,
    *,
    every: Annotated[bool, typer.Option("--all", help="Every letter that is there now; needs --yes.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Yes, all of them.")] = False,
    service: ServiceOption = None,
    state_dir: StateDirOption = None,
    json: JsonOption = False,
) -> None:
    """Remove dead letters for good."""
    _require_ids_or_all(ids, every=every)
    if every and not yes:
        raise typer.BadParameter("--all drops every dead letter for good; say --yes, too")

    async def remove(box: DeadLetterBox) -> int:
        if every:
            return sum([await box.drop_all(name) for name in _services(service)])
        letters = await _found(box, service, ids or ())
        return sum([await box.drop(letter.service, [letter.letter_id]) for letter in letters])

    dropped = _with_box(state_dir, remove)
    if json:
        write_json({"dropped": dropped})
    else:
        write_line(f"dropped: {dropped}")


def _with_box(state_dir: Path | None, work: Callable[[DeadLetterBox], Awaitable[T]]) -> T:
    from infrastructure.cli.quiet_logs import silence_logs
    from infrastructure.cli.redis_access import open_redis
    from shared.bus.dead_letters import DeadLetterBox
    from shared.clock import SystemClock

    async def run() -> T:
        silence_logs()
        async with open_redis(state_dir_from(state_dir), clock=SystemClock()) as redis:
            return await work(DeadLetterBox(redis))

    return asyncio.run(run())


async def _found(box: DeadLetterBox, service: str | None, ids: Sequence[str]) -> list[DeadLetter]:
    """Return the letters of these ids, or none of them.

    Raises:
        QuantumTraderError: One is not there, or several services have one of that id.
    """
    from shared.errors import QuantumTraderError

    letters = []
    for letter_id in dict.fromkeys(ids):
        of_each = [await box.get(name, letter_id) for name in _services(service)]
        found = [letter for letter in of_each if letter is not None]
        if not found:
            where = service or "any service"
            raise QuantumTraderError(f"there is no dead letter {letter_id} of {where}; see: quantum-trader dlq list")
        if len(found) > 1:
            names = ", ".join(letter.service for letter in found)
            raise QuantumTraderError(f"several services have a dead letter {letter_id} ({names}); say --service")
        letters += found
    return letters


def _services(service: str | None) -> Sequence[str]:
    from shared.bus.dead_letters import SERVICES

    return SERVICES if service is None else (service,)


def _require_ids_or_all(ids: Sequence[str] | None, *, every: bool) -> None:
    if every == bool(ids):
        raise typer.BadParameter("name the ids of dead letters, or say --all; not both")


def _show_list(counts: dict[str, int], summaries: Sequence[dict[str, Any]]) -> None:
    from rich.markup import escape
    from rich.table import Column, Table

    table = Table("service", Column("id", no_wrap=True), "event", "tries", Column("failed at", no_wrap=True), "error")
    for one in summaries:
        error = one["error"] if len(one["error"]) <= _LONGEST_ERROR else f"{one['error'][:_LONGEST_ERROR]}…"
        cells = (one["service"], one["id"], one["event_type"] or "-", str(one["attempts"]), one["failed_at"], error)
        table.add_row(*map(escape, cells))
    console = stdout_console()
    if summaries:
        console.print(table)
    console.print(", ".join(f"{service}: {count}" for service, count in counts.items()), soft_wrap=True)
