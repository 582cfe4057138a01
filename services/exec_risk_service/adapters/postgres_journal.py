"""The journal in PostgreSQL: one transaction per step, guarded by the account's epoch and step number."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from types import MappingProxyType
from typing import Any

import asyncpg

from services.exec_risk_service.adapters.rows import (
    candle_of,
    candle_row,
    cash_of,
    cash_row,
    execution_of,
    execution_row,
    marks_json,
    marks_of,
    order_of,
    order_row,
    pace_json,
    pace_of,
    position_of,
    position_row,
    record_json,
    record_of,
    slippage_of,
    slippage_row,
    trading_json,
    trading_of,
)
from services.exec_risk_service.domain.book import (
    REMEMBERED_ORDERS,
    REMEMBERED_TRADES,
    Book,
    TradeMemory,
)
from services.exec_risk_service.domain.executions import Execution
from services.exec_risk_service.domain.lease import NOBODY
from services.exec_risk_service.domain.orders import Order
from services.exec_risk_service.domain.positions import Position
from services.exec_risk_service.domain.price_history import PriceHistories, PriceHistory
from services.exec_risk_service.domain.slippage import SlippageMemory
from services.exec_risk_service.domain.step import Fact, Step
from services.exec_risk_service.ports import Commit, StoredFact, taken_over
from shared.errors import ConnectionLostError, FencedError, InvalidInputError
from shared.events.registry import spec_for
from shared.postgres.pool import CONNECTION_ERRORS, PostgresPool
from shared.trading.candles import Candle

#: Handled events are remembered for this many steps: far longer than any stream delivers one again.
_INBOX_STEPS = 1_000_000
_INSERT_CANDLE = (
    "INSERT INTO exec_risk.candle (account, symbol, open_time, timeframe, open, high, low, close, volume)"
    " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)"
)
#: JSON travels as text, whatever codec the pool has.
_JSON_COLUMNS = frozenset({"plan", "exit", "marks", "trading", "protection", "body", "pace", "record"})
#: What leaves open whether something was stored; a full disk among them.
_LOST = (*CONNECTION_ERRORS, asyncpg.InsufficientResourcesError)


class _Refused(Exception):
    """Rolls the transaction back and says why."""

    def __init__(self, verdict: Commit) -> None:
        super().__init__(verdict)
        self.verdict = verdict


class PostgresJournal:
    """``OrderJournal`` over the schema ``exec_risk``."""

    def __init__(self, pool: PostgresPool, *, holder: str = NOBODY) -> None:
        """Prepare.

        Args:
            pool: Connections.
            holder: Who must hold the account's lease when it is loaded; ``NOBODY`` asks for none.
        """
        self._pool = pool
        self._holder = holder
        self._account = ""
        self._epoch = 0

    # -- loading -----------------------------------------------------------------------------------------------------

    async def load(self, account: str) -> Book:
        try:
            async with self._pool.pool.acquire() as connection, connection.transaction():
                return await self._load(connection, account)
        except _LOST as error:
            raise ConnectionLostError(f"the journal cannot be read: {error}") from error

    async def _load(self, connection: Any, account: str) -> Book:
        await connection.execute("INSERT INTO exec_risk.account (account) VALUES ($1) ON CONFLICT DO NOTHING", account)
        row = await connection.fetchrow(
            "UPDATE exec_risk.account SET epoch = epoch + 1 WHERE account = $1 AND $2 IN ('', lease_holder)"
            " RETURNING *, marks::text AS marks_text, trading::text AS trading_text,"
            " pace::text AS pace_text, record::text AS record_text",
            account,
            self._holder,
        )
        if row is None:
            raise FencedError(taken_over(account))
        await connection.execute(
            "DELETE FROM exec_risk.inbox WHERE account = $1 AND step < $2", account, row["step"] - _INBOX_STEPS
        )
        self._account, self._epoch = account, row["epoch"]
        return Book(
            account=account,
            step=row["step"],
            cash=cash_of(row),
            orders=MappingProxyType(await _load_orders(connection, account)),
            positions=MappingProxyType({p.symbol: p for p in await _load_positions(connection, account)}),
            marks=marks_of(row["marks_text"]),
            trades=MappingProxyType(await _load_trades(connection, account)),
            history=PriceHistories(await _load_history(connection, account)),
            pace=pace_of(row["pace_text"]),
            record=record_of(row["record_text"]),
            trading=trading_of(row["trading_text"]),
            executions=MappingProxyType(await _load_executions(connection, account)),
            slippage=MappingProxyType(await _load_slippage(connection, account)),
        )

    # -- storing -----------------------------------------------------------------------------------------------------

    async def commit(self, step: Step) -> Commit:
        try:
            async with self._pool.pool.acquire() as connection, connection.transaction():
                await self._store(connection, step)
        except _Refused as refused:
            return refused.verdict
        except _LOST as error:
            raise ConnectionLostError(f"step {step.number} may or may not be stored: {error}") from error
        return Commit.STORED

    async def _store(self, connection: Any, step: Step) -> None:
        await self._move_account(connection, step)
        await self._mark_handled(connection, step)
        await self._store_orders(connection, step)
        await self._store_fills(connection, step)
        for position in step.positions:
            await _upsert(connection, "position", self._account, position_row(position), key="position_id")
        for execution in step.executions:
            await _upsert(connection, "execution", self._account, execution_row(execution), key="execution_id")
        for memory in step.slippage:
            await _upsert(connection, "slippage", self._account, slippage_row(memory), key="symbol")
        for symbol, base, confirmed in step.cursors:
            cursor = {"symbol": symbol, "base": base, "confirmed": confirmed}
            await _upsert(connection, "fill_cursor", self._account, cursor, key="symbol")
        await self._store_candles(connection, step)
        await self._store_facts(connection, step)

    async def _move_account(self, connection: Any, step: Step) -> None:
        """Take the next step, if the account is still ours: who was overtaken cannot write, so cannot send."""
        columns = {
            "step": step.number,
            **cash_row(step.book.cash),
            "marks": marks_json(step.book.marks),
            "trading": trading_json(step.book.trading),
            "pace": pace_json(step.book.pace),
            "record": record_json(step.book.record),
        }
        assignments = ", ".join(f"{name} = {_placeholder(name, n)}" for n, name in enumerate(columns, start=4))
        status = await connection.execute(
            f"UPDATE exec_risk.account SET {assignments} WHERE account = $1 AND epoch = $2 AND step = $3",  # noqa: S608 - our own column names
            self._account,
            self._epoch,
            step.number - 1,
            *columns.values(),
        )
        if status != "UPDATE 1":
            raise _Refused(Commit.FENCED)

    async def _mark_handled(self, connection: Any, step: Step) -> None:
        if step.cause_event_id is None:
            return
        status = await connection.execute(
            "INSERT INTO exec_risk.inbox (account, event_id, step) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
            self._account,
            step.cause_event_id,
            step.number,
        )
        if status != "INSERT 0 1":
            raise _Refused(Commit.DUPLICATE)

    async def _store_orders(self, connection: Any, step: Step) -> None:
        for order in step.orders:
            row = order_row(order)
            if order.created_step != step.number:
                await _upsert(connection, "order_intent", self._account, row, key="client_order_id")
                continue
            try:
                await _insert(connection, "order_intent", self._account, row)
            except asyncpg.UniqueViolationError:
                raise InvalidInputError(
                    f"intent ({order.cause_event_id}, {order.leg}, {order.sequence}) exists already in {self._account}"
                ) from None

    async def _store_fills(self, connection: Any, step: Step) -> None:
        for fill in step.fills:
            status = await connection.execute(
                "INSERT INTO exec_risk.fill (account, symbol, trade_id, client_order_id, exchange_order_id, side,"
                " price, quantity, commission, realized_pnl, time, step)"
                " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) ON CONFLICT DO NOTHING",
                self._account,
                fill.symbol,
                fill.trade_id,
                fill.client_order_id,
                fill.exchange_order_id,
                fill.side.value,
                fill.price,
                fill.quantity,
                fill.commission,
                fill.realized_pnl,
                fill.time,
                step.number,
            )
            if status != "INSERT 0 1":
                raise _Refused(Commit.DUPLICATE)

    async def _store_candles(self, connection: Any, step: Step) -> None:
        """Add the new candles and let go of those that the histories let go of."""
        for symbol in sorted({candle.symbol for candle in step.candles}):
            oldest = step.book.history[symbol].candles[0]
            await connection.execute(
                "DELETE FROM exec_risk.candle"
                " WHERE account = $1 AND symbol = $2 AND (open_time < $3 OR timeframe <> $4)",
                self._account,
                symbol,
                oldest.open_time,
                oldest.timeframe,
            )
        if step.candles:
            rows = [(self._account, *candle_row(candle)) for candle in step.candles]
            await connection.executemany(_INSERT_CANDLE, rows)

    async def _store_facts(self, connection: Any, step: Step) -> None:
        rows = [
            (
                self._account,
                step.number,
                fact.event_id,
                fact.event_type,
                fact.trace_id,
                fact.causation_id,
                fact.payload.model_dump_json(),
            )
            for fact in step.facts
        ]
        await connection.executemany(
            "INSERT INTO exec_risk.outbox (account, step, event_id, event_type, trace_id, causation_id, payload)"
            " VALUES ($1, $2, $3, $4, $5, $6, $7::text::jsonb)",
            rows,
        )

    # -- outbox ------------------------------------------------------------------------------------------------------

    async def unpublished(self, limit: int) -> tuple[StoredFact, ...]:
        try:
            rows = await self._pool.pool.fetch(
                "SELECT id, event_id, event_type, trace_id, causation_id, payload::text AS payload"
                " FROM exec_risk.outbox WHERE account = $1 ORDER BY id LIMIT $2",
                self._account,
                limit,
            )
        except _LOST as error:
            raise ConnectionLostError(f"the outbox cannot be read: {error}") from error
        return tuple(StoredFact(row["id"], _fact_of(row)) for row in rows)

    async def mark_published(self, positions: Collection[int]) -> None:
        try:
            await self._pool.pool.execute("DELETE FROM exec_risk.outbox WHERE id = ANY($1::bigint[])", list(positions))
        except _LOST as error:
            raise ConnectionLostError(f"the outbox cannot be emptied: {error}") from error


async def _load_orders(connection: Any, account: str) -> dict[str, Order]:
    rows = await connection.fetch(
        "SELECT *, plan::text AS plan_text FROM exec_risk.order_intent"
        " WHERE account = $1 AND (NOT settled OR reported_filled > filled_quantity)"
        " UNION ALL (SELECT *, plan::text AS plan_text FROM exec_risk.order_intent"
        " WHERE account = $1 AND settled AND reported_filled <= filled_quantity"
        " ORDER BY created_step DESC, client_order_id DESC LIMIT $2)",
        account,
        REMEMBERED_ORDERS,
    )
    orders = [order_of({**row, "plan": row["plan_text"]}) for row in rows]
    orders.sort(key=lambda order: (order.created_step, order.client_order_id))
    return {order.client_order_id: order for order in orders}


async def _load_slippage(connection: Any, account: str) -> dict[str, SlippageMemory]:
    rows = await connection.fetch("SELECT * FROM exec_risk.slippage WHERE account = $1 ORDER BY symbol", account)
    return {row["symbol"]: slippage_of(row) for row in rows}


async def _load_executions(connection: Any, account: str) -> dict[str, Execution]:
    rows = await connection.fetch(
        "SELECT body::text AS body FROM exec_risk.execution WHERE account = $1 AND NOT done"
        " ORDER BY created_step, execution_id",
        account,
    )
    executions = [execution_of(row["body"]) for row in rows]
    return {execution.execution_id: execution for execution in executions}


async def _load_positions(connection: Any, account: str) -> Iterable[Position]:
    rows = await connection.fetch(
        "SELECT *, plan::text AS plan_text, exit::text AS exit_text, protection::text AS protection_text"
        " FROM exec_risk.position WHERE account = $1 AND closed_at IS NULL ORDER BY symbol",
        account,
    )
    return [
        position_of({**row, "plan": row["plan_text"], "exit": row["exit_text"], "protection": row["protection_text"]})
        for row in rows
    ]


async def _load_trades(connection: Any, account: str) -> dict[str, TradeMemory]:
    rows = await connection.fetch(
        "SELECT symbol, array_agg(trade_id ORDER BY step) AS recent FROM ("
        "  SELECT symbol, trade_id, step, row_number() OVER (PARTITION BY symbol ORDER BY step DESC) AS age"
        "  FROM exec_risk.fill WHERE account = $1) AS newest"
        " WHERE age <= $2 GROUP BY symbol",
        account,
        REMEMBERED_TRADES,
    )
    recent = {row["symbol"]: tuple(row["recent"]) for row in rows}
    # Every symbol with a trade has a cursor: it is stored with the first one.
    cursors = await connection.fetch("SELECT * FROM exec_risk.fill_cursor WHERE account = $1 ORDER BY symbol", account)
    return {row["symbol"]: TradeMemory(recent.get(row["symbol"], ()), row["base"], row["confirmed"]) for row in cursors}


async def _load_history(connection: Any, account: str) -> dict[str, PriceHistory]:
    rows = await connection.fetch(
        "SELECT * FROM exec_risk.candle WHERE account = $1 ORDER BY symbol, open_time", account
    )
    candles: dict[str, list[Candle]] = {}
    for row in rows:
        candles.setdefault(row["symbol"], []).append(candle_of(row))
    return {symbol: PriceHistory(tuple(found)) for symbol, found in candles.items()}


async def _insert(connection: Any, table: str, account: str, row: dict[str, Any]) -> None:
    await connection.execute(_insert_sql(table, row), account, *row.values())


async def _upsert(connection: Any, table: str, account: str, row: dict[str, Any], *, key: str) -> None:
    changes = ", ".join(f"{name} = EXCLUDED.{name}" for name in row if name != key)
    await connection.execute(
        f"{_insert_sql(table, row)} ON CONFLICT (account, {key}) DO UPDATE SET {changes}", account, *row.values()
    )


def _insert_sql(table: str, row: dict[str, Any]) -> str:
    values = ", ".join(_placeholder(name, n) for n, name in enumerate(row, start=2))
    return f"INSERT INTO exec_risk.{table} (account, {', '.join(row)}) VALUES ($1, {values})"  # noqa: S608 - our own names


def _placeholder(name: str, number: int) -> str:
    return f"${number}::text::jsonb" if name in _JSON_COLUMNS else f"${number}"


def _fact_of(row: Any) -> Fact:
    payload = spec_for(row["event_type"]).payload.model_validate_json(row["payload"])
    return Fact(row["event_type"], payload, row["event_id"], row["trace_id"], row["causation_id"])
