"""The trades of other people inside a candle: who was the taker, how much, and when; pure functions of the path."""

from __future__ import annotations

import zlib
from datetime import datetime, timedelta
from decimal import Decimal

from infrastructure.paper_exchange.candle_path import STEPS, CandlePath
from infrastructure.paper_exchange.records import Trade
from shared.trading.instruments import Instrument, timeframe_duration
from shared.trading.money import ZERO, round_down
from shared.trading.orders import Side

#: Aggregate trades per step; the step's volume is split between them.
TRADES_PER_STEP = 3


def step_number(path: CandlePath, step: int) -> int:
    """Return the number of a step since 1970; it counts on from candle to candle."""
    length = timeframe_duration(path.candle.timeframe).total_seconds()
    return round(path.candle.open_time.timestamp() / length) * STEPS + step


def taker_at(path: CandlePath, step: int) -> Side:
    """Return who took at ``step``: buyers when the price rose to it, sellers when it fell, else a coin decides."""
    move = path.ticks_at(step) - path.ticks_at(step - 1) if step else 0
    if move:
        return Side.BUY if move > 0 else Side.SELL
    return Side.BUY if zlib.crc32(f"{path.seed}|{step}".encode()) & 1 else Side.SELL


def volume_at(path: CandlePath, instrument: Instrument) -> Decimal:
    """Return what is traded in each step of ``path``, base asset."""
    return round_down(Decimal(str(round(path.candle.volume / STEPS, 8))), instrument.lot_step)


def trades_at(path: CandlePath, step: int, instrument: Instrument) -> list[Trade]:
    """Return the trades of one step, oldest first; none when the step's volume is below one lot."""
    length: timedelta = timeframe_duration(path.candle.timeframe) / STEPS
    opened: datetime = path.candle.open_time + length * step
    taker = taker_at(path, step)
    first_id = step_number(path, step) * TRADES_PER_STEP
    trades: list[Trade] = []
    left = volume_at(path, instrument)
    for number in range(TRADES_PER_STEP):
        share = zlib.crc32(f"{path.seed}|{step}|{number}".encode()) % 100
        is_last = number == TRADES_PER_STEP - 1
        quantity = left if is_last else round_down(left * share / 100, instrument.lot_step)
        left -= quantity
        if quantity > ZERO:
            trades.append(
                Trade(
                    symbol=path.candle.symbol,
                    trade_id=first_id + number,
                    price=path.ticks_at(step) * instrument.tick_size,
                    quantity=quantity,
                    time=opened + length * number / TRADES_PER_STEP,
                    taker=taker,
                )
            )
    return trades
