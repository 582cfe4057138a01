"""What the chaos tests publish: numbered events in lanes, so that a lost, doubled or overtaken one can be named."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import product
from typing import Any

from shared.events.envelope import Event, EventPayload
from shared.events.v3 import (
    CandleClosedPayload,
    ExecutionRequestPayload,
    OrderUpdatedPayload,
    ServiceHeartbeatPayload,
)
from shared.ids import derive_id
from shared.trading.orders import OrderStatus, Side
from tests.support.event_payloads import START


@dataclass(frozen=True, slots=True, order=True)
class Lane:
    """Events of one type and one key, numbered from 1; the bus promises their order.

    Attributes:
        event_type: For example ``order.updated``.
        key: Symbol, or the service of a heartbeat.
    """

    event_type: str
    key: str

    def event_id(self, number: int) -> str:
        """Return the id of event ``number``: the same in every life of a publisher."""
        return derive_id("chaos", self.event_type, self.key, str(number))

    def payload(self, number: int, *, padding_bytes: int = 0) -> EventPayload:
        """Return event ``number``, larger than it needs to be by ``padding_bytes``."""
        told = {"number": number, "padding": "." * padding_bytes}
        return _PAYLOADS[self.event_type](self.key, number).model_copy(update={"metadata": told})


def lanes(event_types: Sequence[str], keys: Sequence[str]) -> tuple[Lane, ...]:
    """Return the lane of every type and key."""
    return tuple(Lane(event_type, key) for event_type, key in product(event_types, keys))


def symbols(count: int) -> tuple[str, ...]:
    """Return ``count`` symbols."""
    return tuple(f"COIN{number:03}USDT" for number in range(count))


def lane_and_number(event: Event[Any]) -> tuple[Lane, int]:
    """Return where ``event`` belongs."""
    key = getattr(event.payload, "symbol", None) or event.payload.service_name
    return Lane(event.metadata.event_type, key), event.payload.metadata["number"]


def _order(symbol: str, number: int) -> OrderUpdatedPayload:
    return OrderUpdatedPayload(
        symbol=symbol,
        client_order_id=f"order-{number}",
        side=Side.BUY,
        order_type="MARKET",
        status=OrderStatus.FILLED,
        quantity=1.0,
        filled_quantity=1.0,
        outcome="ACCEPTED",
        is_algo=False,
    )


def _candle(symbol: str, number: int) -> CandleClosedPayload:
    opened = START + timedelta(minutes=number)
    return CandleClosedPayload(
        symbol=symbol,
        timeframe="1m",
        open_time=opened,
        close_time=opened + timedelta(minutes=1),
        open=100.0,
        high=100.0,
        low=100.0,
        close=100.0,
        volume=1.0,
        source="chaos",
    )


def _request(symbol: str, number: int) -> ExecutionRequestPayload:
    return ExecutionRequestPayload(
        symbol=symbol,
        side=Side.BUY,
        position_size_usd=100.0,
        leverage=1.0,
        signal_confidence=0.7,
        signal_source="chaos",
    )


def _heartbeat(service: str, number: int) -> ServiceHeartbeatPayload:
    return ServiceHeartbeatPayload(
        service_name=service,
        status="HEALTHY",
        uptime_seconds=float(number),
        cpu_percent=1.0,
        memory_percent=1.0,
        memory_used_mb=1.0,
    )


_PAYLOADS: Mapping[str, Callable[[str, int], EventPayload]] = {
    "order.updated": _order,
    "candle.closed": _candle,
    "execution.request": _request,
    "service.heartbeat": _heartbeat,
}
