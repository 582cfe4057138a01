"""One symbol's market at one step of its candle: prices, a depth of orders around them, and queues at each price."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal

from infrastructure.paper_exchange.book_walk import is_within, quantity_within, walk
from infrastructure.paper_exchange.candle_path import STEPS, CandlePath
from infrastructure.paper_exchange.contracts import Contract
from infrastructure.paper_exchange.records import Level
from infrastructure.paper_exchange.tape import step_number, taker_at, volume_at
from shared.trading.candles import Candle
from shared.trading.instruments import timeframe_duration
from shared.trading.money import ZERO, round_down
from shared.trading.orders import Side

#: Spread in a market that stands still, as a share of the price; at least one tick in any case.
_CALM_SPREAD = 0.00001
#: Spread per range of a minute: a minute that moves 1 % is quoted 2 basis points wider.
_SPREAD_PER_RANGE = 0.02
_WIDEST_SPREAD = 0.005
#: USDT traded per minute at which a thin market is quoted 1.4 times as wide as a busy one; never above 4 times.
_THIN_VALUE = 100_000.0
_THIN_FACTOR = 4.0
#: Share of a minute's volume that stands at the best price when the market stands still.
_TOP_SHARE = 0.02
#: A minute that moves this much halves the depth.
_HALVING_RANGE = 0.002
#: Each level away from the best one holds this much more of the top quantity, up to the level ``_FLAT_FROM``.
_GROWTH = 0.25
_FLAT_FROM = 20
#: Every level is quoted anew once in this many steps, each at its own turn.
_REQUOTE_STEPS = 8
#: Market seconds in which the depth is whole again after it was eaten, a like share in each of them.
_RECOVERY_SECONDS = 20.0
#: Changes of the book that fit between two steps' update ids.
_IDS_PER_STEP = 100_000
LEVELS = 100


@dataclass(frozen=True, slots=True)
class _Shape:
    """How one candle is quoted, from its volatility and its volume.

    Attributes:
        spread: Ticks between best bid and best ask, also the grid on which the levels behind them lie.
        top: Base asset at the best price before it wobbles.
    """

    spread: int
    top: float

    @classmethod
    def of(cls, path: CandlePath, contract: Contract) -> _Shape:
        candle, instrument = path.candle, contract.instrument
        minutes = timeframe_duration(candle.timeframe).total_seconds() / 60
        # A range grows with the root of time: this is the candle's as if it lasted a minute.
        moved = (candle.high - candle.low) / candle.open / math.sqrt(minutes)
        value = candle.volume / minutes * candle.open
        thin = min(_THIN_FACTOR, math.sqrt(1 + _THIN_VALUE / value)) if value else _THIN_FACTOR
        spread = min(_WIDEST_SPREAD, (_CALM_SPREAD + _SPREAD_PER_RANGE * moved) * thin)
        # A candle without trades still has a thin book: ten of the smallest orders at the best price.
        least = 10 * float(instrument.min_notional) / candle.open
        top = max(candle.volume / minutes * _TOP_SHARE / (1 + moved / _HALVING_RANGE), least)
        return cls(max(1, round(path.nodes[0] * spread)), top)


@dataclass(slots=True)
class _Resting:
    """An account's order in the queue of its price; ``ahead`` is what must trade there before it."""

    side: Side
    price: Decimal
    ahead: Decimal


class Market:
    """Quotes the path of a candle and keeps what the account's orders did to the book.

    The depth is a function of candle, step and checksums of (seed, side, price), so it looks alive and is the same in
    every run. What was taken comes back bit by bit. A resting order waits behind what stood at its price when it
    joined: trades at that price eat the queue and then the order; a trade through the price fills it, as far as the
    traded volume and the depth that crosses it reach.
    """

    def __init__(self, contract: Contract) -> None:
        self.contract = contract
        self._path: CandlePath | None = None
        self._shape = _Shape(1, 0.0)
        self._step = 0
        self._ticks = 0
        self._number = 0
        self._changes = 0
        self._trader = Side.BUY
        self._traded = ZERO
        self._taken = {Side.BUY: ZERO, Side.SELL: ZERO}
        self._taken_at = {Side.BUY: 0, Side.SELL: 0}
        self._recovery_steps = 1
        self._resting: dict[int, _Resting] = {}

    def move_to(self, path: CandlePath, step: int) -> None:
        """Put the market at ``step`` of ``path``."""
        if path is not self._path:
            self._shape = _Shape.of(path, self.contract)
            length = timeframe_duration(path.candle.timeframe).total_seconds() / STEPS
            self._recovery_steps = max(1, round(_RECOVERY_SECONDS / length))
        self._path, self._step = path, step
        self._ticks = path.ticks_at(step)
        self._trader = taker_at(path, step)
        number = step_number(path, step)
        if number == self._number:  # quoted anew within a step, on another grid: what was traded stays traded
            self._changes += 1
        else:
            self._traded = volume_at(path, self.contract.instrument)
            self._number, self._changes = number, 0

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

    # -- depth -----------------------------------------------------------------------------------------------------

    @property
    def update_id(self) -> int:
        """Number of the book's present state; it grows with every change."""
        return self._number * _IDS_PER_STEP + self._changes

    def levels(self, taker: Side, count: int = LEVELS) -> list[Level]:
        """Return what ``taker`` can take, best price first: asks for BUY, bids for SELL."""
        levels: list[Level] = []
        for level in self._offers(taker):
            if len(levels) == count:
                break
            levels.append(level)
        return levels

    def best(self, taker: Side) -> Level:
        """Return the best level for ``taker``; quantity 0 at the last price when everything was taken."""
        return next(self._offers(taker), Level(self.last, ZERO))

    def crosses(self, taker: Side, limit: Decimal) -> bool:
        """Tell whether the best price is ``limit`` or better for ``taker``, whatever was taken from it."""
        return is_within(self._price(self._best_ticks(taker)), limit, taker)

    def available(self, taker: Side, limit: Decimal | None) -> Decimal:
        """Return the quantity that ``taker`` can take at ``limit`` or better."""
        return quantity_within(self._offers(taker), taker, limit)

    def take(self, taker: Side, quantity: Decimal, limit: Decimal | None) -> list[Level]:
        """Take up to ``quantity`` at ``limit`` or better, best prices first, and return what was got."""
        got = walk(self._offers(taker), taker, quantity, limit)
        if got:
            self._taken[taker] = self._missing(taker) + sum((level.quantity for level in got), ZERO)
            self._taken_at[taker] = self._number
            self._changes += 1
        return got

    def _missing(self, taker: Side) -> Decimal:
        """Return what was taken and has not come back yet."""
        left = self._recovery_steps - (self._number - self._taken_at[taker])
        if left <= 0 or not self._taken[taker]:
            return ZERO
        return round_down(self._taken[taker] * left / self._recovery_steps, self.contract.instrument.lot_step)

    def _offers(self, taker: Side) -> Iterator[Level]:
        """Yield the levels that are left after what is missing."""
        missing = self._missing(taker)
        best = self._best_ticks(taker)
        for number in range(LEVELS):
            ticks = self._level_ticks(taker, best, number)
            if ticks <= 0:
                return
            quantity = self._quantity(taker, ticks, number)
            gone = min(missing, quantity)
            missing -= gone
            if quantity > gone:
                yield Level(self._price(ticks), quantity - gone)

    def _best_ticks(self, taker: Side) -> int:
        """The last trade was at the price that its taker took; the other side is a spread away."""
        if taker is self._trader:
            return self._ticks
        return self._ticks + taker.sign * self._shape.spread

    def _level_ticks(self, taker: Side, best: int, number: int) -> int:
        """Levels behind the best one lie on a grid that does not move with it, so that most of them stay."""
        if number == 0:
            return best
        grid = self._shape.spread
        first = best // grid + 1 if taker is Side.BUY else -(-best // grid) - 1
        return (first + taker.sign * (number - 1)) * grid

    def _quantity(self, taker: Side, ticks: int, number: int) -> Decimal:
        """Return what is quoted at a price that is ``number`` levels behind the best one."""
        instrument = self.contract.instrument
        price = zlib.crc32(f"{taker}|{ticks}".encode())
        turn = (self._number + price) // _REQUOTE_STEPS
        wobble = 0.5 + zlib.crc32(f"{self.contract.symbol}|{price}|{turn}".encode()) % 1000 / 1000
        wanted = self._shape.top * (1 + _GROWTH * min(number, _FLAT_FROM)) * wobble
        return max(round_down(Decimal(str(round(wanted, 8))), instrument.lot_step), instrument.lot_step)

    def _price(self, ticks: int) -> Decimal:
        return ticks * self.contract.instrument.tick_size

    # -- queues ----------------------------------------------------------------------------------------------------

    def join(self, order_id: int, side: Side, price: Decimal) -> None:
        """Put an order at the end of the queue at ``price``; one that is in it already keeps its place."""
        if order_id not in self._resting:
            self._resting[order_id] = _Resting(side, price, self.standing_at(side, price))

    def leave(self, order_id: int) -> None:
        """Take an order out of its queue; unknown ids are ignored."""
        self._resting.pop(order_id, None)

    def ahead_of(self, order_id: int) -> Decimal:
        """Return what must still trade at its price before the order does, base asset."""
        return self._resting[order_id].ahead

    def standing_at(self, side: Side, price: Decimal) -> Decimal:
        """Return what rests on ``side`` at ``price``: the level it lies in, nothing where it would be the best."""
        taker = Side.SELL if side is Side.BUY else Side.BUY
        ticks = int(price / self.contract.instrument.tick_size)
        best = self._best_ticks(taker)
        behind = (ticks - best) * taker.sign
        if behind < 0:
            return ZERO
        number = -(-behind // self._shape.spread)
        level = self._level_ticks(taker, best, number)
        quantity = self._quantity(taker, level, number)
        return max(ZERO, quantity - self._missing(taker)) if number == 0 else quantity

    def fill_resting(self, order_id: int, wanted: Decimal) -> Decimal:
        """Return how much of ``wanted`` an order in the queue gets at this step, and book it as traded."""
        order = self._resting[order_id]
        is_through = (self.last - order.price) * order.side.sign < 0 or self.crosses(order.side, order.price)
        is_touched = self.last == order.price and self._trader is not order.side
        if not (is_through or is_touched):
            return ZERO
        if is_through:
            order.ahead = ZERO
        eaten = min(order.ahead, self._traded)
        order.ahead -= eaten
        got = min(wanted, self._traded - eaten)
        self._traded -= got
        if is_through and got < wanted:
            got += sum((level.quantity for level in self.take(order.side, wanted - got, order.price)), ZERO)
        return got
