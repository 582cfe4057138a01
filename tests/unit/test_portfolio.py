"""The portfolio as a fold over facts, across a restart, and the archive's records and cursors."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.analytics_os_service.adapters.memory_archive import MemoryArchive
from services.analytics_os_service.domain.archived_event import Cursor, archived, restored
from services.analytics_os_service.domain.portfolio import PORTFOLIO_FACTS, Portfolio
from services.analytics_os_service.handlers.portfolio_keeper import PortfolioKeeper
from shared.errors import InvalidInputError
from shared.events.envelope import Event, EventMetadata
from shared.events.registry import spec_for
from shared.rpc.commands import GetPortfolioStateRequest

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def fact(event_type: str, number: int, **payload: Any) -> Event[Any]:
    metadata = EventMetadata(
        event_id=f"e{number}",
        event_type=event_type,
        trace_id="t",
        causation_id=None,
        timestamp=NOON + timedelta(seconds=number),
        source="exec-risk-service",
        sequence=number + 1,
    )
    return Event(metadata, spec_for(event_type).payload.model_validate(payload))


def opened(number: int, position: str, symbol: str = "BTCUSDT") -> Event[Any]:
    return fact(
        "position.opened",
        number,
        symbol=symbol,
        entry_price=50_000.1,
        size_usd=500.001,
        leverage=5,
        is_long=True,
        position_id=position,
        entry_timestamp=NOON,
        stop_loss_price=49_000,
    )


def marked(number: int, position: str, pnl: float, symbol: str = "BTCUSDT") -> Event[Any]:
    return fact(
        "position.updated",
        number,
        symbol=symbol,
        position_id=position,
        mark_price=50_100,
        size_usd=501,
        unrealized_pnl_usd=pnl,
        unrealized_pnl_pct=0.2,
        max_profit_pct=0.2,
        max_drawdown_pct=0,
    )


def closed(number: int, position: str, pnl: float, symbol: str = "BTCUSDT") -> Event[Any]:
    return fact(
        "position.closed",
        number,
        symbol=symbol,
        position_id=position,
        entry_price=50_000.1,
        exit_price=50_500,
        size_usd=500.001,
        leverage=5,
        is_long=True,
        pnl_usd=pnl,
        pnl_pct=1,
        duration_seconds=60,
        exit_reason="TAKE_PROFIT",
        entry_timestamp=NOON,
        exit_timestamp=NOON + timedelta(seconds=number),
        commission_usd=0.5,
        funding_usd=-0.1,
    )


def account(number: int, wallet: float) -> Event[Any]:
    return fact(
        "account.updated",
        number,
        wallet_balance_usd=wallet,
        equity_usd=wallet,
        available_usd=wallet,
        unrealized_pnl_usd=0,
        margin_ratio_pct=0,
        peak_equity_usd=wallet,
        drawdown_pct=0,
        gross_exposure_usd=0,
        net_exposure_usd=0,
    )


def result(number: int, status: str) -> Event[Any]:
    return fact(
        "execution.result",
        number,
        symbol="BTCUSDT",
        side="BUY",
        status=status,
        filled_size_usd=0,
        filled_price=0,
        filled_quantity=0,
        leverage_applied=0,
    )


FACTS = (
    account(0, 10_000),
    opened(1, "p1"),
    result(2, "SUCCESS"),
    marked(3, "p1", 1.0),
    marked(4, "p1", 2.0),
    closed(5, "p1", 4.2),
    account(6, 10_003.6),
    opened(7, "p2"),
    result(8, "REJECTED"),
    closed(9, "p2", -1.0),
    opened(10, "p3", "ETHUSDT"),
    marked(11, "p3", -0.7, "ETHUSDT"),
    account(12, 10_002.5),
)


def picture(portfolio: Portfolio) -> tuple[object, ...]:
    return portfolio.summary(), portfolio.open_positions(), portfolio.closed_trades()


def test_the_numbers_of_a_small_run() -> None:
    summary = Portfolio(FACTS).summary()

    assert (summary.open_positions, summary.closed_trades, summary.wins, summary.losses) == (1, 2, 1, 1)
    # A close tells what is left after fees and funding; the summary tells the three apart.
    assert summary.realised_pnl_usd == Decimal("4.4")
    assert (summary.fees_usd, summary.funding_usd) == (Decimal("1.0"), Decimal("-0.2"))
    assert summary.executions == {"REJECTED": 1, "SUCCESS": 1}
    assert summary.account is not None
    assert summary.account.wallet_balance_usd == Decimal("10002.5")


@given(st.permutations(FACTS), st.lists(st.sampled_from(FACTS), max_size=6))
def test_any_order_and_any_repetition_give_the_same_portfolio(
    shuffled: Sequence[Event[Any]], repeated: Sequence[Event[Any]]
) -> None:
    assert picture(Portfolio([*shuffled, *repeated])) == picture(Portfolio(FACTS))


def test_a_close_without_its_open_is_a_whole_trade() -> None:
    (trade,) = Portfolio([closed(5, "p1", 4.2)]).closed_trades()

    assert trade.entry is not None
    assert trade.entry.entry_price == Decimal("50000.1")


def test_a_mark_without_its_open_is_no_open_position() -> None:
    assert Portfolio([marked(3, "p1", 1.0)]).open_positions() == []


async def test_after_a_restart_the_archive_gives_the_same_portfolio_back() -> None:
    archive = MemoryArchive()
    for event in FACTS:
        await archive.append(archived(event))
    keeper = PortfolioKeeper(run_id="run", archive=archive)

    await keeper.start()

    assert picture(keeper.portfolio) == picture(Portfolio(FACTS))
    assert len(await archive.portfolio_facts()) < len(FACTS)
    state = await keeper.get_portfolio_state(GetPortfolioStateRequest())
    assert (state.wallet_balance_usd, state.trades_closed, state.trades_won) == (10_002.5, 2, 1)
    assert [(open_.symbol, open_.unrealized_pnl_usd) for open_ in state.positions] == [("ETHUSDT", -0.7)]


async def test_an_archived_fact_that_the_schema_no_longer_fits_does_not_stop_the_start() -> None:
    archive = MemoryArchive()
    for event in FACTS:
        await archive.append(archived(event))
    broken = archived(opened(20, "p9"))
    await archive.append(type(broken)(broken.metadata, broken.symbol, {"symbol": "BTCUSDT"}))
    keeper = PortfolioKeeper(run_id="run", archive=archive)

    await keeper.start()

    assert picture(keeper.portfolio) == picture(Portfolio(FACTS))


@pytest.mark.parametrize("event", FACTS[:6])
def test_an_archived_event_comes_back_as_it_was(event: Event[Any]) -> None:
    assert event.metadata.event_type in PORTFOLIO_FACTS
    assert restored(archived(event)) == event


@pytest.mark.parametrize("text", ["", "1", "1.2", "x.1.e", "1.x.e", "9" * 40 + ".1.e"])
def test_what_is_no_cursor_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError, match="next_cursor"):
        Cursor.decode(text)


def test_a_cursor_survives_the_way_through_a_url() -> None:
    place = Cursor(NOON + timedelta(microseconds=123), 7, "id.with.dots")

    assert Cursor.decode(place.encode()) == place
