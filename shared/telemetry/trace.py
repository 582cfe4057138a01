"""The trace in hand: which story the running task belongs to, and which event it answers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TraceContext:
    """Where in a trace the current work stands.

    Attributes:
        trace_id: One id from the candle to the PnL.
        causation_id: ``event_id`` of the event being handled; None at the root of a trace.
    """

    trace_id: str
    causation_id: str | None = None


_current: ContextVar[TraceContext | None] = ContextVar("quantum_trace", default=None)


def current_trace() -> TraceContext | None:
    """Return the trace of the running task, or None outside any."""
    return _current.get()


@contextmanager
def use_trace(trace: TraceContext) -> Iterator[TraceContext]:
    """Make ``trace`` the current one inside the block; tasks started there inherit it."""
    token = _current.set(trace)
    try:
        yield trace
    finally:
        _current.reset(token)
