from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest

from shared.trading.orders import Side
from shared.trading.positions import Fill, NetPosition, apply_fill


def fill(side: Side, quantity: str, price: str) -> Fill:
    return Fill(
        symbol="BTCUSDT",
        trade_id=1,
        client_order_id="mine",
        exchange_order_id="7",
        side=side,
        price=Decimal(price),
        quantity=Decimal(quantity),
        commission=Decimal(0),
        realized_pnl=Decimal(0),
        time=datetime(2026, 1, 1, tzinfo=UTC),
    )


def position(quantity: str, entry_price: str) -> NetPosition:
    return NetPosition("BTCUSDT", Decimal(quantity), Decimal(entry_price))


FLAT = NetPosition("BTCUSDT")


@pytest.mark.parametrize(
    ("before", "trade", "after", "split", "realized"),
    [
        pytest.param(FLAT, fill(Side.BUY, "2", "100"), position("2", "100"), ("0", "2"), "0", id="open long"),
        pytest.param(FLAT, fill(Side.SELL, "2", "100"), position("-2", "100"), ("0", "2"), "0", id="open short"),
        pytest.param(
            position("1", "100"), fill(Side.BUY, "3", "120"), position("4", "115"), ("0", "3"), "0", id="increase long"
        ),
        pytest.param(
            position("-1", "100"),
            fill(Side.SELL, "1", "90"),
            position("-2", "95"),
            ("0", "1"),
            "0",
            id="increase short",
        ),
        pytest.param(
            position("2", "100"),
            fill(Side.SELL, "0.5", "110"),
            position("1.5", "100"),
            ("0.5", "0"),
            "5",
            id="partial close",
        ),
        pytest.param(
            position("-2", "100"),
            fill(Side.BUY, "0.5", "110"),
            position("-1.5", "100"),
            ("0.5", "0"),
            "-5",
            id="cover part",
        ),
        pytest.param(position("2", "100"), fill(Side.SELL, "2", "90"), FLAT, ("2", "0"), "-20", id="close long"),
        pytest.param(position("-2", "100"), fill(Side.BUY, "2", "90"), FLAT, ("2", "0"), "20", id="close short"),
        pytest.param(
            position("2", "100"),
            fill(Side.SELL, "5", "110"),
            position("-3", "110"),
            ("2", "3"),
            "20",
            id="flip to short",
        ),
        pytest.param(
            position("-2", "100"),
            fill(Side.BUY, "5", "110"),
            position("3", "110"),
            ("2", "3"),
            "-20",
            id="flip to long",
        ),
    ],
)
def test_a_fill_does_to_a_position_what_it_must(
    before: NetPosition, trade: Fill, after: NetPosition, split: tuple[str, str], realized: str
) -> None:
    change = apply_fill(before, trade)

    assert change.before == before
    assert change.after == after
    assert (change.closed_quantity, change.opened_quantity) == tuple(map(Decimal, split))
    assert change.realized_pnl == Decimal(realized)


def test_open_profit_has_the_sign_of_the_direction() -> None:
    assert position("2", "100").unrealized_pnl(Decimal(110)) == 20
    assert position("-2", "100").unrealized_pnl(Decimal(110)) == -20
    assert FLAT.unrealized_pnl(Decimal(110)) == 0


def test_a_position_knows_its_side_and_cost() -> None:
    assert (position("2", "100").side, position("-2", "100").side) == (Side.BUY, Side.SELL)
    assert position("-2", "100").cost_usd == 200
    assert FLAT.is_flat
    assert not FLAT.is_long
