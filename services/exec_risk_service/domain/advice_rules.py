"""``rl.decision`` of type ``dynamic_tpsl``: another stop and target for an open position, within limits."""

from __future__ import annotations

from datetime import timedelta

from services.exec_risk_service.domain.dynamic_exits import advised_exits
from services.exec_risk_service.domain.exit_rules import exit_view, publish_update
from services.exec_risk_service.domain.inputs import ExitsAdvised
from services.exec_risk_service.domain.positions import Origin, Position
from services.exec_risk_service.domain.step import Turn
from services.exec_risk_service.domain.upkeep import upkeep

#: Advice about a market that is gone is worse than none.
_ADVICE_HOLDS = timedelta(minutes=5)


def on_exits_advised(turn: Turn, item: ExitsAdvised) -> None:
    """Move stop and target as advised, or say in ``position.updated`` why not.

    Advice for a symbol without a position is not kept: the signal that opens one carries its own percentages.
    """
    position = turn.positions.get(item.symbol)
    if position is None or not position.is_announced:
        return
    answer = _answer(turn, item, position)
    mark = turn.book.price_of(position)
    if isinstance(answer, str):
        publish_update(turn, position, mark, before=position, advice_refused=answer, advised_by=item.agent)
        return
    turn.save_position(answer)
    publish_update(turn, answer, mark, before=position, advised_by=item.agent)
    upkeep(turn, item.symbol, at=item.at)


def _answer(turn: Turn, item: ExitsAdvised, position: Position) -> Position | str:
    view = exit_view(turn, position)
    if position.origin is Origin.EXTERNAL:
        return "the position is a stranger's"
    if position.exit is not None:
        return f"the position is being closed ({position.exit.reason.value})"
    if view is None:
        return f"{item.symbol} is not listed"
    if item.at - item.decided_at > _ADVICE_HOLDS:
        return f"the advice is {(item.at - item.decided_at).total_seconds():.0f} s old"
    return advised_exits(position, item.advice, turn.book.price_of(position), view)
