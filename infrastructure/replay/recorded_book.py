"""A recorded book that orders can be sent to: they take what stood there, or queue behind it."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal

from infrastructure.paper_exchange.book_walk import is_within, quantity_within, walk
from infrastructure.paper_exchange.records import Level
from infrastructure.replay.depth_capture import BookChanged, BookShown, Change, Record, Traded
from shared.trading.money import ZERO
from shared.trading.orders import Side


@dataclass(frozen=True, slots=True)
class QueueFill:
    """What a resting order got at its price."""

    order_id: int
    price: Decimal
    quantity: Decimal


@dataclass(slots=True)
class _Resting:
    side: Side
    price: Decimal
    left: Decimal
    ahead: Decimal


class RecordedBook:
    """Plays a recording; the recorded market does not react to our orders, but does not serve them twice either.

    What was taken stays taken until the recording says something new about that level. A resting order waits behind
    all that stood at its price when it joined. Trades at the price eat the queue and then the order, trades through
    the price meet the order first, a level that shrinks below the queue shortens it (somebody ahead has cancelled;
    whoever cancelled while the level was longer is taken to have stood behind), and a best price of the other side
    that reaches the order fills it.
    """

    def __init__(self) -> None:
        self._levels: dict[Side, dict[Decimal, Decimal]] = {Side.BUY: {}, Side.SELL: {}}
        self._prices: dict[Side, list[Decimal]] = {Side.BUY: [], Side.SELL: []}
        self._taken: dict[Side, dict[Decimal, Decimal]] = {Side.BUY: {}, Side.SELL: {}}
        # What the recorded trades took since the last change: changes come later than trades.
        self._eaten: dict[Side, dict[Decimal, Decimal]] = {Side.BUY: {}, Side.SELL: {}}
        self._swept: dict[Side, Decimal | None] = {Side.BUY: None, Side.SELL: None}
        self._resting: dict[int, _Resting] = {}

    def copy(self) -> RecordedBook:
        """Return a book of its own in the same state, without the resting orders."""
        other = RecordedBook()
        other._levels, other._taken, other._eaten = (
            {side: dict(levels) for side, levels in each.items()} for each in (self._levels, self._taken, self._eaten)
        )
        other._prices = {side: list(prices) for side, prices in self._prices.items()}
        other._swept = dict(self._swept)
        return other

    # -- playing ---------------------------------------------------------------------------------------------------

    def play(self, record: Record) -> list[QueueFill]:
        """Apply one record and return what resting orders got by it."""
        if isinstance(record, Traded):
            self._eat(record)
            return list(self._traded(record))
        if isinstance(record, BookShown):
            self._levels = {Side.BUY: {}, Side.SELL: {}}
            self._prices = {Side.BUY: [], Side.SELL: []}
        self._eaten = {Side.BUY: {}, Side.SELL: {}}
        self._swept = {Side.BUY: None, Side.SELL: None}
        self._change(Side.SELL, record.bids)
        self._change(Side.BUY, record.asks)
        return list(self._crossed()) if isinstance(record, BookChanged) else []

    def _change(self, taker: Side, changes: Iterable[Change]) -> None:
        levels, prices, taken = self._levels[taker], self._prices[taker], self._taken[taker]
        queues = [order for order in self._resting.values() if order.side is not taker]
        for price, quantity in changes:
            taken.pop(price, None)
            if quantity:
                if price not in levels:
                    insort(prices, price)
                levels[price] = quantity
            elif levels.pop(price, None) is not None:
                del prices[bisect_left(prices, price)]
            for order in queues:
                if order.price == price:
                    order.ahead = min(order.ahead, quantity)

    def _eat(self, trade: Traded) -> None:
        """Nothing is left at better prices than that of the trade, and less at its own."""
        eaten = self._eaten[trade.taker]
        eaten[trade.price] = eaten.get(trade.price, ZERO) + trade.quantity
        self._swept[trade.taker] = trade.price

    def _traded(self, trade: Traded) -> Iterator[QueueFill]:
        """The taker met the best resting price first, and at one price whoever came first."""
        left = trade.quantity
        makers = [(order_id, order) for order_id, order in self._resting.items() if order.side is not trade.taker]
        for order_id, order in sorted(makers, key=lambda item: (-item[1].price * item[1].side.sign, item[0])):
            distance = (trade.price - order.price) * order.side.sign
            if distance > 0:
                continue
            eaten = min(order.ahead, left) if distance == 0 else ZERO
            order.ahead -= eaten
            for fill in self._fill(order_id, order, left - eaten):
                left -= fill.quantity
                yield fill

    def _crossed(self) -> Iterator[QueueFill]:
        for order_id, order in list(self._resting.items()):
            if self.crosses(order.side, order.price):
                met = sum((level.quantity for level in self.take(order.side, order.left, order.price)), ZERO)
                yield from self._fill(order_id, order, met)

    def _fill(self, order_id: int, order: _Resting, offered: Decimal) -> Iterator[QueueFill]:
        quantity = min(order.left, offered)
        if quantity > 0:
            order.left -= quantity
            if not order.left:
                del self._resting[order_id]
            yield QueueFill(order_id, order.price, quantity)

    # -- depth -----------------------------------------------------------------------------------------------------

    @property
    def mid(self) -> Decimal:
        """Half way between the best prices, USDT."""
        return (self.best(Side.BUY).price + self.best(Side.SELL).price) / 2

    def levels(self, taker: Side, count: int) -> list[Level]:
        """Return what ``taker`` can take, best price first: asks for BUY, bids for SELL."""
        levels: list[Level] = []
        for level in self._offers(taker):
            if len(levels) == count:
                break
            levels.append(level)
        return levels

    def best(self, taker: Side) -> Level:
        """Return the best level for ``taker``."""
        return next(self._offers(taker))

    def crosses(self, taker: Side, limit: Decimal) -> bool:
        """Tell whether the best price is ``limit`` or better for ``taker``."""
        return is_within(self.best(taker).price, limit, taker)

    def available(self, taker: Side, limit: Decimal | None) -> Decimal:
        """Return the quantity that ``taker`` can take at ``limit`` or better."""
        return quantity_within(self._offers(taker), taker, limit)

    def take(self, taker: Side, quantity: Decimal, limit: Decimal | None) -> list[Level]:
        """Take up to ``quantity`` at ``limit`` or better, best prices first, and return what was got."""
        got = walk(self._offers(taker), taker, quantity, limit)
        for level in got:
            self._taken[taker][level.price] = self._taken[taker].get(level.price, ZERO) + level.quantity
        return got

    def _offers(self, taker: Side) -> Iterator[Level]:
        prices, swept = self._prices[taker], self._swept[taker]
        taken, eaten = self._taken[taker], self._eaten[taker]
        for price in prices if taker is Side.BUY else reversed(prices):
            if swept is not None and price != swept and is_within(price, swept, taker):
                continue
            left = self._levels[taker][price] - taken.get(price, ZERO) - eaten.get(price, ZERO)
            if left > 0:
                yield Level(price, left)

    # -- queues ----------------------------------------------------------------------------------------------------

    def join(self, order_id: int, side: Side, price: Decimal, quantity: Decimal) -> None:
        """Let an order rest at ``price`` behind everything that stands there."""
        own_side = Side.SELL if side is Side.BUY else Side.BUY
        self._resting[order_id] = _Resting(side, price, quantity, self._levels[own_side].get(price, ZERO))

    def leave(self, order_id: int) -> None:
        """Take an order out of its queue; unknown ids are ignored."""
        self._resting.pop(order_id, None)

    def rests(self, order_id: int) -> bool:
        """Tell whether an order still waits in a queue."""
        return order_id in self._resting

    def ahead_of(self, order_id: int) -> Decimal:
        """Return what must still trade at its price before the order does, base asset."""
        return self._resting[order_id].ahead
