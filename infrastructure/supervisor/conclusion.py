"""The end of a timed run: no new signals, then a still market, then books that nobody writes to any more."""

from __future__ import annotations

from typing import Any

from infrastructure.supervisor.drain import StreamBooks
from infrastructure.supervisor.http_client import LocalHttp
from infrastructure.supervisor.paper_run import AI, ANALYTICS, EXEC_RISK, SERVICES, PaperRun
from infrastructure.supervisor.run_report import RunReport, ServiceRecord, run_report
from infrastructure.supervisor.supervisor import Supervisor
from shared.clock import Clock
from shared.errors import QuantumTraderError
from shared.postgres.pool import PostgresPool
from shared.redis_connection import RedisConnection

#: Longest wait for the books to come to rest, each time.
SETTLE_SECONDS = 15.0
#: Time between two looks that must be equal.
_LOOK_SECONDS = 0.5


async def conclude(run: PaperRun, supervisor: Supervisor, *, http: LocalHttp, clock: Clock) -> RunReport:
    """Bring the run to rest and measure it.

    Raises:
        QuantumTraderError: The exchange, Redis or PostgreSQL does not answer.
    """
    # As they were at work; ai-service is ended first thing below.
    statuses = {name: status for name, status in supervisor.statuses().items() if name in SERVICES}
    services = {name: ServiceRecord(status.state.value, status.restarts) for name, status in statuses.items()}
    redis = RedisConnection(run.redis_url, clock=clock)
    postgres = PostgresPool(run.postgres_url, clock=clock, max_size=1)
    try:
        await redis.start()
        await postgres.start()
        ending = _Ending(run, supervisor, connection=redis, http=http, clock=clock)
        books = await ending.come_to_rest()
        deadline = clock.monotonic() + SETTLE_SECONDS
        while True:
            report = await run_report(
                run_id=run.run_id, postgres=postgres, redis=redis, exchange_books=books, services=services
            )
            if report.invariants.hold or clock.monotonic() > deadline:
                return report
            # A last report of the exchange may still be on its way to exec-risk; what is really lost stays lost.
            await clock.sleep(_LOOK_SECONDS)
            books = await ending.books()
    finally:
        await postgres.stop()
        await redis.stop()


class _Ending:
    """Brings a run to rest, so that the exchange's books and ours can be compared."""

    def __init__(
        self, run: PaperRun, supervisor: Supervisor, *, connection: RedisConnection, http: LocalHttp, clock: Clock
    ) -> None:
        self._run = run
        self._supervisor = supervisor
        self._streams = StreamBooks(connection)
        self._http = http
        self._clock = clock

    async def come_to_rest(self) -> dict[str, Any]:
        """End ai-service, freeze the market, and return the exchange's books once they are still.

        Raises:
            QuantumTraderError: The exchange does not answer.
        """
        await self._supervisor.stop_program(AI)
        # Signals that are on their way still become orders, and orders positions, while the market moves.
        await self._until_still()
        if not await self._http.post(f"{self._run.exchange_admin_url}/admin/market/freeze"):
            raise QuantumTraderError("the paper exchange did not freeze its market, so its books cannot be compared")
        await self._until_still()
        return await self.books()

    async def _until_still(self) -> None:
        """Wait until two looks in a row find the same orders and nothing unhandled; give up after a while.

        What is not still then shows in the report: invariants that are false, dead letters, missing positions.
        """
        deadline = self._clock.monotonic() + SETTLE_SECONDS
        previous: object = None
        while self._clock.monotonic() < deadline:
            heads = await self._streams.heads()
            await self._clock.sleep(_LOOK_SECONDS)
            handled = await self._streams.has_handled(ANALYTICS, heads, every_stream=True)
            handled = handled and await self._streams.has_handled(EXEC_RISK, heads, every_stream=False)
            current = _without_prices(await self.books())
            if handled and current == previous:
                return
            previous = current

    async def books(self) -> dict[str, Any]:
        """Return all that the exchange knows of the account."""
        books = await self._http.get_json(f"{self._run.exchange_admin_url}/admin/books", timeout=10.0)
        if books is None:
            raise QuantumTraderError("the paper exchange does not show its books")
        return books


def _without_prices(books: dict[str, Any]) -> tuple[object, object, object]:
    """Return what changes by orders alone; marks and unrealised PnL move with the market."""
    return books.get("orders"), books.get("algo_orders"), books.get("fills")
