"""A call that is being run, and everybody who asked for it."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Literal

from shared.rpc.commands import CommandSpec
from shared.rpc.messages import Attempt, CallKey, Cancellation, RPCRequest
from shared.rpc.transport import Delivery

#: Cancellations that are remembered because they may be heard before their request.
_MOST_CANCELLED = 10_000


@dataclass(slots=True, eq=False)
class Job:
    """One call at work.

    Attributes:
        delivery: What it was begun for.
        request: The same, decoded.
        spec: Its command; None when the service has none of that name.
        deadline: Until when somebody waits for it, on the loop's clock.
        asks: The deliveries that wait for its answer, this one included.
        after: Deliveries that asked for it when it was being ended already.
        task: The work.
        has_begun: Whether the task has made its first step; one that has not cannot be cancelled in an orderly way.
        cut_off: Why the work was ended early.
    """

    delivery: Delivery
    request: RPCRequest
    spec: CommandSpec | None
    deadline: float
    asks: dict[str, RPCRequest] = field(init=False)
    after: list[Delivery] = field(default_factory=list)
    task: asyncio.Task[None] | None = None
    has_begun: bool = False
    cut_off: Literal["deadline", "caller"] | None = None
    _timer: asyncio.TimerHandle | None = None

    def __post_init__(self) -> None:
        self.asks = {self.delivery.entry_id: self.request}

    @property
    def has_effect(self) -> bool:
        """Whether it must run to its end once it was begun."""
        return self.spec is not None and self.spec.has_effect

    def begin(self, task: asyncio.Task[None]) -> None:
        """Take note of the work; unless it has an effect, it ends at the deadline."""
        self.task = task
        self._arm()

    def finish(self) -> None:
        """Take note that the work is over."""
        if self._timer is not None:
            self._timer.cancel()

    def knows(self, attempt: Attempt) -> bool:
        """Whether that attempt waits for the answer already."""
        return any(ask.attempt == attempt for ask in self.asks.values())

    def join(self, delivery: Delivery, request: RPCRequest, deadline: float) -> None:
        """Answer this repeated request, too, and work on for as long as it is waited for."""
        self.asks[delivery.entry_id] = request
        if deadline > self.deadline:
            self.deadline = deadline
            self._arm()

    def leave(self, cancellation: Cancellation) -> list[str]:
        """Return the deliveries that nobody waits for any more; when none is left, the work ends.

        A command with an effect goes on, and answers: its caller may have asked again elsewhere.
        """
        if self.has_effect:
            return []
        gone = [entry_id for entry_id, ask in self.asks.items() if ask.attempt == cancellation.attempt]
        for entry_id in gone:
            del self.asks[entry_id]
        if not self.asks:
            self._end("caller")
        return gone

    def _arm(self) -> None:
        if self.has_effect:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_at(self.deadline, self._end, "deadline")

    def _end(self, why: Literal["deadline", "caller"]) -> None:
        self.cut_off = why
        if self.task is not None and self.has_begun:
            self.task.cancel()


class CancelledCalls:
    """What was cancelled lately, for requests that are read only after their cancellation."""

    def __init__(self) -> None:
        self._cancelled: OrderedDict[tuple[CallKey, Attempt], None] = OrderedDict()

    def add(self, cancellation: Cancellation) -> None:
        """Remember one."""
        self._cancelled[cancellation.key, cancellation.attempt] = None
        if len(self._cancelled) > _MOST_CANCELLED:
            self._cancelled.popitem(last=False)

    def __contains__(self, request: RPCRequest) -> bool:
        return bool(self._cancelled) and (request.key, request.attempt) in self._cancelled
