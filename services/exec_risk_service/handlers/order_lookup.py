"""Orders whose fate is in doubt: asked for again and again until the exchange shows them or their absence is proven."""

from __future__ import annotations

from datetime import timedelta

import structlog

from services.exec_risk_service.domain.inputs import AnswerLost, ProvenAbsent
from services.exec_risk_service.domain.orders import Order
from services.exec_risk_service.handlers.fill_reader import FillReader
from services.exec_risk_service.handlers.ledger import Ledger
from services.exec_risk_service.ports import AccountView, OrderGateway, ref_of
from shared.backoff import Backoff
from shared.clock import Clock
from shared.errors import TransientError
from shared.trading.money import ZERO
from shared.trading.orders import OrderStatus

log = structlog.get_logger(__name__)

#: Binance showed orders up to 20 s late: "not found" proves something only after this long and this often.
_PROTECTION = timedelta(seconds=30)
_LEAST_MISSES = 4
#: Until then the request may still be executed, so "not found" says nothing at all: as in ``RECV_WINDOW_MS``.
_RECV_WINDOW = timedelta(seconds=3)
#: An answer that did not come in this time does not come: the client's own limit is 10 s.
_ANSWER_LIMIT = timedelta(seconds=15)
#: Longest life of a market order.
_MARKET_ORDER_LIMIT = timedelta(seconds=2)
#: The user stream usually brings the fills of an answer in this time.
_FILL_PATIENCE_SECONDS = 1.0
#: From this many reads on, trades that were read before are read again.
_THOROUGH_AFTER = 3


class OrderLookup:
    """Chases the orders of the ledger that miss a state or a fill."""

    def __init__(
        self, ledger: Ledger, gateway: OrderGateway, view: AccountView, fills: FillReader, clock: Clock
    ) -> None:
        self._ledger = ledger
        self._gateway = gateway
        self._view = view
        self._fills = fills
        self._clock = clock
        self._backoff = Backoff(base_seconds=0.5, factor=2.0, cap_seconds=8.0)
        self._misses: dict[str, int] = {}
        self._reads: dict[str, int] = {}
        self._next_try: dict[str, float] = {}
        self._seen_at: dict[str, float] = {}
        self._began = clock.now()

    async def chase(self) -> None:
        """Look up what is due. Orders that the exchange cannot be asked about wait for the next call."""
        unfinished = self._ledger.book.unfinished_orders()
        self._forget_all_but({order.client_order_id for order in unfinished})
        for order in unfinished:
            self._seen_at.setdefault(order.client_order_id, self._clock.monotonic())
            try:
                if self._is_in_doubt(order):
                    await self._when_due(order)
                elif order.misses_fills:
                    await self._read_missing_fills(order)
            except TransientError as error:
                log.warning("order_lookup_failed", client_order_id=order.client_order_id, error=str(error))

    async def look_up(self, order: Order) -> bool:
        """Ask for one order now; return whether the exchange knows it.

        Raises:
            TransientError: The exchange could not be asked: nothing is known.
        """
        report = await self._gateway.find_order(ref_of(order))
        if report is not None:
            self._misses.pop(order.client_order_id, None)
            self._next_try.pop(order.client_order_id, None)
            await self._ledger.apply(report)
            return True
        if order.status is OrderStatus.SUBMITTED:
            await self._ledger.apply(AnswerLost(order.client_order_id, "no answer, and not found on the exchange"))
        return False

    def _is_in_doubt(self, order: Order) -> bool:
        if order.status.is_terminal:
            return False
        if order.status is OrderStatus.UNKNOWN:
            return True
        if order.status is OrderStatus.SUBMITTED:
            return self._age(order) > _ANSWER_LIMIT
        # A market order never rests: one that is still open has reports that did not reach us.
        accepted = order.status is not OrderStatus.INITIALIZED and not order.misses_fills
        return accepted and not order.order_type.is_algo and not order.rests and self._age(order) > _MARKET_ORDER_LIMIT

    async def _when_due(self, order: Order) -> None:
        name = order.client_order_id
        if self._clock.monotonic() < self._next_try.setdefault(name, self._clock.monotonic() + 0.5):
            return
        misses = self._misses.get(name, 0) + 1
        self._next_try[name] = self._clock.monotonic() + self._backoff.delay(misses)
        may_prove_absence = self._age(order) > _RECV_WINDOW
        if await self.look_up(order) or not may_prove_absence:
            return
        self._misses[name] = misses
        if misses >= _LEAST_MISSES and self._age(order) >= _PROTECTION and await self._left_no_trace(order):
            log.warning("order_absent", client_order_id=name, misses=misses, age_seconds=self._age(order).seconds)
            await self._ledger.apply(ProvenAbsent(name, f"not on the exchange after {misses} look-ups"))

    async def _left_no_trace(self, order: Order) -> bool:
        """No trade that could be its, and a position that is what it was without it."""
        if not await self._fills.read_fills(order.symbol):
            return False
        account = await self._view.account()
        theirs = next((p.quantity for p in account.positions if p.symbol == order.symbol), ZERO)
        position = self._ledger.book.positions.get(order.symbol)
        return theirs == (position.net.quantity if position else ZERO)

    async def _read_missing_fills(self, order: Order) -> None:
        name, now = order.client_order_id, self._clock.monotonic()
        if now < self._next_try.setdefault(name, now + _FILL_PATIENCE_SECONDS):
            return
        reads = self._reads[name] = self._reads.get(name, 0) + 1
        self._next_try[name] = now + self._backoff.delay(reads)
        await self._fills.read_fills(order.symbol, thoroughly=reads >= _THOROUGH_AFTER)

    def _age(self, order: Order) -> timedelta:
        """Return the time since it was sent; a wall clock that jumps ahead makes no order of this life older."""
        if order.sent_at is None:
            return timedelta(0)
        age = self._clock.now() - order.sent_at
        if order.sent_at < self._began:
            return age
        seen_at = self._seen_at.get(order.client_order_id, self._clock.monotonic())
        return min(age, timedelta(seconds=self._clock.monotonic() - seen_at))

    def _forget_all_but(self, names: set[str]) -> None:
        for memory in (self._misses, self._reads, self._next_try, self._seen_at):
            for name in [name for name in memory if name not in names]:
                del memory[name]
