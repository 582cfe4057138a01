"""The REST interface: a literal table of endpoints, and the one function that every request goes through."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import structlog
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from infrastructure.paper_exchange import rest_account, rest_market, rest_orders
from infrastructure.paper_exchange.live_exchange import LiveExchange
from infrastructure.paper_exchange.parameters import Parameters
from infrastructure.paper_exchange.refusals import REFUSALS
from infrastructure.paper_exchange.request_faults import Call, RequestFaults, json_answer
from infrastructure.paper_exchange.request_security import Security, check_fresh, check_key, check_signed
from infrastructure.paper_exchange.request_weight import UsedWeight
from shared.errors import ExchangeError

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One line of the table.

    Attributes:
        weight: Request weight that Binance counts.
        security: What the caller must prove.
        handle: Answers; what it returns becomes JSON.
        places_order: True where the order faults strike.
        looks_up: True for the queries of one order.
    """

    method: str
    path: str
    weight: int
    security: Security
    handle: Callable[[LiveExchange, Parameters], Any]
    places_order: bool = False
    looks_up: bool = False


_NONE, _KEY, _SIGNED = Security.NONE, Security.KEY, Security.SIGNED

ENDPOINTS: tuple[Endpoint, ...] = (
    Endpoint("GET", "/fapi/v1/ping", 1, _NONE, rest_market.ping),
    Endpoint("GET", "/fapi/v1/time", 1, _NONE, rest_market.server_time),
    Endpoint("GET", "/fapi/v1/exchangeInfo", 1, _NONE, rest_market.exchange_info),
    Endpoint("GET", "/fapi/v1/klines", 5, _NONE, rest_market.klines),
    Endpoint("GET", "/fapi/v1/depth", 5, _NONE, rest_market.depth),
    Endpoint("GET", "/fapi/v1/ticker/bookTicker", 2, _NONE, rest_market.book_ticker),
    Endpoint("GET", "/fapi/v1/ticker/24hr", 1, _NONE, rest_market.day_ticker),
    Endpoint("GET", "/fapi/v1/ticker/price", 1, _NONE, rest_market.price_ticker),
    Endpoint("GET", "/fapi/v2/ticker/price", 1, _NONE, rest_market.price_ticker),
    Endpoint("GET", "/fapi/v1/premiumIndex", 1, _NONE, rest_market.premium_index),
    Endpoint("GET", "/fapi/v1/fundingRate", 1, _NONE, rest_market.funding_rates),
    Endpoint("GET", "/fapi/v2/account", 5, _SIGNED, rest_account.account),
    Endpoint("GET", "/fapi/v3/account", 5, _SIGNED, rest_account.account),
    Endpoint("GET", "/fapi/v2/balance", 5, _SIGNED, rest_account.balance),
    Endpoint("GET", "/fapi/v3/balance", 5, _SIGNED, rest_account.balance),
    Endpoint("GET", "/fapi/v2/positionRisk", 5, _SIGNED, rest_account.positions_v2),
    Endpoint("GET", "/fapi/v3/positionRisk", 5, _SIGNED, rest_account.positions_v3),
    Endpoint("POST", "/fapi/v1/leverage", 1, _SIGNED, rest_account.set_leverage),
    Endpoint("POST", "/fapi/v1/marginType", 1, _SIGNED, rest_account.set_margin_type),
    Endpoint("GET", "/fapi/v1/positionSide/dual", 30, _SIGNED, rest_account.position_mode),
    Endpoint("POST", "/fapi/v1/positionSide/dual", 1, _SIGNED, rest_account.set_position_mode),
    Endpoint("GET", "/fapi/v1/multiAssetsMargin", 30, _SIGNED, rest_account.multi_assets_mode),
    Endpoint("GET", "/fapi/v1/leverageBracket", 1, _SIGNED, rest_account.leverage_brackets),
    Endpoint("GET", "/fapi/v1/commissionRate", 20, _SIGNED, rest_account.commission_rate),
    Endpoint("GET", "/fapi/v1/symbolConfig", 5, _SIGNED, rest_account.symbol_config),
    Endpoint("GET", "/fapi/v1/userTrades", 5, _SIGNED, rest_account.user_trades),
    Endpoint("GET", "/fapi/v1/income", 30, _SIGNED, rest_account.incomes),
    Endpoint("POST", "/fapi/v1/order", 0, _SIGNED, rest_orders.create_order, places_order=True),
    Endpoint("GET", "/fapi/v1/order", 1, _SIGNED, rest_orders.get_order, looks_up=True),
    Endpoint("DELETE", "/fapi/v1/order", 1, _SIGNED, rest_orders.cancel_order),
    Endpoint("GET", "/fapi/v1/openOrders", 1, _SIGNED, rest_orders.open_orders),
    Endpoint("GET", "/fapi/v1/allOrders", 5, _SIGNED, rest_orders.all_orders),
    Endpoint("DELETE", "/fapi/v1/allOpenOrders", 1, _SIGNED, rest_orders.cancel_all_orders),
    Endpoint("POST", "/fapi/v1/countdownCancelAll", 10, _SIGNED, rest_orders.count_down),
    Endpoint("POST", "/fapi/v1/algoOrder", 0, _SIGNED, rest_orders.create_algo, places_order=True),
    Endpoint("GET", "/fapi/v1/algoOrder", 1, _SIGNED, rest_orders.get_algo, looks_up=True),
    Endpoint("DELETE", "/fapi/v1/algoOrder", 1, _SIGNED, rest_orders.cancel_algo),
    Endpoint("GET", "/fapi/v1/openAlgoOrders", 1, _SIGNED, rest_orders.open_algos),
    Endpoint("GET", "/fapi/v1/allAlgoOrders", 5, _SIGNED, rest_orders.all_algos),
    Endpoint("DELETE", "/fapi/v1/algoOpenOrders", 1, _SIGNED, rest_orders.cancel_all_algos),
    Endpoint("POST", "/fapi/v1/listenKey", 1, _KEY, rest_orders.create_listen_key),
    Endpoint("PUT", "/fapi/v1/listenKey", 1, _KEY, rest_orders.renew_listen_key),
    Endpoint("DELETE", "/fapi/v1/listenKey", 1, _KEY, rest_orders.delete_listen_key),
)


class RestApi:
    """Answers the endpoints of the table."""

    def __init__(self, exchange: LiveExchange) -> None:
        self._exchange = exchange
        self._faults = RequestFaults(exchange)
        self._weight = UsedWeight()

    def routes(self) -> list[Route]:
        """Return one Starlette route per endpoint."""
        return [Route(each.path, self._answer_for(each), methods=[each.method]) for each in ENDPOINTS]

    def _answer_for(self, endpoint: Endpoint) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            query, body = request.scope["query_string"], await request.body()
            headers = self._weight.count(endpoint.weight, order=endpoint.places_order, now=self._exchange.clock.now())
            if (closed := self._faults.refuse_all()) is not None:
                closed.headers.update(headers)
                return closed
            try:
                parameters = self._admit(endpoint, request, query, body)
                response = await self._respond(endpoint, request, parameters)
            except ExchangeError as error:
                response = json_answer({"code": error.code, "msg": str(error)}, error.http_status or 400)
            except Exception as error:  # noqa: BLE001 - an error of ours must look like one of the exchange
                log.error("paper_exchange_failed", path=endpoint.path, error=f"{type(error).__name__}: {error}")
                response = json_answer({"code": -1000, "msg": REFUSALS[-1000]}, 500)
            response.headers.update(headers)
            return response

        return answer

    def _admit(self, endpoint: Endpoint, request: Request, query: bytes, body: bytes) -> Parameters:
        parameters = Parameters.parse(query, body)
        if endpoint.security is not Security.NONE:
            check_key(request.headers.get("X-MBX-APIKEY"), self._exchange.credentials)
        if endpoint.security is Security.SIGNED:
            check_signed(query, body, parameters, self._exchange.credentials, self._exchange.server_time())
        return parameters

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
            client=(address.host, address.port) if address else ("", 0),
        )

        def recheck() -> None:
            if endpoint.places_order:
                check_fresh(parameters, exchange.server_time())

        return await self._faults.execute(call, lambda: endpoint.handle(exchange, parameters), recheck)
