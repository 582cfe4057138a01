"""A short life of an account that passes every effect of exec-risk: candle, entry, protection, exit, and again."""

from __future__ import annotations

import asyncio

import httpx

from shared.crashpoints import EXIT_CODE
from tests.support.account_stage import AccountStage
from tests.support.eventually import eventually
from tests.support.markets import BTC


async def live_until_the_crash(stage: AccountStage, point: str) -> None:
    """Start the service with ``point`` armed, trade, and return once it has ended there."""
    process = await stage.start(QT_CRASHPOINT=point)
    trading = asyncio.create_task(_open_and_close(stage))
    ended = asyncio.create_task(process.wait())
    await asyncio.wait((trading, ended), return_when=asyncio.FIRST_COMPLETED)
    is_over = trading.done() and not ended.done()
    trading.cancel()
    await asyncio.gather(trading, return_exceptions=True)
    if is_over and not isinstance(trading.exception(), httpx.TransportError):  # its death ends connections first
        trading.result()
    assert await ended == EXIT_CODE, f"it ended, but not at {point}"


async def live_on(stage: AccountStage) -> None:
    """Start without a crash point, come to rest, close what is open, and trade once more."""
    await stage.launch()
    await _resume_if_stopped(stage)
    await stage.marked()
    await comes_to_rest(stage)
    if stage.engine.position(BTC).quantity != 0:
        await _close(stage)
    await _open(stage)
    await _close(stage)


async def comes_to_rest(stage: AccountStage) -> None:
    """Wait until nothing is under way: every signal handled, every order settled, every event published."""

    async def is_at_rest() -> bool:
        if not await stage.has_handled("signal.generated"):
            return False
        unsettled = await stage.database.fetch("SELECT status FROM exec_risk.order_intent WHERE NOT settled")
        unpublished = await stage.database.fetchval("SELECT count(*) FROM exec_risk.outbox")
        stops = 0 if stage.engine.position(BTC).quantity == 0 else 2
        resting = [row["status"] for row in unsettled] == ["NEW"] * stops and len(stage.engine.open_algos(BTC)) == stops
        return resting and unpublished == 0

    # A minute's request weight may be spent: then the comparison with the exchange waits for the next minute.
    await eventually(is_at_rest, timeout=150, what="rest")


async def _open_and_close(stage: AccountStage) -> None:
    await stage.ready()
    await stage.marked()
    await _open(stage)
    await stage.marked()
    await _close(stage)
    await stage.marked()
    await _open(stage)
    await stage.control("emergency-stop", {"reason": "a test", "requested_by": "ada"})
    await stage.stop_is_verified()
    await comes_to_rest(stage)
    await _resume_if_stopped(stage)
    await eventually(lambda: _is_renewed(stage), timeout=30, what="a renewed lease")
    await stage.end()  # a clean end has effects of its own


async def _resume_if_stopped(stage: AccountStage) -> None:
    """Let trading go on after an emergency stop, once the exchange shows that it has done its work."""
    if (await stage.trading())["state"] != "HALTED":
        return
    await stage.stop_is_verified()
    assert stage.engine.position(BTC).quantity == 0
    answer = await stage.control("resume", {"reason": "a test", "by": "ada"})
    assert answer.status_code == 200, answer.text


async def _is_renewed(stage: AccountStage) -> bool:
    return bool(await stage.database.fetchval("SELECT max(lease_version) > 1 FROM exec_risk.account"))


async def _open(stage: AccountStage) -> None:
    await stage.signal("BUY")
    await comes_to_rest(stage)
    assert stage.engine.position(BTC).quantity > 0


async def _close(stage: AccountStage) -> None:
    await stage.signal("SELL")
    await comes_to_rest(stage)
    assert stage.engine.position(BTC).quantity == 0
