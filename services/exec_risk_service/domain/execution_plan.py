"""How a new execution is to be worked: its strategy, its slices, its end and the reasons, decided once at the start."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from decimal import Decimal
from types import MappingProxyType

from services.exec_risk_service.domain.executions import Execution, Strategy, Urgency
from services.exec_risk_service.domain.price_history import PriceHistory
from services.exec_risk_service.domain.quotes import Quote
from services.exec_risk_service.domain.slippage import SlippageMemory
from services.exec_risk_service.domain.strategies import smart, twap, vwap
from services.exec_risk_service.domain.strategies.slicing import Frame
from services.exec_risk_service.domain.strategies.smart import Choice, Situation
from shared.trading.instruments import Instrument, timeframe_duration
from shared.trading.money import ZERO


@dataclass(frozen=True, slots=True)
class _Pace:
    slices: int
    pause: timedelta


#: Slices of a TWAP or VWAP that was asked for by name.
_PACES: Mapping[Urgency, _Pace] = MappingProxyType(
    {
        Urgency.LOW: _Pace(15, timedelta(seconds=60)),
        Urgency.NORMAL: _Pace(15, timedelta(seconds=20)),
        Urgency.HIGH: _Pace(12, timedelta(seconds=5)),
    }
)
#: Time after the last slice for what was held up.
_GRACE = timedelta(seconds=30)
_SLICED = (Strategy.TWAP, Strategy.VWAP)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a plan is made from, besides the execution.

    Attributes:
        instrument: Grids and smallest order.
        quote: The book; None while it is not known.
        history: Closed candles of the symbol.
        memory: Past executions of the symbol; None before the first.
    """

    instrument: Instrument
    quote: Quote | None
    history: PriceHistory
    memory: SlippageMemory | None


def worked_out(execution: Execution, around: Surroundings) -> Execution:
    """Return ``execution`` with strategy, slices, end and explanation."""
    choice = _choice(execution, around)
    planned = replace(
        execution,
        strategy=choice.strategy,
        explanation=choice.explanation,
        expected_pct=choice.expected_pct,
    )
    return _with_slices(planned, choice, around) if choice.strategy in _SLICED else planned


def _choice(execution: Execution, around: Surroundings) -> Choice:
    seen = smart.choose(_situation(execution, around))
    if execution.asked is Strategy.SMART:
        return seen
    pace = _PACES[execution.urgency]
    asked = f"asked for {execution.asked.value}"
    return Choice(execution.asked, asked, pace.slices, pace.pause, seen.expected_pct)


def _situation(execution: Execution, around: Surroundings) -> Situation:
    memory = around.memory
    return Situation(
        side=execution.side,
        quantity=execution.quantity,
        quote=around.quote,
        tolerance_pct=execution.tolerance_pct,
        urgency=execution.urgency,
        volatility_pct=_volatility_pct(around.history),
        excess_pct=ZERO if memory is None else memory.excess_pct(execution.started_at),
        knows_the_day=vwap.knows_the_day(around.history.candles),
    )


def _volatility_pct(history: PriceHistory) -> Decimal | None:
    """Return the standard deviation of one minute's return, percent."""
    volatility, newest = history.volatility(), history.newest
    if volatility is None or newest is None:
        return None
    minutes = timeframe_duration(newest.timeframe).total_seconds() / 60
    return Decimal(str(round(volatility * 100 / minutes**0.5, 6)))


def _with_slices(execution: Execution, choice: Choice, around: Surroundings) -> Execution:
    room = execution.expires_at - execution.started_at
    duration = min(choice.duration, room * 9 / 10)
    frame = Frame(execution.started_at, duration, choice.slices, seed=execution.execution_id)
    if choice.strategy is Strategy.VWAP:
        candles = around.history.candles
        schedule = vwap.schedule(execution.quantity, execution.arrival_price, around.instrument, frame, candles)
    else:
        schedule = twap.schedule(execution.quantity, execution.arrival_price, around.instrument, frame)
    ends = execution.started_at + duration + _GRACE
    return replace(execution, schedule=schedule, expires_at=min(execution.expires_at, ends))
