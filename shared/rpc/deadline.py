"""The deadline in hand: until when somebody waits for what the running task does.

A handler works under the deadline of its caller, and what it asks others in turn gets what is left of that time. Tasks
inherit it when they are started; one that outlives the call is started ``outside_deadline``.
"""

from __future__ import annotations

import asyncio
from contextvars import ContextVar, Token
from types import TracebackType

_current: ContextVar[float | None] = ContextVar("quantum_rpc_deadline", default=None)


def seconds_left() -> float | None:
    """Return how long somebody still waits, not below 0; None when nobody does."""
    deadline = _current.get()
    return None if deadline is None else max(0.0, deadline - asyncio.get_running_loop().time())


class _DeadlineBlock:
    """Sets the deadline for one block; every request passes here, and a generator would take three times as long."""

    __slots__ = ("_deadline", "_token")

    def __init__(self, deadline: float | None) -> None:
        self._deadline = deadline
        self._token: Token[float | None] | None = None

    def __enter__(self) -> None:
        self._token = _current.set(self._deadline)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._token is not None
        _current.reset(self._token)


def use_deadline(loop_time: float) -> _DeadlineBlock:
    """Work inside the block for somebody who waits until ``loop_time`` on the running loop's clock."""
    return _DeadlineBlock(loop_time)


def outside_deadline() -> _DeadlineBlock:
    """Work for nobody who waits: for starting a task that outlives the call it was started by."""
    return _DeadlineBlock(None)
