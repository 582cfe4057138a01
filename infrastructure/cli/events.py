"""``quantum-trader events``: the archive, read in the order of cause and effect."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from infrastructure.cli import exit_codes
from infrastructure.cli.event_replay import replay_events
from infrastructure.cli.options import JsonOption, StateDirOption, state_dir_from

if TYPE_CHECKING:  # the command line starts fast because heavy imports wait for their command
    from infrastructure.cli.event_listing import EventListing


events_app = typer.Typer(no_args_is_help=False)


@events_app.callback(invoke_without_command=True)
def events(
    context: typer.Context,
    *,
    trace: Annotated[str | None, typer.Option(help="Only events of this trace, whole and in causal order.")] = None,
    event_type: Annotated[
        str | None, typer.Option("--type", metavar="TYPE", help="Only this type, for example signal.generated.")
    ] = None,
    symbol: Annotated[str | None, typer.Option(help="Only this market: BTC/USDT:USDT or BTCUSDT.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="At most so many; the newest ones.")] = 100,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with new events until Ctrl-C.")] = False,
    state_dir: StateDirOption = None,
    json: JsonOption = False,
) -> None:
    """Show archived events; with --json one JSON object per line.

    Reads the database of the running system, else POSTGRES_URL, else starts the embedded one for the time of the query.
    """
    if context.invoked_subcommand is not None:
        return
    from infrastructure.cli.event_listing import EventListing
    from shared.errors import InvalidInputError
    from shared.trading.instruments import venue_symbol

    try:
        market = venue_symbol(symbol.upper()) if symbol else None
    except InvalidInputError as error:
        raise typer.BadParameter(str(error)) from error
    listing = EventListing(trace_id=trace, event_type=event_type, symbol=market, limit=limit, follow=follow)
    try:
        asyncio.run(_show(listing, state_dir_from(state_dir), json=json))
    except KeyboardInterrupt:
        # The wished-for end of --follow.
        raise typer.Exit(0 if follow else exit_codes.INTERRUPTED) from None


async def _show(listing: EventListing, state_dir: Path, *, json: bool) -> None:
    from infrastructure.cli.archive_access import open_archive
    from infrastructure.cli.event_listing import show_events
    from infrastructure.cli.quiet_logs import silence_logs
    from shared.clock import SystemClock

    silence_logs()
    clock = SystemClock()
    async with open_archive(state_dir, clock=clock) as archive:
        await show_events(listing, archive, clock=clock, json=json)


events_app.command("replay")(replay_events)
