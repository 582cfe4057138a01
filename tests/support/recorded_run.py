"""A whole run, recorded: what it printed, what its archive holds, and what it decided."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg

from infrastructure.embedded.postgres_server import EmbeddedPostgres
from shared.trading.instruments import venue_symbol
from tests.support.command_line import Finished, run_command
from tests.support.live_run import SYMBOLS, run_to_the_end

VENUE_SYMBOLS = tuple(venue_symbol(symbol) for symbol in SYMBOLS.split(","))
#: Two and a half minutes of market time pass per second: 75 candles per symbol.
SPEED, SECONDS = 150.0, 30.0
#: What decides about an intent and what it says; the same names in the database and in ``replay --events --json``.
TERMS = (
    "client_order_id", "cause_event_id", "leg", "sequence", "symbol", "side", "order_type", "quantity", "trigger_price",
    "leverage", "arrival_price", "position_id",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Recorded:
    """A finished run: what it printed, and what it left behind."""

    finished: Finished
    candles: Path
    state_dir: Path
    market_start: str
    events: list[dict[str, Any]]
    intents: list[dict[str, Any]]

    def of(self, event_type: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["event_type"] == event_type]


async def record(state_dir: Path, candles: Path) -> Recorded:
    finished = await run_to_the_end(state_dir, candles=candles, seconds=SECONDS, speed=SPEED)
    assert finished.exit_code == 0, finished.stderr
    listed = await run_command("events", "--limit", "100000", "--json", "--state-dir", str(state_dir), cwd=state_dir)
    clock = json.loads(next((state_dir / "runs").glob("*/*clock*.json")).read_text())
    return Recorded(
        finished, candles, state_dir, clock["market"], listed.json_lines(), await intents_in_database(state_dir)
    )


async def intents_in_database(state_dir: Path) -> list[dict[str, Any]]:
    server = EmbeddedPostgres(state_dir / "postgres", durable=False)
    connection = await asyncpg.connect(await server.start())
    try:
        rows = await connection.fetch(
            f"SELECT {', '.join(TERMS)} FROM exec_risk.order_intent ORDER BY created_step, client_order_id"
        )
    finally:
        await connection.close()
        await server.stop()
    return [{name: None if row[name] is None else str(row[name]) for name in TERMS} for row in rows]
