"""Faults that strike requests: what is done instead of, before and after executing one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from types import MappingProxyType
from typing import Any

import orjson
from starlette.responses import HTMLResponse, Response

from infrastructure.paper_exchange.connections import Client
from infrastructure.paper_exchange.fault_acts import perform
from infrastructure.paper_exchange.faults import FAULTS, Fault, Occasion, Scene
from infrastructure.paper_exchange.live_exchange import LiveExchange
from infrastructure.paper_exchange.outages import Outage
from infrastructure.paper_exchange.parameters import Parameters
from infrastructure.paper_exchange.refusals import REFUSALS, refusal
from infrastructure.paper_exchange.wrong_prices import with_wrong_answer
from shared.errors import OrderRejectedError

#: Answers of HTTP 503 by fault kind.
_UNAVAILABLE: Mapping[str, tuple[int, str]] = MappingProxyType(
    {
        "lose_order": (-1000, "Unknown error, please check your request or try again later."),
        "lose_order_answer": (-1000, "Unknown error, please check your request or try again later."),
        "internal_error": (-1001, REFUSALS[-1001]),
        "overload": (-1008, REFUSALS[-1008]),
    }
)
_HTML = "<html><head><title>{0}</title></head><body><center><h1>{0}</h1></center></body></html>"
_BANNED = "Way too many requests; IP banned until %s. Please use the websocket for live updates to avoid bans."
_SLOW_SECONDS = 5.0
_SHARE = Decimal("0.25")


@dataclass(frozen=True, slots=True)
class Call:
    """One admitted request.

    Attributes:
        places_order: True where the order faults strike unless they name something else.
        looks_up: True for the queries of one order.
        is_market: True for market data.
        client: Address it came from.
    """

    method: str
    path: str
    parameters: Parameters
    places_order: bool
    looks_up: bool
    is_market: bool
    client: Client

    def scene(self, occasion: Occasion) -> Scene:
        """Return what the conditions of a fault see of it."""
        orders = _batch(self.parameters) or [self.parameters]
        kinds = {
            Occasion.ORDER: self.places_order,
            Occasion.LOOKUP: self.looks_up,
            Occasion.MARKET_REQUEST: self.is_market,
        }
        return Scene(
            method=self.method,
            path=self.path,
            client_ids=tuple(name for order in orders for name in _client_ids(order)),
            symbols=tuple(filter(None, (order.optional("symbol") for order in orders))),
            is_usual=kinds.get(occasion, True),
        )

    @property
    def may_pass_overload(self) -> bool:
        """Binance lets what reduces risk pass its protection."""
        flags = ("reduceOnly", "closePosition")
        return self.method == "DELETE" or any(self.parameters.optional(flag) == "true" for flag in flags)


def _client_ids(order: Parameters) -> list[str]:
    names = ("newClientOrderId", "origClientOrderId", "clientAlgoId")
    return [value for value in (order.optional(name) for name in names) if value]


def _batch(parameters: Parameters) -> list[Parameters]:
    if parameters.optional("batchOrders") is None:
        return []
    try:
        return parameters.batch("batchOrders")
    except OrderRejectedError:
        return []


class RequestFaults:
    """Executes requests as the armed faults let it."""

    def __init__(self, exchange: LiveExchange) -> None:
        self._exchange = exchange

    def refuse_all(self) -> Response | None:
        """Return the answer to any request during maintenance, a rate limit or a ban; None when there is none."""
        now = self._exchange.clock.monotonic()
        outage = self._exchange.outages.meet(now)
        if outage is None:
            return None
        if outage.status in (503, 504):
            name = "503 Service Temporarily Unavailable" if outage.status == 503 else "504 Gateway Time-out"
            return HTMLResponse(_HTML.format(name), outage.status)
        return self._too_many(outage, now)

    def _too_many(self, outage: Outage, now: float) -> Response:
        left = outage.seconds_left(now)
        if outage.status == 429:
            text = REFUSALS[-1003] % 2400
        else:
            until = round(self._exchange.server_time().timestamp() * 1000) + left * 1000
            text = _BANNED % until
        answer = json_answer({"code": -1003, "msg": text}, outage.status)
        answer.headers["Retry-After"] = str(left)
        return answer

    async def execute(self, call: Call, handle: Callable[[], Any], recheck: Callable[[], None]) -> Response:
        """Execute one request, or not, and return the answer that its client gets.

        Args:
            call: The request.
            handle: Executes it and returns the answer's JSON value.
            recheck: Refuses an order that has become too old while it waited (-5028).
        """
        if (held := self._strike("late_execution", call)) is not None:
            await self._exchange.hold(held.seconds)
            self._exchange.sync()
            recheck()
        if (instead := self._instead(call)) is not None:
            return instead
        response = self._run(call, handle)
        if (held := self._strike("hold_order_answer", call)) is not None:
            await self._hold(held)
            return response
        self._exchange.send_events()
        response = self._answer(call, response)
        if (slow := self._strike("slow_answer", call)) is not None:
            await self._exchange.hold(slow.seconds or _SLOW_SECONDS)
        return response

    def _instead(self, call: Call) -> Response | None:
        """Return the answer to a request that is not executed, None when it is."""
        if self._strike("reset_before", call) is not None:
            self._exchange.connections.reset(call.client)
            return Response(status_code=503)
        if self._strike("service_unavailable", call) is not None:
            return Response("Service Unavailable.", 503, media_type="text/plain")
        for kind in ("lose_order", "internal_error"):
            if self._strike(kind, call) is not None:
                return _unavailable(kind)
        if not call.may_pass_overload and self._strike("overload", call) is not None:
            return _unavailable("overload")
        if (refused := self._strike("reject_order", call)) is not None:
            raise refusal(int(refused.value or -2022))
        if self._strike("order_not_found", call) is not None:
            raise refusal(-2013)
        return None

    def _run(self, call: Call, handle: Callable[[], Any]) -> Response:
        exchange = self._exchange
        rationed = self._strike("partial_fills", call)
        share = Decimal(rationed.value) if rationed and rationed.value else _SHARE
        if rationed is not None:
            exchange.engine.ration_next(share)
        try:
            answer = handle()
        finally:
            exchange.engine.ration_next(None)
        if rationed is not None and "orderId" in answer:
            exchange.fill_on(answer["symbol"], answer["orderId"], share, rationed.seconds)
        if (hidden := self._strike("hide_order", call)) is not None:
            for name in _names_in(answer):
                exchange.hidden.hide(name, exchange.clock.monotonic() + hidden.seconds)
        for act in exchange.faults.acts_after(call.scene(Occasion.REQUEST), exchange.clock.monotonic()):
            perform(exchange, act)
        if (wrong := self._strike("wrong_answer_price", call)) is not None:
            answer = with_wrong_answer(answer, wrong.chosen)
        return json_answer(answer, 200)

    def _answer(self, call: Call, response: Response) -> Response:
        """Return what the client gets of the answer to a request that was executed."""
        if self._strike("reset_after", call) is not None:
            self._exchange.connections.reset(call.client)
            return Response(status_code=503)
        if self._strike("lose_order_answer", call) is not None:
            return _unavailable("lose_order_answer")
        if (unknown := self._strike("status_unknown", call)) is not None:
            code = int(unknown.chosen)
            return json_answer({"code": code, "msg": REFUSALS[code]}, 503)
        if self._strike("duplicate_answer", call) is not None:
            raise refusal(-4116)
        if (garbled := self._strike("garble_order_answer", call)) is not None:
            return _garbled(response, garbled.chosen)
        return response

    async def _hold(self, fault: Fault) -> None:
        """The order stands in the book; only the answer is late."""
        if fault.hold_events:
            self._exchange.send_events_later(fault.seconds)
        else:
            self._exchange.send_events()
        await self._exchange.hold(fault.seconds)

    def _strike(self, kind: str, call: Call) -> Fault | None:
        if not self._exchange.faults.armed():
            return None
        scene = call.scene(FAULTS[kind].occasion)
        return self._exchange.faults.strike(kind, scene, self._exchange.clock.monotonic())


def json_answer(value: object, status: int) -> Response:
    """Return ``value`` as a JSON answer."""
    return Response(orjson.dumps(value), status_code=status, media_type="application/json")


def _unavailable(kind: str) -> Response:
    code, text = _UNAVAILABLE[kind]
    return json_answer({"code": code, "msg": text}, 503)


def _garbled(response: Response, body: str) -> Response:
    if body == "html":
        return HTMLResponse(_HTML.format("200 OK"))
    whole = bytes(response.body)
    return Response(b"" if body == "empty" else whole[: len(whole) // 2], media_type="application/json")


def _names_in(answer: Any) -> list[str]:
    """Return the client ids of the orders in an answer."""
    rows = answer if isinstance(answer, list) else [answer]
    return [row[key] for row in rows for key in ("clientOrderId", "clientAlgoId") if key in row]
