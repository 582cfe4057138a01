"""Stops and targets inside a turn: placed when a position is announced, moved as prices and advice come in."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from typing import Any

from services.exec_risk_service.domain import facts
from services.exec_risk_service.domain.dynamic_exits import ExitView, moved_exits, with_first_exits, with_same_distances
from services.exec_risk_service.domain.positions import Origin, Position
from services.exec_risk_service.domain.step import Turn
from shared.trading.money import ZERO


def exit_view(turn: Turn, position: Position) -> ExitView | None:
    """Return what decides about the exits of ``position``; None while its symbol is not listed."""
    instrument = turn.context.instruments.get(position.symbol)
    if instrument is None:
        return None
    rules, policy = turn.context.rules, turn.context.policy.policy
    # What nobody of ours opened keeps the plain stop that it was given.
    is_dynamic = rules.exits.is_dynamic and policy.enable_dynamic_tpsl and position.origin is Origin.SIGNAL
    equity = turn.book.equity()
    entry = turn.book.entry_under_way(position.symbol)
    return ExitView(
        rules=replace(rules.exits, is_dynamic=is_dynamic),
        instrument=instrument,
        history=turn.history.get(position.symbol),
        max_holding=rules.max_holding,
        max_loss=None if equity is None else equity * Decimal(str(policy.max_risk_pct_per_trade)),
        quantity=position.size + (ZERO if entry is None else entry.remaining),
    )


def plan_exits(turn: Turn, position: Position) -> Position:
    """Return ``position`` with its first stop and target."""
    view = exit_view(turn, position)
    if view is None or position.stop_price is not None or position.net.is_flat:
        return position
    return with_first_exits(position, view, _reference(turn, position))


def retarget_after_growth(turn: Turn, position: Position) -> Position:
    """Return a position that grew and has another entry price: its stop and target move with it."""
    instrument = turn.context.instruments.get(position.symbol)
    if position.stop_price is None or instrument is None or position.origin is Origin.EXTERNAL:
        return position
    return with_same_distances(position, instrument)


def follow_market(turn: Turn, position: Position, mark: Decimal, at: datetime) -> Position:
    """Return ``position`` with its exits where ``mark`` and market time want them; a closing one is left alone."""
    view = exit_view(turn, position)
    return position if view is None or position.exit is not None else moved_exits(position, mark, at, view)


def publish_update(turn: Turn, position: Position, mark: Decimal, *, before: Position, **more: Any) -> None:
    """Tell ``position`` at ``mark``, with the reason of every exit that moved since ``before``."""
    if not position.is_announced:
        return
    payload = facts.position_updated(position, mark, turn.context.now)
    metadata = {**payload.metadata, **_moves(before, position), **more}
    turn.publish(
        "position.updated",
        payload.model_copy(update={"metadata": metadata}),
        trace_id=position.trace_id,
        causation_id=position.opened_event_id,
    )


def _moves(before: Position, after: Position) -> dict[str, Any]:
    moves = {
        "stop_moved": (before.stop_price, after.stop_price, after.protection.stop_basis),
        "target_moved": (before.target_price, after.target_price, after.protection.target_basis),
    }
    return {
        name: {"from": str(old), "to": str(new), "reason": basis.value}
        for name, (old, new, basis) in moves.items()
        if old != new
    }


def _reference(turn: Turn, position: Position) -> Decimal | None:
    """A stranger's position may be far under water: its stop is measured from where the market is now."""
    if position.origin is Origin.SIGNAL:
        return None
    mark = turn.book.price_of(position)
    return min(mark, position.net.entry_price) if position.is_long else max(mark, position.net.entry_price)
