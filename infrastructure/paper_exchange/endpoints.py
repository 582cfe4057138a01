"""The literal table of REST endpoints: what each costs, what its caller must prove, who answers it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from infrastructure.paper_exchange import rest_account, rest_batch, rest_history, rest_market, rest_orders
from infrastructure.paper_exchange.live_exchange import LiveExchange
from infrastructure.paper_exchange.parameters import Parameters
from infrastructure.paper_exchange.request_security import Security
from infrastructure.paper_exchange.request_weight import DEPTH, KLINES, Weight, without_symbol


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One line of the table.

    Attributes:
        weight: Request weight that Binance counts.
        security: What the caller must prove.
        handle: Answers; what it returns becomes JSON.
        orders: What it adds to the order counts of ten seconds and of one minute; where it adds something, the faults
            of orders strike.
        looks_up: True for the queries of one order.
    """

    method: str
    path: str
    weight: Weight
    security: Security
    handle: Callable[[LiveExchange, Parameters], Any]
    orders: tuple[int, int] = (0, 0)
    looks_up: bool = False

    @property
    def places_order(self) -> bool:
        return self.orders != (0, 0)


_NONE, _KEY, _SIGNED = Security.NONE, Security.KEY, Security.SIGNED
_ONE, _BATCH = (1, 1), (1, 5)

ENDPOINTS: tuple[Endpoint, ...] = (
    # -- market ------------------------------------------------------------------------------------------------
    Endpoint("GET", "/fapi/v1/ping", 1, _NONE, rest_market.ping),
    Endpoint("GET", "/fapi/v1/time", 1, _NONE, rest_market.server_time),
    Endpoint("GET", "/fapi/v1/exchangeInfo", 1, _NONE, rest_market.exchange_info),
    Endpoint("GET", "/fapi/v1/klines", KLINES, _NONE, rest_market.klines),
    Endpoint("GET", "/fapi/v1/markPriceKlines", KLINES, _NONE, rest_market.klines),
    Endpoint("GET", "/fapi/v1/indexPriceKlines", KLINES, _NONE, rest_market.index_klines),
    Endpoint("GET", "/fapi/v1/continuousKlines", KLINES, _NONE, rest_market.index_klines),
    Endpoint("GET", "/fapi/v1/depth", DEPTH, _NONE, rest_market.depth),
    Endpoint("GET", "/fapi/v1/trades", 5, _NONE, rest_market.trades),
    Endpoint("GET", "/fapi/v1/historicalTrades", 20, _KEY, rest_market.trades),
    Endpoint("GET", "/fapi/v1/aggTrades", 20, _NONE, rest_market.aggregate_trades),
    Endpoint("GET", "/fapi/v1/ticker/bookTicker", without_symbol(2, 5), _NONE, rest_market.book_ticker),
    Endpoint("GET", "/fapi/v1/ticker/24hr", without_symbol(1, 40), _NONE, rest_market.day_ticker),
    Endpoint("GET", "/fapi/v1/ticker/price", without_symbol(1, 2), _NONE, rest_market.price_ticker),
    Endpoint("GET", "/fapi/v2/ticker/price", without_symbol(1, 2), _NONE, rest_market.price_ticker),
    Endpoint("GET", "/fapi/v1/premiumIndex", without_symbol(1, 10), _NONE, rest_market.premium_index),
    Endpoint("GET", "/fapi/v1/fundingRate", 1, _NONE, rest_market.funding_rates),
    Endpoint("GET", "/fapi/v1/fundingInfo", 1, _NONE, rest_market.funding_info),
    Endpoint("GET", "/fapi/v1/openInterest", 1, _NONE, rest_market.open_interest),
    Endpoint("GET", "/fapi/v1/constituents", 2, _NONE, rest_market.constituents),
    # -- account -----------------------------------------------------------------------------------------------
    Endpoint("GET", "/fapi/v2/account", 5, _SIGNED, rest_account.account),
    Endpoint("GET", "/fapi/v3/account", 5, _SIGNED, rest_account.account),
    Endpoint("GET", "/fapi/v2/balance", 5, _SIGNED, rest_account.balance),
    Endpoint("GET", "/fapi/v3/balance", 5, _SIGNED, rest_account.balance),
    Endpoint("GET", "/fapi/v2/positionRisk", 5, _SIGNED, rest_account.positions_v2),
    Endpoint("GET", "/fapi/v3/positionRisk", 5, _SIGNED, rest_account.positions_v3),
    Endpoint("GET", "/fapi/v1/accountConfig", 5, _SIGNED, rest_account.account_config),
    Endpoint("GET", "/fapi/v1/symbolConfig", 5, _SIGNED, rest_account.symbol_config),
    Endpoint("POST", "/fapi/v1/leverage", 1, _SIGNED, rest_account.set_leverage),
    Endpoint("POST", "/fapi/v1/marginType", 1, _SIGNED, rest_account.set_margin_type),
    Endpoint("POST", "/fapi/v1/positionMargin", 1, _SIGNED, rest_account.adjust_margin),
    Endpoint("GET", "/fapi/v1/positionMargin/history", 1, _SIGNED, rest_account.margin_changes),
    Endpoint("GET", "/fapi/v1/positionSide/dual", 30, _SIGNED, rest_account.position_mode),
    Endpoint("POST", "/fapi/v1/positionSide/dual", 1, _SIGNED, rest_account.set_position_mode),
    Endpoint("GET", "/fapi/v1/multiAssetsMargin", 30, _SIGNED, rest_account.multi_assets_mode),
    Endpoint("POST", "/fapi/v1/multiAssetsMargin", 1, _SIGNED, rest_account.set_multi_assets_mode),
    Endpoint("GET", "/fapi/v1/leverageBracket", 1, _SIGNED, rest_account.leverage_brackets),
    Endpoint("GET", "/fapi/v1/commissionRate", 20, _SIGNED, rest_account.commission_rate),
    Endpoint("GET", "/fapi/v1/feeBurn", 30, _SIGNED, rest_account.fee_burn),
    Endpoint("GET", "/fapi/v1/adlQuantile", 5, _SIGNED, rest_account.adl_quantile),
    Endpoint("GET", "/fapi/v1/apiTradingStatus", without_symbol(1, 10), _SIGNED, rest_account.trading_status),
    Endpoint("GET", "/fapi/v1/rateLimit/order", 1, _SIGNED, rest_account.order_limits),
    Endpoint("GET", "/sapi/v1/account/apiRestrictions", 0, _SIGNED, rest_account.api_restrictions),
    Endpoint("GET", "/fapi/v1/userTrades", 5, _SIGNED, rest_history.user_trades),
    Endpoint("GET", "/fapi/v1/income", 30, _SIGNED, rest_history.incomes),
    Endpoint("GET", "/fapi/v1/forceOrders", without_symbol(20, 50), _SIGNED, rest_history.forced_orders),
    # -- regular orders ----------------------------------------------------------------------------------------
    Endpoint("POST", "/fapi/v1/order", 0, _SIGNED, rest_orders.create_order, _ONE),
    Endpoint("PUT", "/fapi/v1/order", 1, _SIGNED, rest_orders.edit_order, _ONE),
    Endpoint("POST", "/fapi/v1/order/test", 0, _SIGNED, rest_orders.test_order),
    Endpoint("GET", "/fapi/v1/order", 1, _SIGNED, rest_orders.get_order, looks_up=True),
    Endpoint("DELETE", "/fapi/v1/order", 1, _SIGNED, rest_orders.cancel_order),
    Endpoint("POST", "/fapi/v1/batchOrders", 5, _SIGNED, rest_batch.create_orders, _BATCH),
    Endpoint("PUT", "/fapi/v1/batchOrders", 5, _SIGNED, rest_batch.edit_orders, _BATCH),
    Endpoint("DELETE", "/fapi/v1/batchOrders", 1, _SIGNED, rest_batch.cancel_orders),
    Endpoint("GET", "/fapi/v1/orderAmendment", 1, _SIGNED, rest_orders.amendments),
    Endpoint("GET", "/fapi/v1/openOrder", 1, _SIGNED, rest_orders.get_open_order, looks_up=True),
    Endpoint("GET", "/fapi/v1/openOrders", without_symbol(1, 40), _SIGNED, rest_orders.open_orders),
    Endpoint("GET", "/fapi/v1/allOrders", 5, _SIGNED, rest_history.all_orders),
    Endpoint("DELETE", "/fapi/v1/allOpenOrders", 1, _SIGNED, rest_orders.cancel_all_orders),
    Endpoint("POST", "/fapi/v1/countdownCancelAll", 10, _SIGNED, rest_orders.count_down),
    # -- conditional orders ------------------------------------------------------------------------------------
    Endpoint("POST", "/fapi/v1/algoOrder", 0, _SIGNED, rest_orders.create_algo, _ONE),
    Endpoint("GET", "/fapi/v1/algoOrder", 1, _SIGNED, rest_orders.get_algo, looks_up=True),
    Endpoint("DELETE", "/fapi/v1/algoOrder", 1, _SIGNED, rest_orders.cancel_algo),
    Endpoint("GET", "/fapi/v1/openAlgoOrders", without_symbol(1, 40), _SIGNED, rest_orders.open_algos),
    Endpoint("GET", "/fapi/v1/allAlgoOrders", 5, _SIGNED, rest_history.all_algos),
    Endpoint("DELETE", "/fapi/v1/algoOpenOrders", 1, _SIGNED, rest_orders.cancel_all_algos),
    # -- user stream -------------------------------------------------------------------------------------------
    Endpoint("POST", "/fapi/v1/listenKey", 1, _KEY, rest_orders.create_listen_key),
    Endpoint("PUT", "/fapi/v1/listenKey", 1, _KEY, rest_orders.renew_listen_key),
    Endpoint("DELETE", "/fapi/v1/listenKey", 1, _KEY, rest_orders.delete_listen_key),
)
