"""The emergency stop: latched before anything else, pursued until the exchange shows neither position nor order.

It needs the exchange and a disk. The journal in PostgreSQL, Redis and the lease make it better told, not possible:
what it sends is written into a local file first, and told to the account's journal as soon as that answers. Every
order of the account goes, strangers' and conditional ones too; what protects a position goes last, when there is
nothing left to protect.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from types import MappingProxyType

import structlog

from services.exec_risk_service.domain.closing_orders import ClosingOrder, closing_order
from services.exec_risk_service.domain.inputs import (
    AnswerLost,
    ClosingOrderNoted,
    Input,
    ProvenAbsent,
    SendRefused,
    StopReported,
    StopRequested,
    TradingResumed,
)
from services.exec_risk_service.domain.orders import Leg, Order
from services.exec_risk_service.domain.reports import OrderReport, VenuePosition
from services.exec_risk_service.domain.trading_state import TradingState
from services.exec_risk_service.handlers.ledger import Ledger
from services.exec_risk_service.handlers.stop_progress import StopProgress
from services.exec_risk_service.ports import (
    AccountView,
    LatchedStop,
    OrderGateway,
    OrderRef,
    StopJournal,
    StopLatch,
    TradingTerms,
    ref_of,
)
from shared.backoff import Backoff
from shared.clock import Clock
from shared.errors import (
    ConnectionLostError,
    ExchangeError,
    InvalidInputError,
    OrderRejectedError,
    QuantumTraderError,
    TransientError,
)
from shared.exchange.request_costs import urgently
from shared.ids import IdSource
from shared.rpc.commands import EmergencyStopRequest, EmergencyStopResult
from shared.trading.instruments import Instrument
from shared.trading.money import ZERO
from shared.trading.orders import OrderStatus, Side

log = structlog.get_logger(__name__)

#: Wall time between two looks at the latch file: a file that is touched stops trading within a second.
LATCH_LOOK_SECONDS = 0.25
#: The account is flat when two looks so far apart show it: the exchange's lists lag a little.
_CONFIRM_SECONDS = 1.0
#: Once flat, the account is looked at so often while the stop is in force: an order may fill late.
_WATCH_SECONDS = 20.0
#: An order that the exchange does not show this long after it was sent never got there.
_PROTECTION = timedelta(seconds=30)
#: Longest wait for the account's journal before an order goes out; the local file has it already.
_NOTE_SECONDS = 0.5
#: Passes of a stop that nothing runs in the background: replay and tests.
_INLINE_PASSES = 8
#: How long a caller waits for the account to be flat.
_ANSWER_SECONDS = 3.0
#: Passes in quick succession while things give way.
_QUICK_PASSES = 5
_IN_FLIGHT = (OrderStatus.SUBMITTED, OrderStatus.UNKNOWN)


@dataclass(slots=True)
class _Work:
    """What one stop has done and seen in this process."""

    stop: LatchedStop
    is_flat: bool = False
    clean_since: float | None = None
    cancelled: set[str] = field(default_factory=set)
    closing: set[str] = field(default_factory=set)
    sequences: Counter[str] = field(default_factory=Counter)
    orders_left: int = 0
    positions_left: int = 0
    in_flight: int = 0
    trouble: str = ""
    told: StopReported | None = None
    failures: int = 0
    moves: int = 0
    next_pass: float = 0.0
    is_latched_on_disk: bool = False
    held: frozenset[tuple[str, object]] = frozenset()


class EmergencyStop:
    """Holds the latch and does the work.

    Attributes:
        name: Component name.
    """

    name = "emergency-stop"

    def __init__(
        self,
        ledger: Ledger,
        *,
        gateway: OrderGateway,
        view: AccountView,
        terms: TradingTerms,
        latch: StopLatch,
        journal: StopJournal,
        clock: Clock,
        market_clock: Clock,
        ids: IdSource,
    ) -> None:
        """Prepare.

        Args:
            ledger: The single writer; it may be away.
            gateway: Cancels and closes.
            view: Shows what is left.
            terms: Tells how large a market order may be.
            latch: Holds the stop on this machine.
            journal: What is sent, written down before.
            clock: Wall clock.
            market_clock: Market time.
            ids: Names stops.
        """
        self._ledger = ledger
        self._gateway = gateway
        self._view = view
        self._terms = terms
        self._latch = latch
        self._journal = journal
        self._clock = clock
        self._market_clock = market_clock
        self._ids = ids
        self._work: _Work | None = None
        self._instruments: Mapping[str, Instrument] = MappingProxyType({})
        self._started_at = clock.now()
        self._pass = asyncio.Lock()
        self._runs = False
        self._backoff = Backoff(base_seconds=0.2, factor=2.0, cap_seconds=5.0)

    # -- what others ask -----------------------------------------------------------------------------------------------

    def bar(self) -> str | None:
        """Return why no entry may be sent; None while no stop is in force."""
        work = self._work
        return None if work is None else f"the emergency stop is in force: {work.stop.reason}"

    @property
    def progress(self) -> StopProgress:
        """How far the stop is."""
        work = self._work
        if work is None:
            return StopProgress("none", message="no emergency stop is in force")
        return StopProgress(
            status="stopped" if work.is_flat else "in_progress",
            stop_id=work.stop.stop_id,
            reason=work.stop.reason,
            requested_by=work.stop.requested_by,
            orders_cancelled=len(work.cancelled),
            positions_closed=len(work.closing) if work.is_flat else max(0, len(work.closing) - work.positions_left),
            orders_left=work.orders_left,
            positions_left=work.positions_left,
            message=_message(work),
        )

    async def request(self, reason: str, requested_by: str) -> StopProgress:
        """Stop now; a stop that is in force is joined. Returns as soon as the stop is latched."""
        if self._work is None:
            await self._take(LatchedStop(self._ids.new(), reason, requested_by, self._clock.now()))
        else:
            log.warning("emergency_stop_joined", reason=reason, requested_by=requested_by)
            self._work.next_pass = self._clock.monotonic()
        return self.progress

    async def settled(self, seconds: float) -> StopProgress:
        """Wait until the account is verified flat, but not longer than ``seconds``."""
        end = self._clock.monotonic() + seconds
        while self._work is not None and not self._work.is_flat and self._clock.monotonic() < end:
            await self._clock.sleep(0.05)
        return self.progress

    async def resume(self, reason: str, by: str) -> None:
        """Let trading go on; a person says so.

        Raises:
            InvalidInputError: There is nothing to resume, or the stop has not done its work yet.
            ConnectionLostError: The account's journal or the latch cannot be changed; nothing was resumed.
        """
        async with self._pass:
            work, trading = self._work, self._ledger.book.trading
            if work is None and trading.state is TradingState.ACTIVE:
                raise InvalidInputError("trading is ACTIVE: there is nothing to resume")
            if work is not None:
                if not work.is_flat:
                    raise InvalidInputError(f"the emergency stop is not done: {_message(work)}; resume when it is")
                await self._tell_ledger_of(work)
            await self._ledger.apply(TradingResumed(reason, by))
            await self._latch.clear()
            self._work = None
        log.warning("trading_resumed", reason=reason, by=by)

    async def answer(self, request: EmergencyStopRequest) -> EmergencyStopResult:
        """RPC ``emergency_stop``: stop, and wait a moment for the account to be flat.

        Raises:
            InvalidInputError: Half a stop is asked for.
        """
        if not (request.close_all_positions and request.cancel_all_orders):
            raise InvalidInputError("the emergency stop is whole: it cancels every order and closes every position")
        await self.request(request.reason, request.requested_by)
        done = await self.settled(_ANSWER_SECONDS)
        return EmergencyStopResult(
            status="stopped" if done.status == "stopped" else "in_progress",
            orders_cancelled=done.orders_cancelled,
            positions_closed=done.positions_closed,
            positions_left=done.positions_left,
            message=done.message,
        )

    # -- life ----------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Look whether an earlier life left a stop; before anything else may run."""
        self._runs = True
        await self._look_at_latch()

    async def stop(self) -> None:
        """Let go of the file; a stop that is in force stays latched."""
        await self._journal.close()

    async def tick(self) -> None:
        """Look at the latch, and work on the stop when it is time."""
        await self._look_at_latch()
        stop = self._ledger.book.trading.stop
        if self._work is None and stop is not None:
            # Stored, but the request to carry it out was lost: a commit without an answer, a recovery cut short.
            await self._take(LatchedStop(stop.stop_id, stop.reason, stop.requested_by, stop.since))
        work = self._work
        if work is None:
            return
        # Only what is new is worth a look out of turn: while the journal is away the book keeps what is gone.
        if work.is_flat and self._held() - work.held:
            work.next_pass = self._clock.monotonic()
        if self._clock.monotonic() >= work.next_pass:
            await self.pursue()

    async def after_recovery(self) -> None:
        """Bring latch and journal together, whichever knows more."""
        await self._look_at_latch()
        work, trading = self._work, self._ledger.book.trading
        if work is not None and work.stop.stop_id == trading.ended_stop:
            # A person resumed, and the process ended before the file was gone.
            await self._latch.clear()
            self._work = work = None
        if work is None and trading.stop is not None:
            stop = trading.stop
            await self._take(LatchedStop(stop.stop_id, stop.reason, stop.requested_by, stop.since))
        elif work is not None:
            await self._tell_ledger_of(work)

    async def note_untold(self) -> None:
        """Tell the account's journal of orders that were sent while it was away, before their fills are read."""
        try:
            untold = await self._journal.orders(untold_only=True)
        except ConnectionLostError as error:
            log.critical("local_journal_not_read", error=str(error))
            return  # their fills are booked all the same, as a stranger's
        for order in untold:
            await self._note(order)

    async def obey(self, stop_id: str) -> None:
        """Carry out a stop that the ledger has stored."""
        stop = self._ledger.book.trading.stop
        if stop is None or stop.stop_id != stop_id:
            return
        if self._work is None:
            await self._take(LatchedStop(stop.stop_id, stop.reason, stop.requested_by, stop.since))
        if not self._runs and not self._pass.locked():
            for _ in range(_INLINE_PASSES):
                if await self.pursue():
                    return

    async def _look_at_latch(self) -> None:
        if self._work is None:
            stop = await self._latch.read()
            if stop is not None and self._work is None:
                await self._take(stop)

    async def _take(self, stop: LatchedStop) -> None:
        """Make ``stop`` the one in force: from here on no entry leaves this process."""
        work = self._work = _Work(stop, next_pass=self._clock.monotonic())
        log.critical("emergency_stop", stop_id=stop.stop_id, reason=stop.reason, requested_by=stop.requested_by)
        await self._latch_on_disk(work)

    async def _latch_on_disk(self, work: _Work) -> None:
        try:
            await self._latch.write(work.stop)
            work.is_latched_on_disk = True
        except ConnectionLostError as error:
            # The stop goes on without it; the journal in PostgreSQL latches it as well.
            log.critical("emergency_stop_not_latched_on_disk", error=str(error))

    def _held(self) -> frozenset[tuple[str, object]]:
        """Return what the book says is, or may become, a position."""
        book = self._ledger.book
        in_flight = {(order.client_order_id, "") for order in book.open_orders() if _is_in_flight(order)}
        return frozenset(in_flight | {(symbol, one.net.quantity) for symbol, one in book.positions.items()})

    # -- the work ------------------------------------------------------------------------------------------------------

    async def pursue(self) -> bool:
        """Do one pass: look, cancel, close, look again. Returns whether the account is verified flat."""
        async with self._pass:
            work = self._work
            if work is None:
                return True
            if not work.is_latched_on_disk:
                await self._latch_on_disk(work)
            work.held = self._held()
            try:
                with urgently():
                    moved = await self._one_pass(work)
                work.failures, work.trouble = 0 if moved else work.failures, ""
            except Exception as error:  # noqa: BLE001 - whatever it is, the stop goes on, and not in a spin
                moved = False
                work.trouble, work.clean_since = str(error) or type(error).__name__, None
                log.error("emergency_stop_hindered", error=str(error), failures=work.failures + 1)
            self._plan_next(work, moved=moved)
            await self._report(work)
            return work.is_flat

    def _plan_next(self, work: _Work, *, moved: bool) -> None:
        if work.is_flat:
            work.moves = 0
            pause = _WATCH_SECONDS
        elif work.clean_since is not None:
            pause = _CONFIRM_SECONDS
        elif moved:
            # Closes that are taken and close nothing must not use up the minute's weight: a ban would stop the stop.
            work.moves += 1
            pause = 0.1 if work.moves <= _QUICK_PASSES else self._backoff.delay(work.moves - _QUICK_PASSES)
        else:
            work.failures += 1
            pause = self._backoff.delay(work.failures)
        work.next_pass = self._clock.monotonic() + pause

    async def _one_pass(self, work: _Work) -> bool:
        """Cancel and close what there is; return whether anything was there and gave way."""
        troubles: list[Exception] = []
        resting: tuple[OrderReport, ...] = ()
        try:
            resting = await self._view.open_orders()
            work.orders_left = len(resting)
        except Exception as error:  # noqa: BLE001 - a list that cannot be read keeps no position open
            troubles.append(error)
        positions = (await self._view.account()).positions
        work.positions_left = len(positions)
        if resting or positions:  # whatever fails below: it is not flat
            work.clean_since, work.is_flat = None, False
        held = {position.symbol: position for position in positions}
        gave_way = False
        for report in resting:
            if not _protects(report, held):
                gave_way |= await self._cancel(work, report)
        for position in positions:
            try:
                gave_way |= await self._close(work, position)
            except Exception as error:  # noqa: BLE001 - the other positions are closed all the same
                troubles.append(error)
        if troubles:
            raise troubles[0]
        work.in_flight = 0 if resting or positions else await self._in_flight()
        self._judge(work, is_clean=not resting and not positions and work.in_flight == 0)
        return gave_way

    def _judge(self, work: _Work, *, is_clean: bool) -> None:
        """Believe that the account is flat when two looks in a row show it."""
        now = self._clock.monotonic()
        if not is_clean:
            work.clean_since, work.is_flat = None, False
        elif work.clean_since is None:
            work.clean_since = now
        elif now - work.clean_since >= _CONFIRM_SECONDS or not self._runs:
            work.is_flat = True

    async def _cancel(self, work: _Work, report: OrderReport) -> bool:
        """Cancel one order, whoever's it is; the next look tells whether it is gone."""
        ref = OrderRef(report.symbol, report.client_order_id, report.exchange_order_id, is_algo=report.is_algo)
        try:
            answer = await self._gateway.cancel(ref)
        except (ExchangeError, TransientError) as error:
            log.warning("emergency_cancel_not_confirmed", client_order_id=report.client_order_id, error=str(error))
            return False
        work.cancelled.add(report.client_order_id or report.exchange_order_id)
        if answer.client_order_id in self._ledger.book.orders:
            await self._tell(answer)
        return True

    async def _close(self, work: _Work, position: VenuePosition) -> bool:
        """Send what takes ``position`` off the account; as many orders as the largest market order asks for."""
        accepted = False
        left = abs(position.quantity)
        sign = 1 if position.quantity > 0 else -1
        largest = await self._largest_order(position.symbol)
        while left > 0:
            part = left if largest is None else min(left, largest)
            left -= part
            order = await self._written_down(work, position, part * sign)
            accepted |= await self._send(order)
        work.closing.add(position.symbol)
        return accepted

    async def _written_down(self, work: _Work, position: VenuePosition, quantity: Decimal) -> ClosingOrder:
        """Name the next closing order of the symbol and put it on the disk; a full disk does not keep it back."""
        if not work.sequences[position.symbol]:
            work.sequences[position.symbol] = await self._last_sequence(work.stop.stop_id, position.symbol)
        work.sequences[position.symbol] += 1
        order = closing_order(
            work.stop.stop_id,
            position.symbol,
            work.sequences[position.symbol],
            signed_quantity=quantity,
            mark_price=position.mark_price,
            at=self._market_clock.now(),
        )
        try:
            await self._journal.add(order)
        except ConnectionLostError as error:
            log.critical("emergency_order_not_written_down", client_order_id=order.client_order_id, error=str(error))
        return order

    async def _last_sequence(self, stop_id: str, symbol: str) -> int:
        try:
            known = await self._journal.orders()
        except ConnectionLostError as error:
            log.critical("local_journal_not_read", error=str(error))
            # A number that no earlier process used: the same name twice would be refused.
            return int(self._clock.now().timestamp())
        return max((one.sequence for one in known if (one.stop_id, one.symbol) == (stop_id, symbol)), default=0)

    async def _send(self, order: ClosingOrder) -> bool:
        """Send one closing order; return whether the exchange took it. Reduce-only: sent twice it closes once."""
        name = order.client_order_id
        await self._within(_NOTE_SECONDS, self._note(order))
        try:
            report = await self._gateway.submit(order.as_order())
        except OrderRejectedError as error:
            log.error("emergency_close_refused", client_order_id=name, symbol=order.symbol, error=str(error))
            await self._tell(SendRefused(name, str(error), error.code))
            return False
        except ConnectionLostError as error:
            await self._tell(ProvenAbsent(name, str(error)))
            raise
        except (ExchangeError, TransientError) as error:
            log.error("emergency_close_unknown", client_order_id=name, symbol=order.symbol, error=str(error))
            await self._tell(AnswerLost(name, str(error)))
            return False
        await self._tell(report)
        return True

    async def _largest_order(self, symbol: str) -> Decimal | None:
        """Return the largest market order of ``symbol``; None when nobody can tell."""
        instruments = self._ledger.instruments or self._instruments
        if symbol not in instruments:
            try:
                instruments = self._instruments = await self._terms.instruments()
            except (TransientError, ExchangeError) as error:
                log.warning("instruments_unknown", error=str(error))
        instrument = instruments.get(symbol)
        return None if instrument is None else instrument.max_market_quantity

    # -- what may still come -------------------------------------------------------------------------------------------

    async def _in_flight(self) -> int:
        """Return how many requests may still bring a position or an order."""
        in_flight = [order for order in self._ledger.book.open_orders() if _is_in_flight(order)]
        undecided = 0
        for order in in_flight:
            undecided += await self._may_still_come(order)
        if not in_flight and self._ledger.needs_recovery and self._age_of_process() < _PROTECTION:
            return 1  # what an earlier process sent is not known here: the exchange gets the time to show it
        return undecided

    async def _may_still_come(self, order: Order) -> bool:
        report = await self._gateway.find_order(ref_of(order))
        if report is not None:
            await self._tell(report)
            return not report.status.is_terminal
        return order.sent_at is None or self._clock.now() - order.sent_at < _PROTECTION

    def _age_of_process(self) -> timedelta:
        return self._clock.now() - self._started_at

    # -- telling -------------------------------------------------------------------------------------------------------

    async def _report(self, work: _Work) -> None:
        """Tell the account's journal how far the stop is, when that changed; what it does not take now comes later."""
        report = StopReported(work.stop.stop_id, _message(work), is_flat=work.is_flat)
        if work.told is not None and work.told.is_flat == report.is_flat:
            return
        try:
            await self._tell_ledger_of(work)
            await self._ledger.apply(report)
        except QuantumTraderError as error:
            log.warning("emergency_stop_not_told", error=str(error))
            return
        work.told = report

    async def _tell_ledger_of(self, work: _Work) -> None:
        stop = self._ledger.book.trading.stop
        if stop is None:
            await self._ledger.apply(StopRequested(work.stop.stop_id, work.stop.reason, work.stop.requested_by))

    async def _note(self, order: ClosingOrder) -> None:
        """Let the account's journal know one closing order.

        Raises:
            TransientError: It cannot be told now.
        """
        try:
            await self._ledger.apply(ClosingOrderNoted(order))
        except InvalidInputError as error:
            log.warning("closing_order_known_already", client_order_id=order.client_order_id, error=str(error))
        await self._journal.mark_told(order.client_order_id)

    async def _tell(self, item: Input) -> None:
        # A database that hangs must not hold up what comes next; the ledger keeps the order of what it is told.
        await self._within(_NOTE_SECONDS, self._applied(item))

    async def _applied(self, item: Input) -> None:
        await self._ledger.apply(item)

    async def _within(self, seconds: float, work: Awaitable[None]) -> None:
        """Let ``work`` go on, but wait no longer than ``seconds`` for it."""
        task = asyncio.ensure_future(work)
        task.add_done_callback(_look_at_result)
        await asyncio.wait((task,), timeout=seconds)


def _look_at_result(task: asyncio.Future[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.info("not_told_to_the_journal", error=f"{type(error).__name__}: {error}")


def _is_in_flight(order: Order) -> bool:
    return order.leg is Leg.ENTRY and order.status in _IN_FLIGHT


def _protects(report: OrderReport, held: Mapping[str, VenuePosition]) -> bool:
    """Tell whether a resting order can only close a position that is there: it stays until that is gone."""
    position = held.get(report.symbol)
    if position is None or not report.is_algo:
        return False
    return report.side is (Side.SELL if position.quantity > ZERO else Side.BUY)


def _message(work: _Work) -> str:
    done = f"{len(work.cancelled)} orders were cancelled, positions in {len(work.closing)} symbols closed"
    if work.is_flat:
        return f"the account is flat and has no resting order ({done}); reason of the stop: {work.stop.reason}"
    left = f"{work.positions_left} positions and {work.orders_left} orders are left"
    if work.in_flight:
        left += f", the fate of {work.in_flight} requests is not known yet"
    trouble = f"; the exchange: {work.trouble}" if work.trouble else ""
    return f"the emergency stop is under way: {left} ({done}){trouble}"
