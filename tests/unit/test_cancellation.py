from __future__ import annotations

import asyncio

from shared.cancellation import end_task


async def test_a_task_that_swallows_one_cancellation_ends_all_the_same() -> None:
    swallowed = 0

    async def stubborn() -> None:
        nonlocal swallowed
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                swallowed += 1
                if swallowed == 2:
                    raise

    task = asyncio.create_task(stubborn())
    await asyncio.sleep(0)

    await end_task(task)

    assert task.done()
    assert swallowed == 2


async def test_the_error_of_an_ended_task_is_dropped() -> None:
    async def fail() -> None:
        raise RuntimeError("gone")

    task = asyncio.create_task(fail())
    await asyncio.sleep(0)

    await end_task(task)

    assert task.done()
