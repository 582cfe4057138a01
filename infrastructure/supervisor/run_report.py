"""What a timed run did: counted in the archive and the journal, measured against the exchange's books."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from types import MappingProxyType
from typing import Any

import asyncpg

from infrastructure.supervisor.invariants import (
    BookedFill,
    ExchangeBooks,
    Intent,
    Invariants,
    OurBooks,
    check_invariants,
)
from shared.errors import QuantumTraderError
from shared.events.registry import AI, ANALYTICS_OS, EXEC_RISK
from shared.events.streams import dead_letter_stream
from shared.postgres.pool import PostgresPool, postgres_errors
from shared.redis_connection import RedisConnection, redis_errors
from shared.settings import TradingMode

_SERVICES = (AI, EXEC_RISK, ANALYTICS_OS)
#: Newest trades looked through for the example.
_EXAMPLES = 500
_COUNTS = "SELECT event_type, count(*) AS count FROM analytics.events WHERE run_id = $1 GROUP BY event_type"
#: Best first: every event has its cause in the trace, and the trade is over.
_EXAMPLE = """
    SELECT opened.trace_id
    FROM (
      SELECT trace_id, max(timestamp) AS moment FROM analytics.events
      WHERE run_id = $1 AND event_type = 'position.opened' GROUP BY trace_id ORDER BY moment DESC LIMIT $2
    ) AS opened
    CROSS JOIN LATERAL (
      SELECT count(*) FILTER (WHERE event_type = 'candle.closed') AS candles,
             count(*) FILTER (WHERE event_type = 'position.closed') AS ends,
             count(*) FILTER (WHERE NOT EXISTS (
               SELECT FROM analytics.events AS cause
               WHERE cause.event_id = effect.causation_id AND cause.trace_id = effect.trace_id)) AS roots
      FROM analytics.events AS effect WHERE trace_id = opened.trace_id AND run_id = $1
    ) AS trace
    WHERE candles > 0
    ORDER BY roots, ends = 0, moment
    LIMIT 1
"""


@dataclass(frozen=True, slots=True)
class ServiceRecord:
    """How one process came through the run.

    Attributes:
        status: State of its program when the report was asked for.
        restarts: How often it was started again.
    """

    status: str
    restarts: int


@dataclass(frozen=True, slots=True)
class RunReport:
    """The run in numbers; amounts in USDT.

    Attributes:
        candles: Closed candles; likewise the other events up to ``signals``.
        intents: Orders that were decided on.
        orders_accepted: Of them, those that the exchange has in its books.
        fills: Trades that we booked.
        realised_pnl_usd: Before fees and funding.
        funding_usd: Received; below 0 when paid.
        equity_usd: Wallet plus open profit.
        dead_letters: Events that a service could not handle.
        trace_example: Trace of a trade, from its candle on; None when there was no trade.
        invariants: Verdicts with their evidence.
        services: Each service by name.
    """

    candles: int
    predictions: int
    signals: int
    intents: int
    orders_accepted: int
    fills: int
    positions_opened: int
    positions_closed: int
    realised_pnl_usd: Decimal
    fees_usd: Decimal
    funding_usd: Decimal
    equity_usd: Decimal
    dead_letters: int
    trace_example: str | None
    invariants: Invariants
    services: Mapping[str, ServiceRecord]

    @property
    def is_good(self) -> bool:
        """Whether nothing was lost: every invariant holds and every event was handled."""
        return self.invariants.hold and self.dead_letters == 0

    @property
    def complaints(self) -> list[str]:
        """What is wrong, one line each; empty for a good run."""
        false = [f"{name}: {verdict}" for name, verdict in self.invariants.by_name().items() if not verdict.holds]
        lost = [f"{self.dead_letters} events could not be handled and lie among the dead letters"]
        return false + (lost if self.dead_letters else [])

    def as_json(self) -> dict[str, Any]:
        """Return the object that ``up --for --json`` prints."""
        return {
            "candles": self.candles,
            "predictions": self.predictions,
            "signals": self.signals,
            "intents": self.intents,
            "orders_accepted": self.orders_accepted,
            "fills": self.fills,
            "positions_opened": self.positions_opened,
            "positions_closed": self.positions_closed,
            "realised_pnl_usd": float(self.realised_pnl_usd),
            "fees_usd": float(self.fees_usd),
            "funding_usd": float(self.funding_usd),
            "equity_usd": float(self.equity_usd),
            "dead_letters": self.dead_letters,
            "trace_example": self.trace_example,
            "invariants": {name: verdict.holds for name, verdict in self.invariants.by_name().items()},
            "services": {
                name: {"status": record.status, "restarts": record.restarts} for name, record in self.services.items()
            },
        }


async def run_report(
    *,
    run_id: str,
    postgres: PostgresPool,
    redis: RedisConnection,
    exchange_books: Mapping[str, Any],
    services: Mapping[str, ServiceRecord],
    mode: TradingMode = TradingMode.PAPER,
) -> RunReport:
    """Measure a run that has come to rest.

    Args:
        run_id: Name of the run.
        postgres: Connections to archive and journal, started.
        redis: The bus, connected.
        exchange_books: Answer of the exchange's ``GET /admin/books``.
        services: What the supervisor says of each service.
        mode: Mode of the run; with ``run_id`` it names the account in the journal.

    Raises:
        ConnectionLostError: PostgreSQL or Redis cannot be reached.
        QuantumTraderError: A service never made its tables, or the exchange's books cannot be read.
    """
    exchange = _read_exchange(exchange_books)
    try:
        with postgres_errors():
            ours = await read_our_books(postgres, f"{mode.value}:{run_id}")
            counts = {row["event_type"]: row["count"] for row in await postgres.pool.fetch(_COUNTS, run_id)}
            example = await postgres.pool.fetchval(_EXAMPLE, run_id, _EXAMPLES)
    except (asyncpg.UndefinedTableError, asyncpg.InvalidSchemaNameError) as error:
        raise QuantumTraderError(f"a service never made its tables, see its log: {error}") from error
    return RunReport(
        candles=counts.get("candle.closed", 0),
        predictions=counts.get("model.prediction", 0),
        signals=counts.get("signal.generated", 0),
        intents=len(ours.intents),
        orders_accepted=len(exchange.our_client_order_ids),
        fills=len(ours.fills),
        positions_opened=counts.get("position.opened", 0),
        positions_closed=counts.get("position.closed", 0),
        realised_pnl_usd=ours.realized_pnl,
        fees_usd=ours.commission,
        funding_usd=ours.funding,
        equity_usd=(exchange.wallet if ours.wallet is None else ours.wallet) + exchange.unrealized_pnl,
        dead_letters=await _dead_letters(redis),
        trace_example=example,
        invariants=check_invariants(exchange, ours),
        services=MappingProxyType(dict(services)),
    )


def _read_exchange(books: Mapping[str, Any]) -> ExchangeBooks:
    try:
        return ExchangeBooks.from_json(books)
    except (KeyError, TypeError, ArithmeticError) as error:
        raise QuantumTraderError(f"the exchange's books cannot be read: {error!r}") from error


async def _dead_letters(redis: RedisConnection) -> int:
    with redis_errors():
        return sum([int(await redis.client.xlen(dead_letter_stream(service))) for service in _SERVICES])


async def read_our_books(postgres: PostgresPool, account: str) -> OurBooks:
    """Read exec-risk's journal of ``account``, ``paper:<run id>``; empty books when it has none."""
    pool = postgres.pool
    money = await pool.fetchrow("SELECT * FROM exec_risk.account WHERE account = $1", account) or {}
    positions = await pool.fetch(
        "SELECT symbol, sum(quantity) AS quantity FROM exec_risk.position"
        " WHERE account = $1 AND closed_at IS NULL GROUP BY symbol",
        account,
    )
    intents = await pool.fetch("SELECT * FROM exec_risk.order_intent WHERE account = $1", account)
    fills = await pool.fetch("SELECT * FROM exec_risk.fill WHERE account = $1", account)
    zero = Decimal(0)
    return OurBooks(
        wallet=money.get("wallet"),
        start_wallet=money.get("start_wallet", zero),
        realized_pnl=money.get("realized_pnl", zero),
        commission=money.get("commission", zero),
        funding=money.get("funding", zero),
        adjustments=money.get("adjustments", zero),
        positions=MappingProxyType({row["symbol"]: row["quantity"] for row in positions}),
        intents=_intents(intents),
        fills=_fills(fills),
    )


def _intents(rows: Iterable[Mapping[str, Any]]) -> tuple[Intent, ...]:
    return tuple(
        Intent(
            client_order_id=row["client_order_id"],
            symbol=row["symbol"],
            cause_event_id=row["cause_event_id"],
            leg=row["leg"],
            sequence=row["sequence"],
            status=row["status"],
            filled_quantity=row["filled_quantity"],
        )
        for row in rows
    )


def _fills(rows: Iterable[Mapping[str, Any]]) -> tuple[BookedFill, ...]:
    return tuple(
        BookedFill(
            symbol=row["symbol"],
            trade_id=row["trade_id"],
            client_order_id=row["client_order_id"],
            order_id=row["exchange_order_id"],
            signed_quantity=row["quantity"] if row["side"] == "BUY" else -row["quantity"],
            price=row["price"],
            commission=row["commission"],
            realized_pnl=row["realized_pnl"],
        )
        for row in rows
    )
