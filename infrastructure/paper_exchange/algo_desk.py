"""Conditional orders: wait for the price, then become a market order with an id of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from decimal import Decimal

from infrastructure.paper_exchange.account import Account
from infrastructure.paper_exchange.filters import check_client_id, check_quantity, check_trigger_price
from infrastructure.paper_exchange.market import Market
from infrastructure.paper_exchange.order_desk import OrderDesk, Trigger
from infrastructure.paper_exchange.records import AlgoRecord, AlgoRequest, AlgoStatus, OrderRequest, WorkingType
from infrastructure.paper_exchange.refusals import refusal
from infrastructure.paper_exchange.user_events import UserEvent, algo_update
from shared.errors import OrderRejectedError
from shared.trading.money import ZERO
from shared.trading.orders import OrderType, Side


class AlgoDesk:
    """Every conditional order ever accepted; nothing but the trigger price is checked before it triggers."""

    def __init__(
        self,
        markets: Mapping[str, Market],
        account: Account,
        desk: OrderDesk,
        announce: Callable[[UserEvent], None],
    ) -> None:
        self._markets = markets
        self._account = account
        self._desk = desk
        self._announce = announce
        self._algos: dict[int, AlgoRecord] = {}
        self._open: dict[str, dict[int, AlgoRecord]] = {symbol: {} for symbol in markets}
        #: May refuse the market order of a condition that came true: returns the refusal, or None.
        self.gate: Callable[[AlgoRecord], OrderRejectedError | None] = lambda _algo: None

    def all_algos(self, symbol: str | None = None) -> list[AlgoRecord]:
        """Return every conditional order, oldest first."""
        return [algo for algo in self._algos.values() if symbol in (None, algo.symbol)]

    def open_algos(self, symbol: str) -> list[AlgoRecord]:
        return list(self._open[symbol].values())

    def find(self, algo_id: int | None, client_algo_id: str | None) -> AlgoRecord | None:
        """Return the conditional order with either id; of several with one client id the newest."""
        if algo_id is not None:
            return self._algos.get(algo_id)
        matching = [algo for algo in self._algos.values() if algo.client_algo_id == client_algo_id]
        return matching[-1] if matching else None

    def place(self, request: AlgoRequest, now: datetime) -> AlgoRecord:
        """Accept a conditional order.

        Raises:
            OrderRejectedError: With Binance's code; nothing was changed.
        """
        market = self._markets[request.symbol]
        self._check(request, market)
        algo_id = len(self._algos) + 1
        algo = AlgoRecord(
            symbol=request.symbol,
            algo_id=algo_id,
            client_algo_id=request.client_algo_id or f"auto-algo-{algo_id}",
            side=request.side,
            type=request.type,
            quantity=request.quantity or ZERO,
            trigger_price=request.trigger_price,
            reduce_only=request.reduce_only,
            close_position=request.close_position,
            working_type=request.working_type,
            status=AlgoStatus.NEW,
            created_at=now,
            updated_at=now,
        )
        return self._change(algo)

    def _check(self, request: AlgoRequest, market: Market) -> None:
        check_client_id(request.client_algo_id)
        if not request.type.is_algo:
            raise refusal(-1116)
        if request.close_position and request.quantity is not None:
            raise refusal(-4137)
        if not request.close_position:
            if request.quantity is None:
                raise refusal(-1102, "quantity")
            check_quantity(request.quantity, market.contract, market=True)
        check_trigger_price(request.trigger_price, market.contract)
        resting = self._open[request.symbol].values()
        if request.client_algo_id and any(algo.client_algo_id == request.client_algo_id for algo in resting):
            raise refusal(-4116)
        if len(resting) >= market.contract.max_algo_orders:
            raise refusal(-4045)
        if _is_reached(request.side, request.type, request.trigger_price, _price(market, request.working_type)):
            raise refusal(-2021)

    def may_trigger(self, symbol: str, low: Decimal, high: Decimal) -> bool:
        """Tell whether a condition can come true while the price stays within ``low`` and ``high``."""
        return any(
            _is_reached(algo.side, algo.type, algo.trigger_price, extreme)
            for algo in self._open[symbol].values()
            for extreme in (low, high)
        )

    def trigger(self, symbol: str, now: datetime) -> None:
        """Turn every conditional order of ``symbol`` whose price is reached into a market order, oldest first."""
        market = self._markets[symbol]
        for algo in self.open_algos(symbol):
            if _is_reached(algo.side, algo.type, algo.trigger_price, _price(market, algo.working_type)):
                self._fire(algo, now)

    def _fire(self, algo: AlgoRecord, now: datetime) -> None:
        algo = self._change(replace(algo, status=AlgoStatus.TRIGGERING, triggered_at=now, updated_at=now))
        trigger = Trigger(algo.algo_id, algo.type, algo.trigger_price, algo.close_position)
        try:
            if (refused := self.gate(algo)) is not None:
                raise refused
            order = self._desk.place_triggered(self._market_order(algo), trigger, now)
        except OrderRejectedError as error:
            self._change(replace(algo, status=AlgoStatus.REJECTED, reject_reason=str(error)))
            return
        algo = replace(algo, actual_order_id=order.order_id)
        self._change(replace(algo, status=AlgoStatus.TRIGGERED))
        self._change(
            replace(
                algo,
                status=AlgoStatus.FINISHED,
                actual_price=order.average_price,
                actual_quantity=order.executed,
            )
        )

    def _market_order(self, algo: AlgoRecord) -> OrderRequest:
        held = abs(self._account.position(algo.symbol).quantity)
        return OrderRequest(
            symbol=algo.symbol,
            side=algo.side,
            type=OrderType.MARKET,
            quantity=held if algo.close_position else algo.quantity,
            # The market order goes by the name of its condition, so that a client recognises its own fill.
            client_order_id=algo.client_algo_id,
            reduce_only=algo.reduce_only or algo.close_position,
        )

    def cancel(self, algo: AlgoRecord, now: datetime) -> AlgoRecord:
        """Cancel an untriggered conditional order.

        Raises:
            OrderRejectedError: -2011, it is not open.
        """
        if not algo.is_open:
            raise refusal(-2011)
        return self._change(replace(algo, status=AlgoStatus.CANCELED, updated_at=now))

    def _change(self, algo: AlgoRecord) -> AlgoRecord:
        self._algos[algo.algo_id] = algo
        if algo.is_open:
            self._open[algo.symbol][algo.algo_id] = algo
        else:
            self._open[algo.symbol].pop(algo.algo_id, None)
        self._announce(algo_update(algo, algo.updated_at))
        return algo


def _price(market: Market, working_type: WorkingType) -> Decimal:
    return market.mark if working_type is WorkingType.MARK_PRICE else market.last


def _is_reached(side: Side, kind: OrderType, trigger_price: Decimal, price: Decimal) -> bool:
    """A BUY stop and a SELL take-profit wait for a rise, the other two for a fall."""
    waits_for_rise = (side is Side.BUY) == (kind is OrderType.STOP_MARKET)
    return price >= trigger_price if waits_for_rise else price <= trigger_price
