"""The engine's own candles as the ai-service's history: what its REST API would answer, without the network."""

from __future__ import annotations

from datetime import datetime

from infrastructure.paper_exchange.matching_engine import MatchingEngine
from shared.trading.candles import Candle


class EngineHistory:
    """``CandleHistory`` over one engine."""

    def __init__(self, engine: MatchingEngine) -> None:
        self._engine = engine

    async def candles(self, symbol: str, timeframe: str, start: datetime, end: datetime) -> list[Candle]:
        """Return the closed candles with ``start <= open_time < end``, oldest first."""
        found = self._engine.candles(symbol, timeframe, start, end)
        return [candle for candle in found if candle.close_time <= self._engine.now]
