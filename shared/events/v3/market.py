"""Events about the market itself."""

from __future__ import annotations

from pydantic import Field

from shared.events.envelope import EventPayload
from shared.events.fields import NotNegative, Price, Symbol, Text, Timeframe, UtcTime


class CandleClosedPayload(EventPayload):
    """One candle is final; the first event of a trace."""

    symbol: Symbol = Field(description="Venue symbol.")
    timeframe: Timeframe = Field(description="Length of the candle.")
    open_time: UtcTime = Field(description="Start of the slot, market time.")
    close_time: UtcTime = Field(description="End of the slot: the start of the next one, market time.")
    open: Price = Field(description="First price, USDT.")
    high: Price = Field(description="Highest price, USDT.")
    low: Price = Field(description="Lowest price, USDT.")
    close: Price = Field(description="Last price, USDT.")
    volume: NotNegative = Field(description="Traded quantity, base asset.")
    source: Text = Field(description="Where it came from, for example websocket or rest.")
