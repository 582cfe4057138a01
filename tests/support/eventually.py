"""Waiting for a condition instead of for an amount of time."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import TypeVar, overload

T = TypeVar("T")


@overload
async def eventually(probe: Callable[[], Awaitable[T]], *, timeout: float = 20.0, what: str = "condition") -> T: ...


@overload
async def eventually(probe: Callable[[], T], *, timeout: float = 20.0, what: str = "condition") -> T: ...


async def eventually(probe: Callable[[], T | Awaitable[T]], *, timeout: float = 20.0, what: str = "condition") -> T:
    """Return the first truthy result of ``probe``; fail with ``what`` when none came within ``timeout`` seconds."""
    deadline = asyncio.get_running_loop().time() + timeout
    while True:
        result = probe()
        value = await result if inspect.isawaitable(result) else result
        if value:
            return value
        if asyncio.get_running_loop().time() > deadline:
            raise AssertionError(f"{what} did not become true within {timeout} s; last value: {value!r}")
        await asyncio.sleep(0.01)
