"""The matching engine in real time: driven by clocks, speaking through streams, subject to faults."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

import structlog

from infrastructure.paper_exchange.faults import Faults
from infrastructure.paper_exchange.listen_keys import ListenKeys
from infrastructure.paper_exchange.market_streams import MarketStreams
from infrastructure.paper_exchange.matching_engine import MatchingEngine
from infrastructure.paper_exchange.request_security import Credentials
from infrastructure.paper_exchange.stream_hub import StreamHub
from infrastructure.paper_exchange.user_events import UserEvent, milliseconds
from shared.clock import Clock

log = structlog.get_logger(__name__)

#: Wall seconds between two looks at the clock.
TICK_SECONDS = 0.03


class LiveExchange:
    """Moves the engine with market time and sends out what happened.

    Args:
        engine: The market and the account.
        clock: Wall time: signatures, listen keys, pace of updates.
        market_clock: Market time: prices, fills, funding.
        credentials: Key pair of the one account.
    """

    def __init__(self, engine: MatchingEngine, *, clock: Clock, market_clock: Clock, credentials: Credentials) -> None:
        self.engine = engine
        self.clock = clock
        self.credentials = credentials
        self.hub = StreamHub()
        self.faults = Faults()
        self.listen_keys = ListenKeys(credentials.api_key)
        self.streams = MarketStreams(engine, self.hub)
        self.is_frozen = False
        self._market_clock = market_clock
        self._countdowns: dict[str, datetime] = {}
        self._holding: set[asyncio.Task[None]] = set()
        self._told_end = False

    async def run(self) -> None:
        """Advance the market until cancelled."""
        while True:
            self.tick()
            await self.clock.sleep(TICK_SECONDS)

    def tick(self) -> None:
        """Bring the market to the present and send out what is new."""
        self.sync()
        self.streams.publish(self.clock.monotonic())
        now = self.clock.now()
        if (expired := self.listen_keys.expire(now)) is not None:
            self._announce_expiry(expired, now)
        for symbol in [symbol for symbol, deadline in self._countdowns.items() if deadline <= now]:
            del self._countdowns[symbol]
            self.engine.cancel_open_orders(symbol)
            self.send_events()
        if self.engine.is_exhausted and not self._told_end:
            self._told_end = True
            log.warning("paper_market_ended", market_time=self.engine.now.isoformat())

    def sync(self) -> None:
        """Play the market up to now; called before every request, so that an order meets the present price."""
        if not self.is_frozen:
            self.engine.advance_to(self._market_clock.now())
        self.send_events()

    def send_events(self) -> None:
        """Send what the engine has to say to the user streams."""
        self._send(self.engine.take_events())

    def send_events_later(self, seconds: float) -> None:
        """Keep the events that are waiting now back for ``seconds``."""
        events = self.engine.take_events()
        self._keep_waiting(seconds).add_done_callback(lambda _: self._send(events))

    async def hold(self, seconds: float) -> None:
        """Wait for ``seconds``, or until the exchange stops."""
        await asyncio.wait({self._keep_waiting(seconds)})

    def _keep_waiting(self, seconds: float) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(self.clock.sleep(seconds))
        self._holding.add(task)
        task.add_done_callback(self._holding.discard)
        return task

    def _send(self, events: list[UserEvent]) -> None:
        for event in events:
            if self.faults.strike("drop_user_event", event=event["e"]) is None:
                self.hub.publish_user(self.listen_keys.current, event)

    def freeze(self, *, frozen: bool) -> None:
        """Stop the market, or let it go on: it then plays what it missed."""
        self.sync()
        self.is_frozen = frozen

    def count_down(self, symbol: str, milliseconds_left: int) -> None:
        """Cancel the symbol's regular orders after a time without another call; 0 stops the countdown."""
        self._countdowns.pop(symbol, None)
        if milliseconds_left > 0:
            self._countdowns[symbol] = self.clock.now() + timedelta(milliseconds=milliseconds_left)

    def expire_listen_key(self) -> bool:
        """Let the listen key expire now; tell whether there was one."""
        now = self.clock.now()
        expired = self.listen_keys.expire(now, at_once=True)
        if expired is not None:
            self._announce_expiry(expired, now)
        return expired is not None

    def _announce_expiry(self, key: str, now: datetime) -> None:
        self.hub.publish_user(key, {"e": "listenKeyExpired", "E": milliseconds(now), "listenKey": key})

    async def stop(self) -> None:
        """Close every stream and let go of what is held back."""
        self.hub.close(user=True, market=True)
        for task in set(self._holding):
            task.cancel()
