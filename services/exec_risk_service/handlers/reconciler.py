"""Our book against the exchange's: at the start, after every gap of the user stream, and every half minute.

The exchange is the truth for what exists; the journal is the truth for why. Start and crash recovery are one path.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from datetime import timedelta
from decimal import Decimal

import structlog

from services.exec_risk_service.domain.account_terms import refusals, warnings
from services.exec_risk_service.domain.inputs import (
    CancelRefused,
    PositionMarked,
    PositionObserved,
    ProvenAbsent,
    UpkeepDue,
    WalletObserved,
)
from services.exec_risk_service.domain.orders import Order
from services.exec_risk_service.domain.reports import OrderReport, VenueAccount, VenuePosition
from services.exec_risk_service.domain.trading_state import TradingCause
from services.exec_risk_service.handlers.fill_reader import FillReader
from services.exec_risk_service.handlers.ledger import Ledger
from services.exec_risk_service.handlers.order_lookup import OrderLookup
from services.exec_risk_service.ports import OUR_PREFIX, AccountView, OrderGateway, OrderRef, TradingTerms
from shared.clock import Clock
from shared.errors import ConfigurationError, ExchangeError, TransientError
from shared.trading.money import ZERO
from shared.trading.orders import OrderStatus

log = structlog.get_logger(__name__)

#: States in which an order is on the exchange's list of resting orders, or was until just now.
_LISTED = (OrderStatus.NEW, OrderStatus.PARTIALLY_FILLED, OrderStatus.TRIGGERED)
#: After this long a fill that the exchange does not list no longer keeps positions from being compared.
_FILL_LIMIT = timedelta(seconds=60)
#: A protective order or an exit without an answer for this long is not counted on any more.
_PATIENCE = timedelta(seconds=5)


class Reconciler:
    """Compares and repairs. Only the ledger changes the book; this asks the exchange and feeds it."""

    def __init__(
        self,
        ledger: Ledger,
        *,
        gateway: OrderGateway,
        view: AccountView,
        terms: TradingTerms,
        clock: Clock,
        market_clock: Clock,
        symbols: Collection[str],
        after_load: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """Prepare.

        Args:
            ledger: The single writer.
            gateway: Finds and cancels orders.
            view: Shows the account.
            terms: Instruments and position mode.
            clock: Wall clock: ages of orders.
            market_clock: Market time, for new intents.
            symbols: Venue symbols that are traded.
            after_load: Tells the book what happened while it was away, before the exchange is asked.
        """
        self._ledger = ledger
        self._gateway = gateway
        self._view = view
        self._terms = terms
        self._clock = clock
        self._market_clock = market_clock
        self._symbols = tuple(symbols)
        self._after_load = after_load or _nothing
        self._fills = FillReader(ledger, gateway, view)
        self._lookup = OrderLookup(ledger, gateway, view, self._fills, clock)
        self._suspicions: dict[str, tuple[object, object]] = {}
        self._doubted: set[str] = set()
        self._ghosts: set[str] = set()
        self._turn = asyncio.Lock()
        #: Complete comparisons with the exchange since the start.
        self.comparisons = 0
        self._has_recovered = False

    # -- start -------------------------------------------------------------------------------------------------------

    async def recover(self) -> None:
        """Bring journal and exchange together; afterwards signals may be listened to.

        Raises:
            ConfigurationError: The account or its key must not be traded with.
            TransientError: Exchange or journal cannot be reached.
        """
        async with self._turn:
            await self._recover()
        self.comparisons += 1
        # What was asked for just now and not found is not waited for: a second stop does no harm, a missing one may.
        await self.upkeep(patience=timedelta(0))
        await self._sweep_doubted()
        self._has_recovered = True
        book = self._ledger.book
        log.info("account_recovered", account=book.account, step=book.step, positions=len(book.positions))

    async def _recover(self) -> None:
        if not self._has_recovered:
            await self._refuse_unsafe_account()
        await self._ledger.load(await self._terms.instruments())
        await self._after_load()
        await self._drop_unsent()
        await self._forget_cancels()
        await self._look_up_unfinished()
        await self._compare_orders()
        for _ in range(2):  # the second look confirms what the first one only suspected
            await self._read_fills(self._symbols)
            await self._fills.read_payments()
            await self._compare_account()

    async def _refuse_unsafe_account(self) -> None:
        """At the start only: later a change of the account restricts trading, and positions are still looked after."""
        terms = await self._terms.account_terms()
        if found := refusals(terms):
            raise ConfigurationError("; ".join(found))
        for warning in warnings(terms):
            log.warning("account_terms_weak", hint=warning)

    async def _drop_unsent(self) -> None:
        """An intent that was stored but never marked as sent is not sent late: its moment has passed."""
        for order in self._ledger.book.unfinished_orders():
            if order.status is OrderStatus.INITIALIZED:
                await self._ledger.apply(ProvenAbsent(order.client_order_id, "never sent: the process ended first"))

    async def _forget_cancels(self) -> None:
        """A cancel that was decided may never have been sent: it is decided again if the order still rests."""
        for order in self._ledger.book.unfinished_orders():
            await self._ledger.apply(CancelRefused(order.client_order_id, "the process ended first"))

    async def _look_up_unfinished(self) -> None:
        for order in self._ledger.book.unfinished_orders():
            await self._lookup.look_up(order)

    # -- while running -------------------------------------------------------------------------------------------------

    async def chase(self) -> None:
        """Look up orders whose state or fills are missing."""
        async with self._turn:
            await self._lookup.chase()
        await self._sweep_doubted()

    async def sweep(self, *, after_gap: bool = False) -> None:
        """Compare everything: orders, fills, payments, positions, wallet.

        Args:
            after_gap: The user stream was interrupted: read the trades of every symbol, not only of active ones.
        """
        async with self._turn:
            await self._compare_orders()
            await self._read_fills(self._symbols if after_gap else ())
            await self._fills.read_payments()
            await self._compare_account()
        self.comparisons += 1
        await self.upkeep()
        await self._sweep_doubted()

    async def sweep_symbol(self, symbol: str) -> None:
        """The exchange contradicted what we believe of ``symbol``: compare it, now or when the present work is done."""
        self._doubted.add(symbol)
        if not self._turn.locked():
            await self._sweep_doubted()

    async def _sweep_doubted(self) -> None:
        while self._doubted:
            symbol = min(self._doubted)
            try:
                async with self._turn:
                    for _ in range(2):  # a difference counts when it is seen twice
                        await self._fills.read_fills(symbol)
                        venue = await self._view.account()
                        await self._compare_position(symbol, _position_in(venue, symbol))
            except TransientError as error:
                log.warning("doubt_remains", symbol=symbol, error=str(error))
                return  # the timer comes back to it
            self._doubted.discard(symbol)
            await self.upkeep()

    async def look_up_conditional(self, symbol: str) -> None:
        """Ask for every stop and target of ``symbol``: one of them did not do what it was there for."""
        async with self._turn:
            for order in self._ledger.book.open_orders(symbol):
                if order.order_type.is_algo:
                    await self._lookup.look_up(order)
        await self.upkeep()

    async def fetch_payments(self) -> None:
        """Read funding and transfers."""
        async with self._turn:
            await self._fills.read_payments()

    async def recognise(self, report: OrderReport) -> None:
        """Learn which of our conditional orders an unknown report may come from."""
        await self._fills.recognise(report)

    async def upkeep(self, *, patience: timedelta = _PATIENCE) -> None:
        """Protect, exit and tidy up wherever something is due.

        Args:
            patience: Protective orders and exits without an answer for this long are not counted on.
        """
        book = self._ledger.book
        symbols = set(book.positions) | {order.symbol for order in book.open_orders() if order.is_reduce_only}
        distrusted = tuple(
            order.client_order_id
            for order in book.open_orders()
            if order.is_reduce_only and self._is_silent(order, patience)
        )
        for symbol in sorted(symbols):
            await self._ledger.apply(UpkeepDue(symbol, self._market_clock.now(), distrusted))

    @property
    def suspects_something(self) -> bool:
        """A difference was seen once: the next sweep should come soon."""
        return bool(self._suspicions)

    def _is_silent(self, order: Order, patience: timedelta) -> bool:
        waiting = order.status in (OrderStatus.SUBMITTED, OrderStatus.UNKNOWN)
        return waiting and order.sent_at is not None and self._clock.now() - order.sent_at >= patience

    # -- orders --------------------------------------------------------------------------------------------------------

    async def _compare_orders(self) -> None:
        """Take over the state of resting orders; cancel those of ours that nobody remembers."""
        before = self._ledger.book
        resting = await self._view.open_orders()
        for report in resting:
            known = self._ledger.book.orders.get(report.client_order_id)
            if known is not None:
                await self._ledger.apply(report)
                if known.status.is_terminal and report.is_algo and self._is_seen_again(report.client_order_id):
                    await self._cancel_orphan(report)  # it ended for us, and rests all the same
            elif report.client_order_id.startswith(OUR_PREFIX) and not self._has_neighbour:
                await self._cancel_orphan(report)
        listed = {report.client_order_id for report in resting}
        self._ghosts &= listed
        for order in before.open_orders():
            if order.status in _LISTED and order.client_order_id not in listed:
                await self._lookup.look_up(order)

    @property
    def _has_neighbour(self) -> bool:
        """Another executor trades this account: its stops are not orphans, and protect what it holds."""
        return self._ledger.book.trading.restriction(TradingCause.FOREIGN_EXECUTOR) is not None

    def _is_seen_again(self, client_order_id: str) -> bool:
        """Tell whether an order rested at the last comparison too: a list may be older than the order's end."""
        seen = client_order_id in self._ghosts
        self._ghosts.add(client_order_id)
        return seen

    async def _cancel_orphan(self, report: OrderReport) -> None:
        log.warning("orphan_order", client_order_id=report.client_order_id, symbol=report.symbol)
        try:
            await self._gateway.cancel(OrderRef(report.symbol, report.client_order_id, is_algo=report.is_algo))
        except (ExchangeError, TransientError) as error:
            log.warning("orphan_not_cancelled", client_order_id=report.client_order_id, error=str(error))

    # -- fills and account ---------------------------------------------------------------------------------------------

    async def _read_fills(self, symbols: Collection[str]) -> None:
        """Read the trades of ``symbols`` and of every symbol with an unfinished order or a position."""
        book = self._ledger.book
        active = {order.symbol for order in book.unfinished_orders()} | set(book.positions)
        for symbol in sorted(active.union(symbols)):
            await self._fills.read_fills(symbol)

    async def _compare_account(self) -> None:
        venue = await self._view.account()
        theirs = {position.symbol for position in venue.positions}
        for symbol in sorted(theirs | self._ledger.book.positions.keys()):
            await self._compare_position(symbol, _position_in(venue, symbol))
        await self._compare_wallet(venue)
        for position in venue.positions:
            await self._take_over_terms(position)

    async def _take_over_terms(self, venue: VenuePosition) -> None:
        """Take over price, leverage, margin type and nearness of liquidation of a position that we both know."""
        held = self._ledger.book.positions.get(venue.symbol)
        if held is None or held.net.quantity != venue.quantity or venue.mark_price <= 0:
            return
        await self._ledger.apply(
            PositionMarked(
                symbol=venue.symbol,
                mark_price=venue.mark_price,
                liquidation_price=venue.liquidation_price,
                leverage=venue.leverage,
                is_isolated=venue.is_isolated,
                time=self._market_clock.now(),
            )
        )

    async def _compare_position(self, symbol: str, venue: VenuePosition | None) -> None:
        book = self._ledger.book
        held = book.positions.get(symbol)
        ours, theirs = (held.net.quantity if held else ZERO), (venue.quantity if venue else ZERO)
        if not self._differs(symbol, ours, theirs, is_quiet=self._is_quiet(symbol)):
            return
        if await self._explained((symbol,)):
            return
        mark = venue.mark_price if venue else (book.mark(symbol) or (held.entry_price if held else ZERO))
        entry = venue.entry_price if venue else ZERO
        await self._ledger.apply(PositionObserved(symbol, theirs, entry, mark, self._market_clock.now()))

    async def _compare_wallet(self, venue: VenueAccount) -> None:
        ours, theirs = self._ledger.book.cash.wallet, venue.wallet_balance
        is_first = ours is None
        if not is_first:
            if not self._differs("wallet", ours, theirs, is_quiet=self._is_quiet(None)):
                return
            await self._fills.read_payments()
            if await self._explained({*self._symbols, *self._ledger.book.positions}):
                return
        await self._ledger.apply(WalletObserved(theirs, self._market_clock.now()))

    async def _explained(self, symbols: Collection[str]) -> bool:
        """Before a difference is believed: read all trades of ``symbols`` again; tell whether anything was new."""
        before = self._ledger.book
        complete = [await self._fills.read_fills(symbol, thoroughly=True) for symbol in sorted(symbols)]
        return not all(complete) or self._ledger.book.cash != before.cash

    def _differs(self, name: str, ours: Decimal | None, theirs: Decimal, *, is_quiet: bool) -> bool:
        """Tell whether a difference is real: seen twice in a row, unchanged, while nothing was under way."""
        if ours == theirs or not is_quiet:
            self._suspicions.pop(name, None)
            return False
        seen_before = self._suspicions.pop(name, None) == (ours, theirs)
        if not seen_before:
            self._suspicions[name] = (ours, theirs)
        return seen_before

    def _is_quiet(self, symbol: str | None) -> bool:
        """Tell whether no order of ``symbol`` (None: of any) can move the position or the wallet right now."""
        return not any(
            self._can_move(order) and not self._is_overdue(order)
            for order in self._ledger.book.unfinished_orders(symbol)
        )

    def _can_move(self, order: Order) -> bool:
        waits = order.order_type.is_algo or order.rests  # for a price: a difference that stays is not its doing
        rests = waits and order.status is OrderStatus.NEW and not order.misses_fills
        return order.status is not OrderStatus.INITIALIZED and not rests

    def _is_overdue(self, order: Order) -> bool:
        """Tell whether a fill is missing for so long that the position must be looked at without it."""
        return order.misses_fills and order.sent_at is not None and self._clock.now() - order.sent_at > _FILL_LIMIT


async def _nothing() -> None:
    pass


def _position_in(venue: VenueAccount, symbol: str) -> VenuePosition | None:
    return next((position for position in venue.positions if position.symbol == symbol), None)
