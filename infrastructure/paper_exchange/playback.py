"""Candles played into markets, step by step, with jumps over the steps at which nothing can happen."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Protocol

from infrastructure.paper_exchange.candle_feed import CandleFeed
from infrastructure.paper_exchange.candle_path import STEPS, CandlePath
from infrastructure.paper_exchange.candle_port import CandleSource
from infrastructure.paper_exchange.contracts import Contract
from infrastructure.paper_exchange.klines import aggregate, slot_start
from infrastructure.paper_exchange.market import Market
from infrastructure.paper_exchange.records import Trade
from infrastructure.paper_exchange.tape import trades_at
from shared.errors import ConfigurationError
from shared.trading.candles import Candle
from shared.trading.instruments import timeframe_duration

#: Lowest and highest price of each symbol's current candle, USDT; last and mark price stay within.
Ranges = Mapping[str, tuple[Decimal, Decimal]]


class Actor(Protocol):
    """What happens in the markets while they move."""

    def begin(self, ranges: Ranges, until: datetime) -> bool:
        """Look ahead on (the rest of) one candle, up to ``until``; tell whether anything can happen in it."""
        ...

    def act(self, now: datetime) -> None:
        """Let happen what the markets at their present step cause."""
        ...

    def rest(self) -> None:
        """Note that nothing could happen up to now."""
        ...


class Playback:
    """Keeps market time, and every market at the step of its candle that belongs to it.

    Args:
        source: Candles, past and future.
        contracts: The listed symbols; changed in place when a contract changes.
        start: Market time at which it begins, aware UTC.
        seed: Decides the way of the price inside each candle.
    """

    def __init__(self, source: CandleSource, contracts: Mapping[str, Contract], start: datetime, seed: int) -> None:
        self._source = source
        self._contracts = contracts
        self._seed = seed
        self._slot_length: timedelta = timeframe_duration(source.timeframe)
        self._step_length = self._slot_length / STEPS
        self._slot = slot_start(start, self._slot_length)
        self._step = int((start - self._slot) / self._step_length)
        self.now = start
        self.markets = {symbol: Market(contract) for symbol, contract in contracts.items()}
        self._feeds = {symbol: self._new_feed(symbol) for symbol in contracts}
        self._move_markets()

    # -- time ------------------------------------------------------------------------------------------------------

    @property
    def is_exhausted(self) -> bool:
        """True when the candles have ended: prices stand still, time goes on."""
        return self._step >= STEPS - 1 and not self._has_slot(self._slot + self._slot_length)

    def advance_to(self, moment: datetime, actor: Actor) -> None:
        """Play up to ``moment``, never back."""
        while self._slot + self._slot_length <= moment:
            self._play(STEPS - 1, actor)
            following = self._slot + self._slot_length
            if not self._has_slot(following):
                break
            self._slot, self._step = following, -1
        self._play(min(STEPS - 1, int((moment - self._slot) / self._step_length)), actor)
        self.now = max(self.now, moment)

    def _has_slot(self, open_time: datetime) -> bool:
        return all(feed.path(open_time) is not None for feed in self._feeds.values())

    def _play(self, last: int, actor: Actor) -> None:
        """Play the current candles up to step ``last``."""
        first = self._step + 1
        if first > last:
            return
        if not actor.begin(self._ranges(), self._time_of(last)):
            self._go_to(last)
            actor.rest()
            return
        for step in range(first, last + 1):
            self._go_to(step)
            actor.act(self.now)

    def _go_to(self, step: int) -> None:
        self._step = step
        self.now = max(self.now, self._time_of(step))
        self._move_markets()

    def _time_of(self, step: int) -> datetime:
        return self._slot + self._step_length * step

    def _move_markets(self) -> None:
        for symbol, market in self.markets.items():
            market.move_to(self._path(symbol), self._step)

    def _path(self, symbol: str) -> CandlePath:
        path = self._feeds[symbol].path(self._slot)
        assert path is not None, "a slot is entered only when every symbol has its candle"
        return path

    def _ranges(self) -> Ranges:
        return {symbol: self._range(self._path(symbol), contract) for symbol, contract in self._contracts.items()}

    def _range(self, path: CandlePath, contract: Contract) -> tuple[Decimal, Decimal]:
        tick_size = contract.instrument.tick_size
        return path.low * tick_size, path.high * tick_size

    # -- contracts -------------------------------------------------------------------------------------------------

    def change_contract(self, contract: Contract) -> None:
        """Give a market new rules; on a new price grid it stays where it is."""
        market = self.markets[contract.symbol]
        is_new_grid = market.contract.instrument.tick_size != contract.instrument.tick_size
        market.contract = contract
        if is_new_grid:
            self._feeds[contract.symbol] = self._new_feed(contract.symbol)
            self._move_markets()

    def _new_feed(self, symbol: str) -> CandleFeed:
        return CandleFeed(self._source, symbol, self.markets[symbol].contract.instrument.tick_size, self._seed)

    # -- history ---------------------------------------------------------------------------------------------------

    def trades(self, symbol: str, after: datetime, until: datetime) -> list[Trade]:
        """Return the trades with ``after < time <= until``, oldest first, as far as the market has been played."""
        instrument = self._contracts[symbol].instrument
        until = min(until, self.now)
        found: list[Trade] = []
        slot = slot_start(max(after, self._source.first_open(symbol)), self._slot_length)
        while slot <= min(until, self._slot) and (path := self._feeds[symbol].path(slot)) is not None:
            first, last = (int((moment - slot) / self._step_length) for moment in (after, until))
            for step in range(max(0, first), min(STEPS - 1, last) + 1):
                found += [trade for trade in trades_at(path, step, instrument) if after < trade.time <= until]
            slot += self._slot_length
        return found

    def has_timeframe(self, timeframe: str) -> bool:
        """Tell whether candles of ``timeframe`` can be made of the market's own."""
        return not timeframe_duration(timeframe) % self._slot_length

    def candles(self, symbol: str, timeframe: str, start: datetime, end: datetime) -> list[Candle]:
        """Return candles with ``start <= open_time < end`` up to now; the last one may still be forming."""
        length = timeframe_duration(timeframe)
        first = max(slot_start(start, length), self._source.first_open(symbol))
        closed = self._source.candles(symbol, first, min(slot_start(end, length) + length, self._slot))
        known = [*closed, self.markets[symbol].forming_candle] if end > self._slot else closed
        return [candle for candle in aggregate(known, timeframe) if start <= candle.open_time < end]


def opening_price(source: CandleSource, symbol: str, start: datetime) -> float:
    """Return the open of the candle that holds ``start``, USDT.

    Raises:
        ConfigurationError: There is none.
    """
    length = timeframe_duration(source.timeframe)
    slot = slot_start(start, length)
    candles = source.candles(symbol, slot, slot + length)
    if not candles:
        first, last = source.first_open(symbol), source.last_open(symbol)
        raise ConfigurationError(
            f"{symbol} has no candle at the market start {start.isoformat()}; "
            f"its candles run from {first.isoformat()} to {last.isoformat() if last else 'no end'}"
        )
    return candles[0].open
