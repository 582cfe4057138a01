"""The matching engine in real time: driven by clocks, speaking through streams, subject to faults."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import structlog

from infrastructure.paper_exchange.account_settings import AccountSettings
from infrastructure.paper_exchange.arrived_requests import REMEMBERED, ArrivedRequest
from infrastructure.paper_exchange.connection_rules import BINANCE_RULES, ConnectionRules
from infrastructure.paper_exchange.connections import OpenConnections
from infrastructure.paper_exchange.fault_acts import perform_due
from infrastructure.paper_exchange.faults import Faults, Scene
from infrastructure.paper_exchange.hidden_orders import HiddenOrders
from infrastructure.paper_exchange.listen_keys import ListenKeys
from infrastructure.paper_exchange.market_streams import MarketStreams
from infrastructure.paper_exchange.matching_engine import MatchingEngine
from infrastructure.paper_exchange.outages import Outages
from infrastructure.paper_exchange.records import AlgoRecord
from infrastructure.paper_exchange.refusals import refusal
from infrastructure.paper_exchange.request_security import Credentials
from infrastructure.paper_exchange.request_weight import BINANCE_LIMITS, Limit, UsedWeight
from infrastructure.paper_exchange.stream_hub import StreamHub
from infrastructure.paper_exchange.user_events import UserEvent, milliseconds
from infrastructure.paper_exchange.wrong_prices import with_wrong_prices
from shared.clock import Clock
from shared.errors import OrderRejectedError

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
        rules: Limits of the stream connections.
        limits: How much the clients may ask.
    """

    def __init__(
        self,
        engine: MatchingEngine,
        *,
        clock: Clock,
        market_clock: Clock,
        credentials: Credentials,
        rules: ConnectionRules = BINANCE_RULES,
        limits: tuple[Limit, ...] = BINANCE_LIMITS,
    ) -> None:
        self.engine = engine
        self.clock = clock
        self.credentials = credentials
        self.hub = StreamHub(clock, rules)
        self.connections = OpenConnections()
        self.faults = Faults()
        self.outages = Outages()
        self.hidden = HiddenOrders()
        self.clock_offset = timedelta()
        self.weight = UsedWeight(limits)
        self.requests: deque[ArrivedRequest] = deque(maxlen=REMEMBERED)
        self.terms = AccountSettings()
        self.listen_keys = ListenKeys(credentials.api_key)
        self.streams = MarketStreams(engine, self.hub)
        self.is_frozen = False
        self._market_clock = market_clock
        self._countdowns: dict[str, datetime] = {}
        self._holding: set[asyncio.Task[None]] = set()
        self._told_end = False
        self._stopped = False
        self._states: dict[str, tuple[float, Callable[[], None]]] = {}
        self._late_events: list[tuple[float, UserEvent]] = []
        engine.set_trigger_gate(self._refuse_trigger)
        self.hub.gate = self._pass_market_message

    async def run(self) -> None:
        """Advance the market until cancelled."""
        while True:
            self.tick()
            await self.clock.sleep(TICK_SECONDS)

    def tick(self) -> None:
        """Bring the market to the present and send out what is new."""
        self.sync()
        self._end_states()
        perform_due(self)
        self.streams.publish(self.clock.monotonic())
        self.hub.keep()
        now = self.clock.now()
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
        now = self.clock.now()
        if (expired := self.listen_keys.expire(now)) is not None:
            self._announce_expiry(expired, now)

    def send_events(self) -> None:
        """Send what the engine has to say to the user streams."""
        self._send(self.engine.take_events())

    def server_time(self) -> datetime:
        """Return the exchange's wall time, which clients sign with; a fault can put it wrong."""
        return self.clock.now() + self.clock_offset

    def hides(self, client_id: str) -> bool:
        """Tell whether a fault keeps the order of this name out of every answer for now."""
        return self.hidden.hides(client_id, self.clock.monotonic())

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
        now = self.clock.monotonic()
        for event in events:
            self._send_one(event, now)
        overdue = [event for due, event in self._late_events if due <= now]
        if overdue:
            self._late_events = [each for each in self._late_events if each[0] > now]
            self._tell(overdue)

    def _send_one(self, event: UserEvent, now: float) -> None:
        """Send one user event: not at all, once, twice, or after the next one."""
        order = event.get("o", {})
        scene = Scene(
            event=event["e"],
            symbols=tuple(filter(None, (order.get("s"),))),
            client_ids=tuple(filter(None, (order.get("c"), order.get("caid")))),
        )
        if self.faults.strike("drop_user_event", scene, now) is not None:
            return
        if (late := self.faults.strike("reorder_user_event", scene, now)) is not None:
            self._late_events.append((now + (late.seconds or 1.0), event))
            return
        twice = self.faults.strike("duplicate_user_event", scene, now) is not None
        late_ones = [event for _, event in self._late_events]
        self._late_events.clear()
        self._tell([event, *([event] if twice else []), *late_ones])

    def _tell(self, events: list[UserEvent]) -> None:
        for event in events:
            self.hub.publish_user(self.listen_keys.current, event)

    def _pass_market_message(self, stream: str, message: dict[str, Any]) -> dict[str, Any] | None:
        """Return what is sent of a market message: itself, itself with wrong prices, or nothing."""
        if not self.faults.armed():
            return message
        scene = Scene(event=stream, symbols=(str(message.get("s", "")),))
        now = self.clock.monotonic()
        if message.get("e") == "depthUpdate" and self.faults.strike("depth_gap", scene, now) is not None:
            return None
        if self.faults.strike("drop_market_message", scene, now) is not None:
            return None
        wrong = self.faults.strike("wrong_price", scene, now)
        return message if wrong is None else with_wrong_prices(message, wrong.chosen)

    def _refuse_trigger(self, algo: AlgoRecord) -> OrderRejectedError | None:
        scene = Scene(symbols=(algo.symbol,), client_ids=(algo.client_algo_id,))
        fault = self.faults.strike("reject_triggered", scene, self.clock.monotonic())
        return None if fault is None else refusal(int(fault.value or -2019))

    # -- states that faults put it in --------------------------------------------------------------------------

    def keep_state(self, name: str, seconds: float, undo: Callable[[], None]) -> None:
        """Call ``undo`` after ``seconds``; with 0 only when the faults are cleared."""
        self._states[name] = (self.clock.monotonic() + seconds if seconds else math.inf, undo)

    def _end_states(self) -> None:
        now = self.clock.monotonic()
        for name, (due, undo) in list(self._states.items()):
            if due <= now:
                del self._states[name]
                undo()

    def clear_faults(self) -> None:
        """Disarm every fault and end what they have put the exchange in; what happened to the account stays."""
        self.faults.clear()
        self.outages.end()
        self.hidden.show_all()
        for _, undo in self._states.values():
            undo()
        self._states.clear()

    def fill_on(self, symbol: str, order_id: int, share: Decimal, pause: float) -> None:
        """Let a rationed order fill one more ``share`` after each ``pause`` of wall seconds."""

        def go_on(_: object) -> None:
            self.sync()
            more = self.engine.ration_more(symbol, order_id, share)
            self.send_events()
            if more and not self._stopped:
                self.fill_on(symbol, order_id, share, pause)

        self._keep_waiting(pause).add_done_callback(go_on)

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
        self._stopped = True
        self.hub.close(user=True, market=True)
        for task in set(self._holding):
            task.cancel()
