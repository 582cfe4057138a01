"""``quantum-trader events``: the archive, read in the order of cause and effect."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from infrastructure.cli.options import JsonOption, StateDirOption, state_dir_from


def events(
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
    from infrastructure.cli.event_listing import EventListing, list_events
    from shared.errors import InvalidInputError
    from shared.trading.instruments import venue_symbol

    try:
        market = venue_symbol(symbol.upper()) if symbol else None
    except InvalidInputError as error:
        raise typer.BadParameter(str(error)) from error
    listing = EventListing(trace_id=trace, event_type=event_type, symbol=market, limit=limit, follow=follow)
    asyncio.run(list_events(listing, state_dir=state_dir_from(state_dir), as_json=json))
