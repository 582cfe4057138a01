"""The questions that exec-risk answers."""

from __future__ import annotations

import pytest

from shared.rpc.commands import GetPositionsRequest, GetPositionStatusRequest, ValidateRiskRequest
from shared.trading.orders import Side
from tests.support.exec_risk_desk import Desk, desk_on, started_desk
from tests.support.markets import BTC, flat


async def ask(
    desk: Desk, size_usd: float = 500.0, leverage: float = 5.0, symbol: str = BTC
) -> tuple[str | None, float]:
    request = ValidateRiskRequest(symbol=symbol, size_usd=size_usd, leverage=leverage)
    result = await desk.service.handlers.risk_validator.validate_risk(request)
    assert result.approved == (result.reason is None)
    return result.reason, result.max_allowed_size


async def test_a_trade_within_the_limits_is_approved() -> None:
    desk = await started_desk(flat(50_000, 5))

    assert await ask(desk) == (None, 1_000.0)


async def test_the_largest_size_is_what_the_tightest_limit_leaves() -> None:
    desk = await started_desk(flat(50_000, 5), wallet="60")  # 1 % of it may be lost at a stop of 2 %

    reason, largest = await ask(desk, size_usd=200.0)

    assert reason == "loss at the stop would be 4.00 USD; one trade may lose 0.60 USD"
    assert largest == 0  # 30 USD would pass, but the smallest order is 100 USD


async def test_leverage_beyond_the_limit_is_refused_whatever_the_size() -> None:
    desk = await started_desk(flat(50_000, 5))

    assert await ask(desk, leverage=50) == ("leverage 50 is above the limit 20", 0.0)


async def test_before_the_account_is_known_nothing_is_approved() -> None:
    desk = desk_on(flat(50_000, 5))

    reason, largest = await ask(desk)

    assert reason == "the account is unknown: no balance was read from the exchange yet"
    assert largest == 0


async def test_an_unlisted_symbol_is_refused() -> None:
    desk = await started_desk(flat(50_000, 5))

    assert await ask(desk, symbol="DOGEUSDT") == ("DOGEUSDT is not listed on the exchange", 0.0)


async def test_a_symbol_with_a_position_is_taken() -> None:
    desk = await started_desk(flat(50_000, 5))
    await desk.signal("BUY")

    assert await ask(desk) == ("a position in BTCUSDT is open or being opened", 0.0)


async def test_asking_changes_nothing() -> None:
    desk = await started_desk(flat(50_000, 5))
    book, told = desk.book, len(desk.bus.events)

    await ask(desk)

    assert desk.book is book
    assert len(desk.bus.events) == told


async def test_positions_are_told_with_their_triggers() -> None:
    desk = await started_desk(flat(50_000, 5))
    await desk.signal("SELL")

    status = await desk.service.handlers.position_monitor.get_position_status(GetPositionStatusRequest(symbol=BTC))
    everything = await desk.service.handlers.position_monitor.get_positions(GetPositionsRequest())

    assert status.status == "open"
    assert status.position is not None
    assert everything.positions == (status.position,)
    assert (status.position.side, status.position.quantity) == (Side.SELL, 0.01)
    assert status.position.mark_price == 50_000
    entry = status.position.entry_price
    assert 49_990 < entry <= 50_000, "sold at the bid"
    assert status.position.unrealized_pnl_usd == pytest.approx((entry - 50_000) * 0.01)
    assert status.position.stop_loss_price == pytest.approx(entry * 1.02, abs=0.1)


async def test_no_position_is_an_answer() -> None:
    desk = await started_desk(flat(50_000, 5))

    status = await desk.service.handlers.position_monitor.get_position_status(GetPositionStatusRequest(symbol=BTC))

    assert (status.status, status.position) == ("no_position", None)
