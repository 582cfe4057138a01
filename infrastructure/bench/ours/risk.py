"""A risk decision in benchmarks: view and every check on a book of ten positions with 200 candles each. No I/O."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from infrastructure.bench.cue import Cue
from infrastructure.bench.ours.policy import timed
from infrastructure.bench.statistics import percentile
from infrastructure.paper_exchange.contracts import contract_for
from services.exec_risk_service.domain.account import AccountState
from services.exec_risk_service.domain.book import Book, Mark
from services.exec_risk_service.domain.orders import EntryPlan
from services.exec_risk_service.domain.positions import Origin, Position
from services.exec_risk_service.domain.price_history import HISTORY_CANDLES, PriceHistories, PriceHistory
from services.exec_risk_service.domain.risk_checks import EntryOrder
from services.exec_risk_service.domain.risk_engine import first_reason, risk_view
from services.exec_risk_service.domain.rules import Context, Rules
from shared.trading.candles import Candle
from shared.trading.orders import Side
from shared.trading.policy import DEFAULT_POLICIES, PolicyState, RiskMode
from shared.trading.positions import NetPosition

_AT_ONCE = 200
_NOW = datetime(2026, 1, 1, tzinfo=UTC)
_SYMBOLS = tuple(f"C{number}USDT" for number in range(11))
_PRICE = Decimal(100)


def decide_all(cue: Cue) -> dict[str, Any]:
    """Check an eleventh entry that every limit lets pass, so that no check is left out."""
    book, context = sample_book(), sample_context()
    order = EntryOrder(_SYMBOLS[10], Side.BUY, Decimal(500), Decimal(5), _PRICE, Decimal(5), Decimal(2), Decimal("0.8"))

    def decide() -> None:
        denial = first_reason(order, risk_view(book, order.symbol, context))
        assert denial is None, denial

    decide()  # the candle before has paid for correlation and covariance
    cue.wait_for_start()
    times = timed(decide, cue.options["seconds"], at_once=_AT_ONCE)
    return {"count": len(times) * _AT_ONCE, "decision_us": percentile(times, 0.50) * 1e6}


def sample_book() -> Book:
    """Return a book with ten positions of 500 USDT on 10,000, and histories of eleven symbols."""
    rng = random.Random(7)  # noqa: S311 - a made-up market
    return Book(
        "bench",
        cash=AccountState(wallet=Decimal(10_000), day=_NOW.date(), day_peak_equity=Decimal(10_000)),
        positions={symbol: _position(symbol) for symbol in _SYMBOLS[:10]},
        marks={symbol: Mark(_PRICE, _NOW, _NOW) for symbol in _SYMBOLS},
        history=PriceHistories({symbol: _history(symbol, rng) for symbol in _SYMBOLS}),
    )


def sample_context() -> Context:
    """Return the default limits."""
    policy = PolicyState(RiskMode.NORMAL, DEFAULT_POLICIES[RiskMode.NORMAL], version=1)
    instruments = {symbol: contract_for(symbol, 100.0).instrument for symbol in _SYMBOLS}
    return Context(Rules(max_open_positions=11), policy, instruments, _NOW)


def _position(symbol: str) -> Position:
    return Position(
        position_id=symbol,
        symbol=symbol,
        origin=Origin.SIGNAL,
        trace_id="",
        cause_event_id="",
        is_long=True,
        net=NetPosition(symbol, Decimal(5), _PRICE),
        leverage=5,
        opened_at=_NOW,
        opening_event_id="",
        plan=EntryPlan(Decimal(2), Decimal(4)),
        opened_quantity=Decimal(5),
        opened_value=Decimal(500),
    )


def _history(symbol: str, rng: random.Random) -> PriceHistory:
    price, candles = 100.0, []
    for number in range(HISTORY_CANDLES, 0, -1):
        close = price * (1 + rng.gauss(0, 0.0005))
        opened = _NOW - timedelta(minutes=number)
        candles.append(Candle(symbol, "1m", opened, price, max(price, close), min(price, close), close, 1.0))
        price = close
    return PriceHistory(tuple(candles))
