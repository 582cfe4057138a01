"""Slices: the target cut into parts with their times, and the next part of it that is due."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from services.exec_risk_service.domain.executions import Slice
from services.exec_risk_service.domain.quotes import is_worse
from services.exec_risk_service.domain.strategies.taking import beyond_guard, take, too_small
from services.exec_risk_service.domain.strategies.view import GiveUp, Plan, SliceView, Wait
from shared.trading.instruments import Instrument
from shared.trading.money import ZERO, round_down

#: A slice may come early or late by this share of the pause between two: a clockwork can be seen, and traded against.
_JITTER = 0.25
#: A slice is worth this many of the exchange's smallest orders, or there are fewer slices.
_SMALLEST_ORDERS = 2
#: What was held up is caught up with by slices of at most this many times the largest one ...
_CATCH_UP = 2
#: ... and no two are closer together than this share of the pause between two.
_CATCH_UP_PAUSE = 0.25


@dataclass(frozen=True, slots=True)
class Frame:
    """The time that slices are spread over.

    Attributes:
        start: Market time of the first slice.
        duration: From the first slice to the end of the last one's share of time.
        slices: Slices wanted; there are fewer where they would be too small.
        seed: Of the jitter.
    """

    start: datetime
    duration: timedelta
    slices: int
    seed: str


def slice_count(quantity: Decimal, price: Decimal, instrument: Instrument, wanted: int) -> int:
    """Return how many slices ``quantity`` can be cut into without one of them being too small to send; at least 1."""
    smallest = max(instrument.min_quantity, instrument.min_notional / price, instrument.lot_step) * _SMALLEST_ORDERS
    return max(1, min(wanted, int(quantity / smallest)))


def due_times(frame: Frame, count: int) -> tuple[datetime, ...]:
    """Return ``count`` moments over the frame: the first at its start, the others shaken by its seeded jitter."""
    rng = random.Random(frame.seed)  # noqa: S311 - spreads orders over time, the same in every replay
    pause = frame.duration / count
    shaken = (frame.start + pause * (number + rng.uniform(-_JITTER, _JITTER)) for number in range(1, count))
    return (frame.start, *shaken)


def cut(
    quantity: Decimal, times: Sequence[datetime], weights: Sequence[Decimal], instrument: Instrument
) -> tuple[Slice, ...]:
    """Return ``quantity`` in slices on the lot grid, in proportion to ``weights``; rounding goes to later slices.

    The slices add up to ``quantity`` exactly. A slice that would be empty is left out.
    """
    total = sum(weights, ZERO)
    slices: list[Slice] = []
    share, sent = ZERO, ZERO
    for number, (due, weight) in enumerate(zip(times, weights, strict=True), start=1):
        share += weight
        is_last = number == len(times)
        part = quantity - sent if is_last else round_down(quantity * share / total - sent, instrument.lot_step)
        if part > 0:
            slices.append(Slice(due, part))
            sent += part
    return tuple(slices)


def plan(view: SliceView) -> Plan:
    """Return the slice that is due, up to what is behind the schedule; beyond the guard it waits for the market."""
    if (nothing_left := too_small(view)) is not None:
        return nothing_left
    want = _due(view)
    if want <= 0 or not view.is_tradable(want):
        return Wait(_next(view), "the next slice is not due yet")
    if view.quote is not None and not view.quote.is_crossed:
        best = view.quote.offers(view.side)[0].price
        if is_worse(best, view.guard_price, view.side):
            return Wait(None, beyond_guard(view, best))
    taken = take(view, want)
    return Wait(None, taken.reason) if isinstance(taken, GiveUp) else taken


def _due(view: SliceView) -> Decimal:
    """Return what should be sent now: what is behind the schedule, all that is left when the rest would be dust."""
    behind = sum((part.quantity for part in view.schedule if part.due <= view.now), ZERO) - view.filled
    if behind <= 0 or _was_just_busy(view):
        return ZERO
    largest = max(part.quantity for part in view.schedule)
    want = min(behind, largest * _CATCH_UP, view.remaining)
    rest = view.on_grid(view.remaining - want)
    return view.remaining if rest > 0 and not view.is_tradable(rest) else want


def _was_just_busy(view: SliceView) -> bool:
    if view.last_sent is None or len(view.schedule) < 2:
        return False
    pause = (view.schedule[-1].due - view.schedule[0].due) / (len(view.schedule) - 1)
    return view.now - view.last_sent < pause * _CATCH_UP_PAUSE


def _next(view: SliceView) -> datetime | None:
    return min((part.due for part in view.schedule if part.due > view.now), default=None)
