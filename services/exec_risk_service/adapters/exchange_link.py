"""The life of the exchange client as a component of the service, and a sign of life of the exchange."""

from __future__ import annotations

from shared.clock import Clock
from shared.exchange.client import BinanceUsdm


class ExchangeLink:
    """The life of the client, and a sign of life of the exchange."""

    name = "exchange"

    def __init__(self, client: BinanceUsdm, clock: Clock) -> None:
        self._client = client
        self._clock = clock

    async def start(self) -> None:
        """Nothing to do: the client connects at its first use."""

    async def stop(self) -> None:
        await self._client.close()

    async def ping(self) -> float:
        began = self._clock.monotonic()
        await self._client.fapiPublicGetTime()
        return (self._clock.monotonic() - began) * 1000.0
