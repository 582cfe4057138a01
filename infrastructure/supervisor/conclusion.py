"""The end of a timed run: no new signals, then a still market, then books that nobody writes to any more."""

from __future__ import annotations

from typing import Any

from infrastructure.supervisor.drain import StreamBooks
from infrastructure.supervisor.http_client import LocalHttp
from infrastructure.supervisor.paper_run import AI, ANALYTICS, EXEC_RISK, PaperRun
from infrastructure.supervisor.supervisor import Supervisor
from shared.clock import Clock
from shared.errors import QuantumTraderError
from shared.redis_connection import RedisConnection

#: Longest wait for the books to come to rest, each time.
SETTLE_SECONDS = 30.0
#: Time between two looks that must be equal.
_LOOK_SECONDS = 0.5


class Conclusion:
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
            raise QuantumTraderError(
                "the paper exchange did not freeze its market, so its books cannot be compared"
            )
        await self._until_still()
        return await self._books()

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
            current = _without_prices(await self._books())
            if handled and current == previous:
                return
            previous = current

    async def _books(self) -> dict[str, Any]:
        books = await self._http.get_json(f"{self._run.exchange_admin_url}/admin/books", timeout=10.0)
        if books is None:
            raise QuantumTraderError("the paper exchange does not show its books")
        return books


def _without_prices(books: dict[str, Any]) -> tuple[object, object, object]:
    """Return what changes by orders alone; marks and unrealised PnL move with the market."""
    return books.get("orders"), books.get("algo_orders"), books.get("fills")
