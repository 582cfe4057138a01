"""The trace in hand: which story the running task belongs to, and which event it answers.

Tasks inherit it when they are started, ``asyncio.to_thread`` takes it along into the thread, and the bus and RPC carry
it from process to process.
"""

from __future__ import annotations

from contextvars import ContextVar, Token
from dataclasses import dataclass
from types import TracebackType


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


class _TraceBlock:
    """Sets the trace for one block; every event passes here, and a generator would take three times as long."""

    __slots__ = ("_token", "_trace")

    def __init__(self, trace: TraceContext | None) -> None:
        self._trace = trace
        self._token: Token[TraceContext | None] | None = None

    def __enter__(self) -> None:
        self._token = _current.set(self._trace)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._token is not None
        _current.reset(self._token)


def use_trace(trace: TraceContext) -> _TraceBlock:
    """Make ``trace`` the current one inside the block; tasks started there inherit it."""
    return _TraceBlock(trace)


def outside_trace() -> _TraceBlock:
    """Belong to no trace inside the block: for starting a task that outlives the event it was started by."""
    return _TraceBlock(None)
