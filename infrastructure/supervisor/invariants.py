"""What must hold between the exchange's books and ours when a run has come to rest. Pure: books in, verdicts out."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from types import MappingProxyType
from typing import Any

from services.exec_risk_service.ports import OUR_PREFIX

#: More findings of one kind than this are only counted.
_FINDINGS_SHOWN = 5
_ZERO = Decimal(0)
#: States in which an intent claims to be, or to have been, on the exchange.
_ON_EXCHANGE = frozenset({"NEW", "PARTIALLY_FILLED", "TRIGGERED", "FILLED"})


@dataclass(frozen=True, slots=True)
class BookedFill:
    """One trade as one side booked it.

    Attributes:
        signed_quantity: Base asset; negative for SELL.
        order_id: The exchange's id of the regular order.
    """

    symbol: str
    trade_id: int
    client_order_id: str
    order_id: str
    signed_quantity: Decimal
    price: Decimal
    commission: Decimal
    realized_pnl: Decimal


@dataclass(frozen=True, slots=True)
class ExchangeOrder:
    """A regular order on the exchange.

    Attributes:
        algo_id: The conditional order that it came from, or None.
        is_refused: The exchange said no, so it had no effect.
    """

    symbol: str
    order_id: str
    client_order_id: str
    executed: Decimal
    algo_id: str | None
    is_refused: bool


@dataclass(frozen=True, slots=True)
class ExchangeAlgo:
    """A conditional order on the exchange; its market order is a regular one."""

    symbol: str
    algo_id: str
    client_order_id: str
    is_refused: bool


@dataclass(frozen=True, slots=True)
class ExchangeBooks:
    """What the exchange knows of the account; amounts in USDT, positions in base asset by symbol.

    Attributes:
        transfers: Deposits, withdrawals and the clearance fees of liquidations.
    """

    wallet_start: Decimal
    wallet: Decimal
    funding: Decimal
    unrealized_pnl: Decimal
    positions: Mapping[str, Decimal]
    orders: tuple[ExchangeOrder, ...]
    algos: tuple[ExchangeAlgo, ...]
    fills: tuple[BookedFill, ...]
    transfers: Decimal = _ZERO

    @classmethod
    def from_json(cls, books: Mapping[str, Any]) -> ExchangeBooks:
        """Read the answer of the paper exchange's ``GET /admin/books``.

        Raises:
            KeyError: A field is missing.
        """
        positions = books["positions"]

        def booked(*kinds: str) -> Decimal:
            return sum((Decimal(row["amount"]) for row in books["incomes"] if row["type"] in kinds), _ZERO)

        held: defaultdict[str, Decimal] = defaultdict(lambda: _ZERO)  # hedge mode has two positions per symbol
        for row in positions:
            held[row["symbol"]] += Decimal(row["quantity"])
        return cls(
            wallet_start=Decimal(books["wallet_start"]),
            wallet=Decimal(books["wallet"]),
            funding=booked("FUNDING_FEE"),
            unrealized_pnl=sum((Decimal(position["unrealized_pnl"]) for position in positions), _ZERO),
            positions=MappingProxyType(dict(held)),
            orders=tuple(map(_exchange_order, books["orders"])),
            algos=tuple(map(_exchange_algo, books["algo_orders"])),
            fills=tuple(map(_exchange_fill, books["fills"])),
            transfers=booked("TRANSFER", "INSURANCE_CLEAR"),
        )

    @property
    def our_client_order_ids(self) -> set[str]:
        """Ids of every order of ours that the exchange took."""
        taken: list[ExchangeOrder | ExchangeAlgo] = [*self.orders, *self.algos]
        return {order.client_order_id for order in taken if is_ours(order.client_order_id) and not order.is_refused}


@dataclass(frozen=True, slots=True)
class Intent:
    """One row of ``order_intent``."""

    client_order_id: str
    symbol: str
    cause_event_id: str
    leg: str
    sequence: int
    status: str
    filled_quantity: Decimal


@dataclass(frozen=True, slots=True)
class OurBooks:
    """What our journal knows of the account; amounts in USDT, positions in base asset by symbol.

    Attributes:
        wallet: None when the exchange never told it.
        adjustments: Differences that we booked to follow the exchange, and transfers.
    """

    wallet: Decimal | None
    start_wallet: Decimal
    realized_pnl: Decimal
    commission: Decimal
    funding: Decimal
    adjustments: Decimal
    positions: Mapping[str, Decimal]
    intents: tuple[Intent, ...]
    fills: tuple[BookedFill, ...]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether one invariant holds.

    Attributes:
        evidence: What contradicts it, one line each; empty when it holds.
    """

    evidence: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        return not self.evidence

    def __str__(self) -> str:
        shown = "; ".join(self.evidence[:_FINDINGS_SHOWN])
        left = len(self.evidence) - _FINDINGS_SHOWN
        return f"{shown}; and {left} more" if left > 0 else shown


@dataclass(frozen=True, slots=True)
class Invariants:
    """The three that every run is measured by."""

    fills_sum_to_positions: Verdict
    one_order_per_intent: Verdict
    wallet_reconciles: Verdict

    @property
    def hold(self) -> bool:
        """Whether all of them hold."""
        return all(verdict.holds for verdict in self.by_name().values())

    def by_name(self) -> dict[str, Verdict]:
        """Return each verdict by its name."""
        return {
            "fills_sum_to_positions": self.fills_sum_to_positions,
            "one_order_per_intent": self.one_order_per_intent,
            "wallet_reconciles": self.wallet_reconciles,
        }


def is_ours(client_order_id: str) -> bool:
    """Tell whether an order was sent by exec-risk."""
    return client_order_id.startswith(OUR_PREFIX)


def check_invariants(exchange: ExchangeBooks, ours: OurBooks) -> Invariants:
    """Compare the two books of one account at rest."""
    return Invariants(
        fills_sum_to_positions=Verdict(tuple(_position_findings(exchange, ours))),
        one_order_per_intent=Verdict(tuple(_intent_findings(exchange, ours))),
        wallet_reconciles=Verdict(tuple(_wallet_findings(exchange, ours))),
    )


# -- positions -------------------------------------------------------------------------------------------------------


def _position_findings(exchange: ExchangeBooks, ours: OurBooks) -> Iterable[str]:
    """Per symbol four numbers must be one: sum of our fills, of the exchange's, our position, the exchange's."""
    our_sums, exchange_sums = _sums(ours.fills), _sums(exchange.fills)
    for symbol in sorted({*our_sums, *exchange_sums, *ours.positions, *exchange.positions}):
        numbers = {
            "our fills": our_sums.get(symbol, _ZERO),
            "the exchange's fills": exchange_sums.get(symbol, _ZERO),
            "our position": ours.positions.get(symbol, _ZERO),
            "the exchange's position": exchange.positions.get(symbol, _ZERO),
        }
        if len(set(numbers.values())) > 1:
            yield f"{symbol}: " + ", ".join(f"{name} {_plain(number)}" for name, number in numbers.items())
    yield from _fill_differences(exchange, ours)


def _fill_differences(exchange: ExchangeBooks, ours: OurBooks) -> Iterable[str]:
    """Equal sums can hide two wrongs, so the trades are also compared one by one."""
    theirs = Counter((fill.symbol, fill.trade_id, fill.signed_quantity, fill.price) for fill in exchange.fills)
    booked = Counter((fill.symbol, fill.trade_id, fill.signed_quantity, fill.price) for fill in ours.fills)
    for name, left in (("only we have", booked - theirs), ("only the exchange has", theirs - booked)):
        for symbol, trade_id, quantity, price in sorted(left):
            yield f"{symbol}: {name} trade {trade_id} of {_plain(quantity)} at {_plain(price)}"


def _sums(fills: Iterable[BookedFill]) -> dict[str, Decimal]:
    sums: defaultdict[str, Decimal] = defaultdict(Decimal)
    for fill in fills:
        sums[fill.symbol] += fill.signed_quantity
    return dict(sums)


# -- intents ---------------------------------------------------------------------------------------------------------


def _intent_findings(exchange: ExchangeBooks, ours: OurBooks) -> Iterable[str]:
    yield from _repeated(ours.intents, lambda intent: intent.client_order_id, "rows have the client order id")
    yield from _repeated(
        ours.intents,
        lambda intent: f"({intent.cause_event_id}, {intent.leg}, {intent.sequence})",
        "intents have the key",
    )
    yield from _order_findings(exchange, ours)
    yield from _algo_findings(exchange)
    for intent in ours.intents:
        yield from _fate_findings(intent, exchange, ours)


def _repeated(intents: Iterable[Intent], key: Callable[[Intent], str], what: str) -> Iterable[str]:
    for name, count in sorted(Counter(map(key, intents)).items()):
        if count > 1:
            yield f"{count} {what} {name}"


def _order_findings(exchange: ExchangeBooks, ours: OurBooks) -> Iterable[str]:
    """What was sent once is on the exchange at most once, and nothing of ours is there without an intent."""
    known = {intent.client_order_id: intent for intent in ours.intents}
    sent: list[ExchangeOrder | ExchangeAlgo] = [order for order in exchange.orders if order.algo_id is None]
    sent += exchange.algos
    effective: Counter[str] = Counter()
    for order in sent:
        if not is_ours(order.client_order_id):
            continue
        effective[order.client_order_id] += not order.is_refused
        intent = known.get(order.client_order_id)
        if intent is None:
            yield f"{order.symbol}: order {order.client_order_id} on the exchange has no intent"
        elif intent.symbol != order.symbol:
            yield f"order {order.client_order_id} is in {order.symbol}, its intent in {intent.symbol}"
    for name, count in sorted(effective.items()):
        if count > 1:
            yield f"intent {name} has {count} orders on the exchange"


def _algo_findings(exchange: ExchangeBooks) -> Iterable[str]:
    """A conditional order becomes at most one market order, which keeps its client id."""
    algos = {(algo.symbol, algo.algo_id): algo for algo in exchange.algos}
    triggered: Counter[tuple[str, str]] = Counter()
    for order in exchange.orders:
        if order.algo_id is None:
            continue
        algo = algos.get((order.symbol, order.algo_id))
        triggered[order.symbol, order.algo_id] += not order.is_refused
        if algo is None:
            yield f"{order.symbol}: order {order.order_id} names conditional order {order.algo_id}, which is not there"
        elif algo.client_order_id != order.client_order_id:
            yield f"{order.symbol}: {algo.client_order_id} became an order with the id {order.client_order_id}"
    for (symbol, algo_id), count in sorted(triggered.items()):
        if count > 1:
            yield f"{symbol}: conditional order {algo_id} became {count} orders"


def _fate_findings(intent: Intent, exchange: ExchangeBooks, ours: OurBooks) -> Iterable[str]:
    """What was executed must be in the fills of both books, and in the intent."""
    name = intent.client_order_id
    orders = [order for order in exchange.orders if order.client_order_id == name]
    order_ids = {order.order_id for order in orders}
    is_there = bool(orders) or any(algo.client_order_id == name for algo in exchange.algos)
    if intent.status in _ON_EXCHANGE and not is_there:
        yield f"{intent.symbol}: intent {name} is {intent.status}, but the exchange has no such order"

    def filled(fills: Iterable[BookedFill]) -> Decimal:
        belonging = (
            fill
            for fill in fills
            if fill.symbol == intent.symbol and (fill.client_order_id == name or fill.order_id in order_ids)
        )
        return sum((abs(fill.signed_quantity) for fill in belonging), _ZERO)

    numbers = {
        "executed": sum((order.executed for order in orders), _ZERO),
        "in the exchange's fills": filled(exchange.fills),
        "in our fills": filled(ours.fills),
        "in the intent": intent.filled_quantity,
    }
    if len(set(numbers.values())) > 1:
        told = ", ".join(f"{_plain(number)} {where}" for where, number in numbers.items())
        yield f"{intent.symbol}: quantity of {name} is {told}"


# -- wallet ----------------------------------------------------------------------------------------------------------


def _wallet_findings(exchange: ExchangeBooks, ours: OurBooks) -> Iterable[str]:
    realized = sum((fill.realized_pnl for fill in exchange.fills), _ZERO)
    fees = sum((fill.commission for fill in exchange.fills), _ZERO)
    expected = exchange.wallet_start + realized - fees + exchange.funding + exchange.transfers
    if exchange.wallet != expected:
        yield (
            f"the exchange's wallet is {_plain(exchange.wallet)}, but start {_plain(exchange.wallet_start)} "
            f"+ realised {_plain(realized)} - fees {_plain(fees)} + funding {_plain(exchange.funding)} "
            f"+ transfers {_plain(exchange.transfers)} = {_plain(expected)}"
        )
    if ours.wallet is None:
        yield "our wallet is unknown: the exchange never told it"
        return
    if ours.wallet != exchange.wallet:
        yield f"our wallet is {_plain(ours.wallet)}, the exchange's {_plain(exchange.wallet)}"
    booked = ours.start_wallet + ours.realized_pnl - ours.commission + ours.funding + ours.adjustments
    if booked != ours.wallet:
        yield f"our wallet is {_plain(ours.wallet)}, but what we booked adds up to {_plain(booked)}"
    if ours.adjustments != exchange.transfers:
        yield f"we booked {_plain(ours.adjustments)} only to follow the exchange, without a reason"


# -- reading ---------------------------------------------------------------------------------------------------------


def _exchange_order(row: Mapping[str, Any]) -> ExchangeOrder:
    return ExchangeOrder(
        symbol=row["symbol"],
        order_id=str(row["order_id"]),
        client_order_id=row["client_order_id"],
        executed=Decimal(row["executed"]),
        algo_id=None if row["algo_id"] is None else str(row["algo_id"]),
        is_refused=row["status"] == "REJECTED",
    )


def _exchange_algo(row: Mapping[str, Any]) -> ExchangeAlgo:
    # One whose market order was refused at the trigger is REJECTED too, and then rested on the exchange all the same;
    # refused at its arrival it would not be in the books at all.
    return ExchangeAlgo(
        symbol=row["symbol"], algo_id=str(row["algo_id"]), client_order_id=row["client_algo_id"], is_refused=False
    )


def _exchange_fill(row: Mapping[str, Any]) -> BookedFill:
    quantity = Decimal(row["quantity"])
    return BookedFill(
        symbol=row["symbol"],
        trade_id=int(row["trade_id"]),
        client_order_id=row["client_order_id"],
        order_id=str(row["order_id"]),
        signed_quantity=quantity if row["side"] == "BUY" else -quantity,
        price=Decimal(row["price"]),
        commission=Decimal(row["commission"]),
        realized_pnl=Decimal(row["realized_pnl"]),
    )


def _plain(number: Decimal) -> str:
    return f"{number.normalize():f}"
