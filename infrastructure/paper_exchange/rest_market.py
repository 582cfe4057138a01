"""REST handlers that anyone may call: exchange information and market data."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from infrastructure.paper_exchange.funding import is_funding_time, next_funding_time
from infrastructure.paper_exchange.live_exchange import LiveExchange
from infrastructure.paper_exchange.market import LEVELS
from infrastructure.paper_exchange.parameters import Parameters
from infrastructure.paper_exchange.payloads import (
    Json,
    aggregate_trade_row,
    book_ticker_json,
    contract_json,
    kline_row,
    levels_json,
    limit_json,
    number,
    premium_json,
    trade_row,
)
from infrastructure.paper_exchange.records import Level, Trade
from infrastructure.paper_exchange.refusals import refusal
from infrastructure.paper_exchange.user_events import milliseconds, plain
from shared.trading.candles import Candle
from shared.trading.instruments import timeframe_duration

_INTERVALS = frozenset({"1m", "3m", "5m", "15m", "30m", "1h", "2h", "4h", "6h", "8h", "12h", "1d", "3d"})
_TRADES_WINDOW = timedelta(hours=1)
_DEPTH_LIMITS = frozenset({5, 10, 20, 50, 100, 500, 1000})


def ping(_exchange: LiveExchange, _parameters: Parameters) -> Json:
    return {}


def server_time(exchange: LiveExchange, _parameters: Parameters) -> Json:
    """Wall time: clients use it to sign requests."""
    return {"serverTime": milliseconds(exchange.server_time())}


def exchange_info(exchange: LiveExchange, _parameters: Parameters) -> Json:
    engine = exchange.engine
    return {
        "timezone": "UTC",
        "serverTime": milliseconds(exchange.server_time()),
        "futuresType": "U_MARGINED",
        "rateLimits": [limit_json(limit) for limit in exchange.weight.limits],
        "exchangeFilters": [],
        "assets": [{"asset": "USDT", "marginAvailable": True, "autoAssetExchange": "0"}],
        "symbols": [contract_json(engine.contract(symbol)) for symbol in engine.symbols],
    }


def klines(exchange: LiveExchange, parameters: Parameters) -> list[list[Any]]:
    """Candles up to now, the last one still forming; from ``startTime`` on, or the newest."""
    symbol = parameters.text("symbol")
    interval = parameters.text("interval")
    if interval not in _INTERVALS:
        raise refusal(-1120)
    exchange.engine.contract(symbol)
    limit = parameters.limit(500, 1500)
    length = timeframe_duration(interval)
    start, end = parameters.moment("startTime"), parameters.moment("endTime")
    # endTime is inclusive and now is never later than the forming candle.
    present = exchange.engine.now + length
    after_end = min(end + timedelta(milliseconds=1), present) if end else present
    if start is not None:
        # As Binance does: a start before the listing means the oldest candles, not an empty window.
        start = max(start, exchange.engine.first_open(symbol))
        candles = exchange.engine.candles(symbol, interval, start, min(after_end, start + length * (limit + 1)))[:limit]
    else:
        candles = exchange.engine.candles(symbol, interval, after_end - length * (limit + 1), after_end)[-limit:]
    return [kline_row(candle) for candle in candles]


def index_klines(exchange: LiveExchange, parameters: Parameters) -> list[list[Any]]:
    """Candles of the pair: the index stands where the market stands, and only perpetuals exist."""
    return klines(exchange, Parameters({**parameters.as_sent, "symbol": parameters.text("pair")}))


def trades(exchange: LiveExchange, parameters: Parameters) -> list[Json]:
    """The newest trades, or those from ``fromId`` on."""
    limit = parameters.limit(500, 1000)
    first = parameters.optional_integer("fromId")
    found = _recent_trades(exchange, parameters.text("symbol"))
    if first is not None:
        return [trade_row(trade) for trade in found if trade.trade_id >= first][:limit]
    return [trade_row(trade) for trade in found[-limit:]]


def aggregate_trades(exchange: LiveExchange, parameters: Parameters) -> list[Json]:
    """The newest trades, those from ``fromId`` on, or those of at most one hour."""
    limit = parameters.limit(500, 1000)
    first, symbol = parameters.optional_integer("fromId"), parameters.text("symbol")
    if parameters.optional("startTime") is None and parameters.optional("endTime") is None:
        found = _recent_trades(exchange, symbol)
        chosen = found[-limit:] if first is None else [trade for trade in found if trade.trade_id >= first][:limit]
    else:
        if first is not None:
            raise refusal(-1128)
        span = parameters.span(exchange.engine.now, _TRADES_WINDOW)
        start, end = span.start or exchange.engine.now, span.end or exchange.engine.now
        found = exchange.engine.trades(symbol, start - timedelta(milliseconds=1), end)
        chosen = found[:limit] if span.is_forward else found[-limit:]
    return [aggregate_trade_row(trade) for trade in chosen]


def _recent_trades(exchange: LiveExchange, symbol: str) -> list[Trade]:
    now = exchange.engine.now
    length = timeframe_duration(exchange.engine.timeframe)
    return exchange.engine.trades(symbol, now - max(_TRADES_WINDOW, 2 * length), now)


def funding_info(exchange: LiveExchange, _parameters: Parameters) -> list[Json]:
    """How often each symbol settles, and how far its rate may go."""
    return [
        {
            "symbol": contract.symbol,
            "adjustedFundingRateCap": plain(contract.funding_cap),
            "adjustedFundingRateFloor": plain(-contract.funding_cap),
            "fundingIntervalHours": contract.funding_interval // timedelta(hours=1),
            "disclaimer": False,
        }
        for contract in map(exchange.engine.contract, exchange.engine.symbols)
    ]


def open_interest(exchange: LiveExchange, parameters: Parameters) -> Json:
    """A day's volume: the synthetic market has no other account's positions."""
    symbol = parameters.text("symbol")
    volume = _day_ticker(exchange, exchange.engine.contract(symbol).symbol)["volume"]
    return {"symbol": symbol, "openInterest": volume, "time": milliseconds(exchange.engine.now)}


def constituents(exchange: LiveExchange, parameters: Parameters) -> Json:
    """The one exchange behind the index price."""
    quote = exchange.engine.quote(exchange.engine.contract(parameters.text("symbol")).symbol)
    row = {"exchange": "binance", "symbol": quote.symbol, "price": plain(quote.mark), "weight": "1.0"}
    return {"symbol": quote.symbol, "time": milliseconds(quote.time), "constituents": [row]}


def depth(exchange: LiveExchange, parameters: Parameters) -> Json:
    limit = parameters.integer("limit", 500)
    if limit not in _DEPTH_LIMITS:
        raise refusal(-4021, limit)
    symbol = parameters.text("symbol")
    exchange.engine.contract(symbol)
    book = exchange.streams.snapshot(symbol, min(limit, LEVELS))
    now = milliseconds(exchange.engine.now)
    bids, asks = ([Level(*level) for level in side.items()] for side in (book.bids, book.asks))
    return {"lastUpdateId": book.update_id, "E": now, "T": now, "bids": levels_json(bids), "asks": levels_json(asks)}


def book_ticker(exchange: LiveExchange, parameters: Parameters) -> Json | list[Json]:
    return _one_or_all(exchange, parameters, lambda symbol: book_ticker_json(exchange.engine.quote(symbol)))


def premium_index(exchange: LiveExchange, parameters: Parameters) -> Json | list[Json]:
    return _one_or_all(exchange, parameters, lambda symbol: premium_json(exchange.engine.quote(symbol)))


def price_ticker(exchange: LiveExchange, parameters: Parameters) -> Json | list[Json]:
    def row(symbol: str) -> Json:
        quote = exchange.engine.quote(symbol)
        return {"symbol": symbol, "price": plain(quote.last), "time": milliseconds(quote.time)}

    return _one_or_all(exchange, parameters, row)


def day_ticker(exchange: LiveExchange, parameters: Parameters) -> Json | list[Json]:
    return _one_or_all(exchange, parameters, lambda symbol: _day_ticker(exchange, symbol))


def _day_ticker(exchange: LiveExchange, symbol: str) -> Json:
    engine = exchange.engine
    candles = engine.candles(symbol, engine.timeframe, engine.now - timedelta(days=1), engine.now + timedelta(days=1))
    first, last = candles[0], candles[-1]
    volume = sum(candle.volume for candle in candles)
    value = sum(candle.volume * candle.close for candle in candles)
    change = last.close - first.open
    return {
        "symbol": symbol,
        "priceChange": number(round(change, 8)),
        "priceChangePercent": f"{change / first.open * 100:.3f}",
        "weightedAvgPrice": number(round(value / volume if volume else last.close, 8)),
        "lastPrice": number(last.close),
        "lastQty": "0",
        "openPrice": number(first.open),
        "highPrice": number(max(candle.high for candle in candles)),
        "lowPrice": number(min(candle.low for candle in candles)),
        "volume": number(round(volume, 8)),
        "quoteVolume": number(round(value, 4)),
        "openTime": milliseconds(_day_start(candles, engine.now)),
        "closeTime": milliseconds(engine.now),
        "firstId": 0,
        "lastId": 0,
        "count": 0,
    }


def _day_start(candles: list[Candle], now: datetime) -> datetime:
    return max(candles[0].open_time, now - timedelta(days=1))


def funding_rates(exchange: LiveExchange, parameters: Parameters) -> list[Json]:
    """Settled rates, oldest first."""
    engine = exchange.engine
    limit = parameters.limit(100, 1000)
    symbol = parameters.optional("symbol")
    intervals = {each: engine.contract(each).funding_interval for each in ((symbol,) if symbol else engine.symbols)}
    shortest = min(intervals.values())
    newest = next_funding_time(engine.now, shortest) - shortest
    start = parameters.moment("startTime") or newest - shortest * (limit - 1)
    end = min(parameters.moment("endTime") or newest, newest)
    rows: list[Json] = []
    moment = next_funding_time(start - timedelta(milliseconds=1), shortest)
    while moment <= end and len(rows) < limit:
        for each, interval in intervals.items():
            if is_funding_time(moment, interval):
                rate = engine.funding_rate(each, moment)
                rows.append(
                    {"symbol": each, "fundingRate": plain(rate), "fundingTime": milliseconds(moment), "markPrice": ""}
                )
        moment += shortest
    return rows[:limit]


def _one_or_all(exchange: LiveExchange, parameters: Parameters, row: Callable[[str], Json]) -> Json | list[Json]:
    symbol = parameters.optional("symbol")
    return row(symbol) if symbol else [row(each) for each in exchange.engine.symbols]
