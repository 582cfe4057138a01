"""The REST interface: the one function that every request goes through."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import structlog
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from infrastructure.paper_exchange.arrived_requests import ArrivedRequest
from infrastructure.paper_exchange.endpoints import ENDPOINTS, Endpoint
from infrastructure.paper_exchange.live_exchange import LiveExchange
from infrastructure.paper_exchange.parameters import Parameters
from infrastructure.paper_exchange.refusals import REFUSALS
from infrastructure.paper_exchange.request_faults import Call, RequestFaults, json_answer
from infrastructure.paper_exchange.request_security import Security, check_fresh, check_key, check_signed
from infrastructure.paper_exchange.request_weight import Cost, Usage, weigh
from shared.errors import ExchangeError

log = structlog.get_logger(__name__)


class RestApi:
    """Answers the endpoints of the table."""

    def __init__(self, exchange: LiveExchange) -> None:
        self._exchange = exchange
        self._faults = RequestFaults(exchange)

    def routes(self) -> list[Route]:
        """Return one Starlette route per endpoint."""
        return [Route(each.path, self._answer_for(each), methods=[each.method]) for each in ENDPOINTS]

    def _answer_for(self, endpoint: Endpoint) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            query, body = request.scope["query_string"], await request.body()
            parameters = Parameters.parse(query, body)
            usage = self._count(endpoint, parameters)
            try:
                response = self._faults.refuse_all() or self._refuse_order(usage)
                if response is None:
                    self._admit(endpoint, request, query, body, parameters)
                    response = await self._respond(endpoint, request, parameters)
            except ExchangeError as error:
                response = json_answer({"code": error.code, "msg": str(error)}, error.http_status or 400)
            except Exception as error:  # noqa: BLE001 - an error of ours must look like one of the exchange
                log.error("paper_exchange_failed", path=endpoint.path, error=f"{type(error).__name__}: {error}")
                response = json_answer({"code": -1000, "msg": REFUSALS[-1000]}, 500)
            response.headers.update(usage.headers)
            self._exchange.requests.append(ArrivedRequest.of(endpoint.method, endpoint.path, query, body, response))
            return response

        return answer

    def _count(self, endpoint: Endpoint, parameters: Parameters) -> Usage:
        """Count the request; an address that has used up its weight is turned away until the window ends."""
        cost = Cost(weigh(endpoint.weight, parameters), *endpoint.orders)
        usage = self._exchange.weight.count(cost, self._exchange.clock.now())
        if usage.exceeded is not None and usage.exceeded.kind == "REQUEST_WEIGHT":
            self._exchange.outages.turn_away(self._exchange.clock.monotonic(), usage.seconds_left)
        return usage

    @staticmethod
    def _refuse_order(usage: Usage) -> Response | None:
        """Return -1015 when the account has placed too many orders."""
        limit = usage.exceeded
        if limit is None or limit.kind != "ORDERS":
            return None
        interval = "MINUTE" if limit.interval == "MINUTE" else "TEN_SECONDS"
        answer = json_answer({"code": -1015, "msg": REFUSALS[-1015] % (limit.most, interval)}, 429)
        answer.headers["Retry-After"] = str(usage.seconds_left)
        return answer

    def _admit(self, endpoint: Endpoint, request: Request, query: bytes, body: bytes, parameters: Parameters) -> None:
        parameters.check_unique()
        if endpoint.security is not Security.NONE:
            check_key(request.headers.get("X-MBX-APIKEY"), self._exchange.credentials)
        if endpoint.security is Security.SIGNED:
            check_signed(query, body, parameters, self._exchange.credentials, self._exchange.server_time())

    async def _respond(self, endpoint: Endpoint, request: Request, parameters: Parameters) -> Response:
        exchange = self._exchange
        exchange.sync()
        address = request.client
        call = Call(
            method=endpoint.method,
            path=endpoint.path,
            parameters=parameters,
            places_order=endpoint.places_order,
            looks_up=endpoint.looks_up,
            is_market=endpoint.security is Security.NONE,
            client=(address.host, address.port) if address else ("", 0),
        )

        def recheck() -> None:
            if endpoint.places_order:
                check_fresh(parameters, exchange.server_time())

        return await self._faults.execute(call, lambda: endpoint.handle(exchange, parameters), recheck)
