"""What the emergency stop does, written down on this machine before it is done: it must work without PostgreSQL."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import TypeVar

from services.exec_risk_service.domain.closing_orders import ClosingOrder
from shared.errors import ConnectionLostError
from shared.trading.orders import Side

_SCHEMA = """
CREATE TABLE IF NOT EXISTS closing_order (
    client_order_id TEXT PRIMARY KEY,
    stop_id         TEXT NOT NULL,
    symbol          TEXT NOT NULL,
    sequence        INTEGER NOT NULL,
    side            TEXT NOT NULL,
    quantity        TEXT NOT NULL,
    at              TEXT NOT NULL,
    mark_price      TEXT NOT NULL,
    is_told         INTEGER NOT NULL DEFAULT 0
)
"""

T = TypeVar("T")


class LocalJournal:
    """``StopJournal`` in one SQLite file: every order is on the disk when ``add`` returns (``synchronous=FULL``)."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None
        self._turn = asyncio.Lock()

    async def add(self, order: ClosingOrder) -> None:
        await self._run(
            lambda connection: connection.execute(
                "INSERT OR IGNORE INTO closing_order VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    order.client_order_id,
                    order.stop_id,
                    order.symbol,
                    order.sequence,
                    order.side.value,
                    str(order.quantity),
                    order.at.isoformat(),
                    str(order.mark_price),
                    order.is_told,
                ),
            )
        )

    async def mark_told(self, client_order_id: str) -> None:
        await self._run(
            lambda connection: connection.execute(
                "UPDATE closing_order SET is_told = 1 WHERE client_order_id = ?", (client_order_id,)
            )
        )

    async def orders(self, *, untold_only: bool = False) -> tuple[ClosingOrder, ...]:
        query = "SELECT * FROM closing_order ORDER BY rowid"
        found = map(_order_of, await self._run(lambda connection: connection.execute(query).fetchall()))
        return tuple(order for order in found if not (untold_only and order.is_told))

    async def close(self) -> None:
        async with self._turn:
            connection, self._connection = self._connection, None
            if connection is not None:
                await asyncio.to_thread(connection.close)

    async def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do ``work`` in a thread, in a transaction of its own.

        Raises:
            ConnectionLostError: The file cannot be used.
        """
        async with self._turn:
            try:
                return await asyncio.to_thread(self._in_transaction, work)
            except (sqlite3.Error, OSError) as error:
                raise ConnectionLostError(f"{self._path} cannot be used: {error}") from error

    def _in_transaction(self, work: Callable[[sqlite3.Connection], T]) -> T:
        if self._connection is None:
            self._connection = self._opened()
        with self._connection:
            return work(self._connection)

    def _opened(self) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(self._path, timeout=5.0, check_same_thread=False)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute(_SCHEMA)
        connection.commit()
        self._path.chmod(0o600)
        return connection


class MemoryStopJournal:
    """``StopJournal`` that is gone with the process: for replay and tests."""

    def __init__(self) -> None:
        self._orders: dict[str, ClosingOrder] = {}

    async def add(self, order: ClosingOrder) -> None:
        self._orders.setdefault(order.client_order_id, order)

    async def mark_told(self, client_order_id: str) -> None:
        self._orders[client_order_id] = replace(self._orders[client_order_id], is_told=True)

    async def orders(self, *, untold_only: bool = False) -> tuple[ClosingOrder, ...]:
        return tuple(order for order in self._orders.values() if not (untold_only and order.is_told))

    async def close(self) -> None:
        """Nothing to release."""


def _order_of(row: tuple[str, str, str, int, str, str, str, str, int]) -> ClosingOrder:
    name, stop_id, symbol, sequence, side, quantity, at, mark_price, is_told = row
    return ClosingOrder(
        client_order_id=name,
        stop_id=stop_id,
        symbol=symbol,
        sequence=sequence,
        side=Side(side),
        quantity=Decimal(quantity),
        at=datetime.fromisoformat(at),
        mark_price=Decimal(mark_price),
        is_told=bool(is_told),
    )
