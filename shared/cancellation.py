"""Ending a task for certain, because one cancellation can be lost."""

from __future__ import annotations

import asyncio
from typing import Any

_AGAIN_AFTER_SECONDS = 0.2


async def end_task(task: asyncio.Task[Any]) -> None:
    """Cancel ``task`` and wait until it is over; what it returned or raised is dropped.

    ``asyncio.wait_for`` before Python 3.12 swallows a cancellation that arrives together with the result it waits
    for, and redis-py sends every command through it: a task that reads from Redis in a loop can survive
    ``cancel()``, and ``await task`` then never returns. So the cancellation is repeated.
    """
    while not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=_AGAIN_AFTER_SECONDS)
    if not task.cancelled():
        task.exception()  # marks it as seen
