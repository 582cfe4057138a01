"""Binance USD-M through ccxt's raw calls: exact numbers out, raw answers in, no request ever repeated."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

import structlog

from services.exec_risk_service.adapters.binance_reports import (
    algo_cancelled,
    algo_parameters,
    algo_report,
    instruments_of,
    is_set,
    key_permissions,
    order_parameters,
    order_report,
    payment,
    quote_of,
    reports_of,
    trade_fill,
    venue_account,
)
from services.exec_risk_service.domain.account_terms import AccountTerms
from services.exec_risk_service.domain.orders import Order
from services.exec_risk_service.domain.quotes import Quote
from services.exec_risk_service.domain.reports import CashReport, OrderReport, Reconnected, VenueAccount, VenueReport
from services.exec_risk_service.ports import OrderRef
from shared.cancellation import end_task
from shared.clock import Clock, SystemClock
from shared.errors import (
    ConnectionLostError,
    ExchangeError,
    InvalidInputError,
    OrderRejectedError,
    OutcomeUnknownError,
    QuantumTraderError,
    TransientError,
)
from shared.exchange.client import STREAM_CONNECTED, BinanceUsdm
from shared.exchange.klines import candle_from_row
from shared.exchange.outcome import translate
from shared.trading.candles import Candle, expected_last_open
from shared.trading.instruments import Instrument, timeframe_duration
from shared.trading.positions import Fill

#: Rows per page of trades and incomes: the most that Binance gives.
_PAGE = 1000
#: "Order does not exist", "Unknown order sent": not on this list, as far as the exchange knows now.
_NOT_FOUND = frozenset({-2011, -2013})
#: Levels of depth per question: the most that costs weight 2.
_DEPTH_LEVELS = "50"
_CONNECT_SECONDS = 20.0
#: A candle counts as closed only so long after its end: our clock may run ahead of the exchange's.
_SETTLED_AFTER = timedelta(seconds=2)

log = structlog.get_logger(__name__)

Call = Callable[[dict[str, str]], Awaitable[Any]]


class CcxtVenue:
    """``OrderGateway``, ``AccountView``, ``MarketView``, ``TradingTerms`` and ``CandleHistory`` over one client."""

    def __init__(self, client: BinanceUsdm, market_clock: Clock) -> None:
        self._client = client
        self._market_clock = market_clock

    # -- orders ----------------------------------------------------------------------------------------------------

    async def submit(self, order: Order) -> OrderReport:
        if order.order_type.is_algo:
            answer = await _ask(self._client.fapiPrivatePostAlgoOrder, algo_parameters(order))
            return _read(algo_report, answer)
        answer = await _ask(self._client.fapiPrivatePostOrder, order_parameters(order))
        return _read(order_report, answer)

    async def cancel(self, ref: OrderRef) -> OrderReport:
        if ref.is_algo:
            answer = await _ask(self._client.fapiPrivateDeleteAlgoOrder, _algo_name(ref))
            return _read(lambda body: algo_cancelled(body, ref.symbol, self._market_clock.now()), answer)
        answer = await _ask(self._client.fapiPrivateDeleteOrder, _order_name(ref))
        return _read(order_report, answer)

    async def set_leverage(self, symbol: str, leverage: int) -> None:
        await _ask(self._client.fapiPrivatePostLeverage, {"symbol": symbol, "leverage": str(leverage)})

    async def count_down(self, symbol: str, seconds: float) -> None:
        parameters = {"symbol": symbol, "countdownTime": str(round(seconds * 1000))}
        await _ask(self._client.fapiPrivatePostCountdownCancelAll, parameters)

    async def find_order(self, ref: OrderRef) -> OrderReport | None:
        regular = (self._client.fapiPrivateGetOrder, _order_name(ref), order_report)
        conditional = (self._client.fapiPrivateGetAlgoOrder, _algo_name(ref), algo_report)
        if ref.exchange_order_id and not ref.client_order_id:
            return await _find(*regular)
        first, second = (conditional, regular) if ref.is_algo else (regular, conditional)
        return await _find(*first) or await _find(*second)

    # -- account ---------------------------------------------------------------------------------------------------

    async def account(self) -> VenueAccount:
        account = await _query(self._client.fapiPrivateV3GetAccount, {})
        positions = await _query(self._client.fapiPrivateV3GetPositionRisk, {})
        return venue_account(account, positions)

    async def open_orders(self) -> tuple[OrderReport, ...]:
        regular = await _query(self._client.fapiPrivateGetOpenOrders, {})
        conditional = await _query(self._client.fapiPrivateGetOpenAlgoOrders, {})
        return (*map(order_report, regular), *map(algo_report, conditional))

    async def fills_after(self, symbol: str, trade_id: int | None) -> tuple[Fill, ...]:
        fills: list[Fill] = []
        while True:
            parameters = {"symbol": symbol, "limit": str(_PAGE)}
            if trade_id is not None:
                parameters["fromId"] = str(trade_id + 1)
            page = [trade_fill(row) for row in await _query(self._client.fapiPrivateGetUserTrades, parameters)]
            fills.extend(page)
            if trade_id is None or len(page) < _PAGE:
                return tuple(sorted(fills, key=lambda fill: fill.trade_id))
            trade_id = max(fill.trade_id for fill in page)

    async def payments_since(self, moment: datetime) -> tuple[CashReport, ...]:
        start = _epoch_ms(moment)
        found: dict[str, CashReport] = {}
        while True:
            parameters = {"startTime": str(start), "limit": str(_PAGE)}
            rows = await _query(self._client.fapiPrivateGetIncome, parameters)
            found |= {one.key: one for row in rows if (one := payment(row)) is not None}
            last = max((int(row["time"]) for row in rows), default=start)
            if len(rows) < _PAGE or last == start:
                return tuple(sorted(found.values(), key=lambda one: one.time))
            start = last

    # -- market ------------------------------------------------------------------------------------------------------

    async def quote(self, symbol: str) -> Quote:
        answer = await _query(self._client.fapiPublicGetDepth, {"symbol": symbol, "limit": _DEPTH_LEVELS})
        return quote_of(symbol, answer)

    # -- terms -----------------------------------------------------------------------------------------------------

    async def instruments(self) -> Mapping[str, Instrument]:
        info = await _query(self._client.fapiPublicGetExchangeInfo, {})
        brackets = await _query(self._client.fapiPrivateGetLeverageBracket, {})
        return instruments_of(info, brackets)

    async def account_terms(self) -> AccountTerms:
        position_mode = await _query(self._client.fapiPrivateGetPositionSideDual, {})
        margin_mode = await _query(self._client.fapiPrivateGetMultiAssetsMargin, {})
        key = None
        if self._client.tells_key_permissions:
            key = key_permissions(await _query(self._client.sapiGetAccountApiRestrictions, {}))
        return AccountTerms(
            hedge_mode=is_set(position_mode, "dualSidePosition"),
            multi_assets_mode=is_set(margin_mode, "multiAssetsMargin"),
            key=key,
        )

    # -- past candles ------------------------------------------------------------------------------------------------

    async def candles(self, symbol: str, timeframe: str, start: datetime, end: datetime) -> tuple[Candle, ...]:
        step = timeframe_duration(timeframe)
        last = min(end, expected_last_open(self._market_clock.now() - _SETTLED_AFTER, timeframe) + step)
        if start >= last:
            return ()
        parameters = {
            "symbol": symbol,
            "interval": timeframe,
            "startTime": str(_epoch_ms(start)),
            "endTime": str(_epoch_ms(last) - 1),
            "limit": str(min(_PAGE, (last - start) // step)),
        }
        rows = await _query(self._client.fapiPublicGetKlines, parameters)
        found = (candle for row in rows if (candle := _candle(symbol, timeframe, row)) is not None)
        return tuple(candle for candle in found if start <= candle.open_time < last)


class CcxtReportStream:
    """``ReportStream`` over the client's user data stream.

    Attributes:
        name: Component name.
        connection: See ``StreamLink``; likewise ``heard_at``.
    """

    name = "user-stream"

    def __init__(self, client: BinanceUsdm, clock: Clock | None = None) -> None:
        self._client = client
        self._clock = clock or SystemClock()
        self.connection = 0
        self.heard_at = 0.0
        self._reports: asyncio.Queue[VenueReport] = asyncio.Queue()
        self._tasks: list[asyncio.Task[None]] = []
        self._connected = asyncio.Event()

    async def start(self) -> None:
        """Connect; return when the first connection is live.

        Raises:
            ConnectionLostError: The exchange did not open the stream in time.
        """
        self._tasks = [
            asyncio.create_task(self._client.follow_user_stream(), name="user-stream"),
            asyncio.create_task(self._translate(), name="user-stream-reports"),
        ]
        try:
            await asyncio.wait_for(self._connected.wait(), _CONNECT_SECONDS)
        except TimeoutError:
            raise ConnectionLostError(f"the user stream did not open within {_CONNECT_SECONDS:.0f} s") from None

    async def stop(self) -> None:
        """Disconnect."""
        tasks, self._tasks = self._tasks, []
        await asyncio.gather(*(end_task(task) for task in tasks))

    @property
    def is_connected(self) -> bool:
        return self._client.user_stream_is_open

    @property
    def lost_at(self) -> float:
        return self._client.user_stream_lost_at

    def renew(self, why: str) -> None:
        self._client.renew_user_stream(why)

    async def reports(self) -> AsyncIterator[VenueReport]:
        while True:
            yield await self._reports.get()

    async def _translate(self) -> None:
        while True:
            event = await self._client.user_events.get()
            if event.get("e") == STREAM_CONNECTED:
                self.connection = event["connection"]
                if event["connection"] > 1:
                    self._reports.put_nowait(Reconnected())
                self._connected.set()
                continue
            self.heard_at = self._clock.monotonic()
            try:
                for report in reports_of(event):
                    self._reports.put_nowait(report)
            except Exception as error:  # noqa: BLE001 - the next event must still be read
                # What cannot be read may have been a fill: the lists of the exchange tell.
                log.error("user_event_unreadable", error=str(error))
                self._reports.put_nowait(Reconnected())


async def _ask(call: Call, parameters: dict[str, str]) -> Any:
    """Send one request that changes something."""
    try:
        return await call(parameters)
    except QuantumTraderError:
        raise
    except Exception as error:
        raise translate(error) from error


async def _query(call: Call, parameters: dict[str, str]) -> Any:
    """Send one read; whatever keeps it from answering is transient for the caller."""
    try:
        return await _ask(call, parameters)
    except ExchangeError as error:
        raise TransientError(str(error)) from error


async def _find(
    call: Call, parameters: dict[str, str], read: Callable[[Mapping[str, Any]], OrderReport]
) -> OrderReport | None:
    if len(parameters) < 2:
        return None
    try:
        return _read(read, await _ask(call, parameters))
    except OutcomeUnknownError as error:
        if error.code in _NOT_FOUND:
            return None
        raise TransientError(str(error)) from error
    except OrderRejectedError as error:
        raise TransientError(str(error)) from error


def _read(read: Callable[[Mapping[str, Any]], OrderReport], answer: Any) -> OrderReport:
    """Translate an accepted answer; one that does not name what was asked for proves nothing."""
    try:
        return read(answer)
    except (KeyError, TypeError, ValueError, InvalidInputError) as error:
        raise OutcomeUnknownError(f"the answer cannot be read ({error!r}): {str(answer)[:200]}") from error


def _candle(symbol: str, timeframe: str, row: Any) -> Candle | None:
    """Return the candle of one row; what has impossible values is left out, loudly."""
    try:
        return candle_from_row(symbol, timeframe, row)
    except (InvalidInputError, TypeError, ValueError) as error:
        log.error("candle_refused", symbol=symbol, reason=str(error))
        return None


def _epoch_ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


def _order_name(ref: OrderRef) -> dict[str, str]:
    if ref.client_order_id:
        return {"symbol": ref.symbol, "origClientOrderId": ref.client_order_id}
    return {"symbol": ref.symbol, "orderId": ref.exchange_order_id}


def _algo_name(ref: OrderRef) -> dict[str, str]:
    return {"symbol": ref.symbol, "clientAlgoId": ref.client_order_id}
