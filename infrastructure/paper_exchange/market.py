"""One symbol's market at one step of its candle: prices, and a depth of orders around them that can be taken."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from decimal import Decimal

from infrastructure.paper_exchange.candle_path import CandlePath
from infrastructure.paper_exchange.contracts import Contract
from infrastructure.paper_exchange.records import Level
from shared.trading.candles import Candle
from shared.trading.instruments import timeframe_duration
from shared.trading.money import ZERO, round_down
from shared.trading.orders import Side

#: Distance between best bid and best ask as a share of the price, at least one tick.
_SPREAD = 0.00002
#: Share of a minute's volume that stands at the best price.
_TOP_SHARE = 0.02
#: Each level away from the best one holds this much more of the top quantity.
_GROWTH = 0.25
LEVELS = 100


class Market:
    """The depth is drawn from the candle's volume and a checksum of (symbol, candle, step, side, level).

    So it looks alive, is the same in every run, and what was taken within a step stays taken until the next one.
    """

    def __init__(self, contract: Contract) -> None:
        self.contract = contract
        self._path: CandlePath | None = None
        self._step = 0
        self._ticks = 0
        self._taken = {Side.BUY: ZERO, Side.SELL: ZERO}

    def move_to(self, path: CandlePath, step: int) -> None:
        """Put the market at ``step`` of ``path`` with a fresh depth."""
        self._path, self._step = path, step
        self._ticks = path.ticks_at(step)
        self._taken = {Side.BUY: ZERO, Side.SELL: ZERO}

    @property
    def path(self) -> CandlePath:
        assert self._path is not None, "a market is moved before it is read"
        return self._path

    @property
    def last(self) -> Decimal:
        """Price of the last trade, USDT."""
        return self._ticks * self.contract.instrument.tick_size

    @property
    def mark(self) -> Decimal:
        """Mark price, USDT, 8 decimals."""
        ticks = self.path.mark_ticks_at(self._step)
        return round(ticks * self.contract.instrument.tick_size, 8)

    @property
    def forming_candle(self) -> Candle:
        """The current candle as far as it has been traded."""
        return self.path.forming(self._step, self.contract.instrument.tick_size)

    def levels(self, taker: Side, count: int = LEVELS) -> list[Level]:
        """Return what ``taker`` can take, best price first: asks for BUY, bids for SELL."""
        levels: list[Level] = []
        for level in self._offers(taker):
            if len(levels) == count:
                break
            levels.append(level)
        return levels

    def best(self, taker: Side) -> Level:
        """Return the best level for ``taker``; quantity 0 at the last price when all was taken at this step."""
        return next(self._offers(taker), Level(self.last, ZERO))

    def crosses(self, taker: Side, limit: Decimal) -> bool:
        """Tell whether the best price is ``limit`` or better for ``taker``, whatever was taken from it."""
        return _within(self._level_price(taker, 0), limit, taker)

    def available(self, taker: Side, limit: Decimal | None) -> Decimal:
        """Return the quantity that ``taker`` can take at ``limit`` or better."""
        return sum((level.quantity for level in self._offers(taker) if _within(level.price, limit, taker)), ZERO)

    def take(self, taker: Side, quantity: Decimal, limit: Decimal | None) -> list[Level]:
        """Take up to ``quantity`` at ``limit`` or better, best prices first, and return what was got."""
        got: list[Level] = []
        left = quantity
        for level in self._offers(taker):
            if left <= 0 or not _within(level.price, limit, taker):
                break
            part = min(left, level.quantity)
            got.append(Level(level.price, part))
            left -= part
        self._taken[taker] += quantity - left
        return got

    def _offers(self, taker: Side) -> Iterator[Level]:
        """Yield the levels that are left after what was taken at this step."""
        taken = self._taken[taker]
        for number in range(LEVELS):
            price = self._level_price(taker, number)
            if price <= 0:
                return
            quantity = self._level_quantity(taker, number)
            gone = min(taken, quantity)
            taken -= gone
            if quantity > gone:
                yield Level(price, quantity - gone)

    def _level_price(self, taker: Side, number: int) -> Decimal:
        spread = max(1, round(self._ticks * _SPREAD))
        bid = self._ticks - spread // 2
        ticks = bid + spread + number * spread if taker is Side.BUY else bid - number * spread
        return ticks * self.contract.instrument.tick_size

    def _level_quantity(self, taker: Side, number: int) -> Decimal:
        candle = self.path.candle
        instrument = self.contract.instrument
        minutes = timeframe_duration(candle.timeframe).total_seconds() / 60
        # A candle without trades still has a thin book: ten of the smallest orders at the best price.
        least = 10 * float(instrument.min_notional / self.last)
        top = max(candle.volume / minutes * _TOP_SHARE, least)
        seed = f"{candle.symbol}|{candle.open_time.timestamp():.0f}|{self._step}|{taker}|{number}"
        wobble = 0.5 + zlib.crc32(seed.encode()) % 1000 / 1000
        quantity = round_down(Decimal(str(round(top * (1 + _GROWTH * number) * wobble, 8))), instrument.lot_step)
        return max(quantity, instrument.lot_step)


def _within(price: Decimal, limit: Decimal | None, taker: Side) -> bool:
    if limit is None:
        return True
    return price <= limit if taker is Side.BUY else price >= limit
