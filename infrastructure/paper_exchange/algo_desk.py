"""Conditional orders: wait for the price, then become a regular order with an id of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from decimal import Decimal

from infrastructure.paper_exchange.account import Account
from infrastructure.paper_exchange.algo_rules import (
    check_algo,
    ends_with_position,
    followed,
    is_due,
    is_too_far,
    may_be_due,
    watched_price,
)
from infrastructure.paper_exchange.market import Market
from infrastructure.paper_exchange.modes import PositionSide
from infrastructure.paper_exchange.order_desk import OrderDesk, Trigger
from infrastructure.paper_exchange.records import (
    AlgoRecord,
    AlgoRequest,
    AlgoStatus,
    OrderRecord,
    OrderRequest,
    TimeInForce,
)
from infrastructure.paper_exchange.refusals import refusal
from infrastructure.paper_exchange.user_events import UserEvent, algo_update, trigger_rejected
from shared.errors import OrderRejectedError
from shared.trading.money import ZERO
from shared.trading.orders import OrderType


class AlgoDesk:
    """Every conditional order ever accepted; margin and position are not looked at before it triggers."""

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
        #: May refuse the order of a condition that came true: returns the refusal, or None.
        self.gate: Callable[[AlgoRecord], OrderRejectedError | None] = lambda _algo: None
        desk.on_end = self._on_order_end
        desk.on_flat = self._on_flat

    # -- reading ---------------------------------------------------------------------------------------------------

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

    def may_trigger(self, symbol: str, low: Decimal, high: Decimal) -> bool:
        """Tell whether a condition can come true while the price stays within ``low`` and ``high``."""
        return any(may_be_due(algo, low, high) for algo in self._open[symbol].values())

    # -- accepting -------------------------------------------------------------------------------------------------

    def place(self, request: AlgoRequest, now: datetime) -> AlgoRecord:
        """Accept a conditional order.

        Raises:
            OrderRejectedError: With Binance's code; nothing was changed.
        """
        market = self._markets[request.symbol]
        check_algo(request, market, is_hedged=self._account.is_hedged, now=now)
        self._check_room(request)
        algo_id = len(self._algos) + 1
        algo = AlgoRecord(
            symbol=request.symbol,
            algo_id=algo_id,
            client_algo_id=request.client_algo_id or f"auto-algo-{algo_id}",
            side=request.side,
            type=request.type,
            quantity=request.quantity or ZERO,
            trigger_price=request.trigger_price or ZERO,
            reduce_only=request.reduce_only,
            close_position=request.close_position,
            working_type=request.working_type,
            status=AlgoStatus.NEW,
            created_at=now,
            updated_at=now,
            position_side=request.position_side,
            price=request.price or ZERO,
            time_in_force=request.time_in_force,
            good_till=request.good_till,
            activation_price=request.activation_price,
            callback_rate=request.callback_rate,
            price_protect=request.price_protect,
            self_trade_prevention=request.self_trade_prevention,
        )
        return self._change(self._followed(algo))

    def _check_room(self, request: AlgoRequest) -> None:
        resting = self._open[request.symbol].values()
        if request.client_algo_id and any(algo.client_algo_id == request.client_algo_id for algo in resting):
            raise refusal(-4116)
        if len(resting) >= self._markets[request.symbol].contract.max_algo_orders:
            raise refusal(-4045)

    # -- triggering ------------------------------------------------------------------------------------------------

    def trigger(self, symbol: str, now: datetime) -> None:
        """Turn every conditional order of ``symbol`` whose price is reached into a regular order, oldest first."""
        market = self._markets[symbol]
        for waiting in self.open_algos(symbol):
            if waiting.algo_id not in self._open[symbol]:  # an earlier one closed the position it hung on
                continue
            algo = self._followed(waiting)
            if algo is not waiting:
                self._keep(algo)
            if is_due(algo, watched_price(market, algo.working_type)):
                self._fire(algo, now)

    def _followed(self, algo: AlgoRecord) -> AlgoRecord:
        market = self._markets[algo.symbol]
        return followed(algo, watched_price(market, algo.working_type), market.contract.instrument.tick_size)

    def _fire(self, algo: AlgoRecord, now: datetime) -> None:
        algo = self._change(replace(algo, status=AlgoStatus.TRIGGERING, triggered_at=now, updated_at=now))
        trigger = Trigger(
            algo.algo_id, algo.type, algo.trigger_price, algo.close_position, algo.working_type, algo.price_protect
        )
        try:
            self._check_protection(algo)
            order = self._desk.place_triggered(self._regular_order(algo), trigger, now)
        except OrderRejectedError as error:
            algo = self._change(replace(algo, status=AlgoStatus.REJECTED, reject_reason=str(error)))
            self._announce(trigger_rejected(algo, now))
            return
        algo = self._change(replace(algo, status=AlgoStatus.TRIGGERED, actual_order_id=order.order_id))
        if not order.is_open:
            self._finish(algo, order, now)

    def _check_protection(self, algo: AlgoRecord) -> None:
        if (refused := self.gate(algo)) is not None:
            raise refused
        if algo.price_protect and is_too_far(self._markets[algo.symbol]):
            raise refusal(-4131)

    def _regular_order(self, algo: AlgoRecord) -> OrderRequest:
        held = abs(self._account.position(algo.symbol, algo.position_side).quantity)
        rests = algo.becomes is OrderType.LIMIT
        tied = algo.time_in_force is TimeInForce.GTE_GTC
        in_one_way = algo.position_side is PositionSide.BOTH
        return OrderRequest(
            symbol=algo.symbol,
            side=algo.side,
            type=algo.becomes,
            quantity=held if algo.close_position else algo.quantity,
            price=algo.price if rests else None,
            time_in_force=algo.time_in_force if rests and not tied else TimeInForce.GTC,
            # The order goes by the name of its condition, so that a client recognises its own fill.
            client_order_id=algo.client_algo_id,
            reduce_only=in_one_way and (algo.reduce_only or algo.close_position),
            position_side=algo.position_side,
            good_till=algo.good_till if rests else None,
            self_trade_prevention=algo.self_trade_prevention,
        )

    # -- ending ----------------------------------------------------------------------------------------------------

    def cancel(self, algo: AlgoRecord, now: datetime) -> AlgoRecord:
        """Cancel an untriggered conditional order.

        Raises:
            OrderRejectedError: -2011, it is not open.
        """
        if not algo.is_open:
            raise refusal(-2011)
        return self._change(replace(algo, status=AlgoStatus.CANCELED, updated_at=now))

    def expire_due(self, symbol: str, now: datetime) -> None:
        """Expire the conditional orders whose date has come, each at its own moment."""
        for algo in self.open_algos(symbol):
            if algo.good_till is not None and algo.good_till <= now:
                self._change(replace(algo, status=AlgoStatus.EXPIRED, updated_at=algo.good_till))

    def expire_all(self, symbol: str, now: datetime) -> None:
        """Expire every untriggered conditional order of a symbol that is delisted."""
        for algo in self.open_algos(symbol):
            self._change(replace(algo, status=AlgoStatus.EXPIRED, updated_at=now))

    def _on_flat(self, symbol: str, side: PositionSide, now: datetime) -> None:
        for algo in self.open_algos(symbol):
            if algo.position_side is side and ends_with_position(algo):
                self._change(replace(algo, status=AlgoStatus.EXPIRED, updated_at=now))

    def _on_order_end(self, order: OrderRecord, now: datetime) -> None:
        algo = self._algos.get(order.algo_id or 0)
        if algo is not None and algo.status is AlgoStatus.TRIGGERED:
            self._finish(algo, order, now)

    def _finish(self, algo: AlgoRecord, order: OrderRecord, now: datetime) -> None:
        self._change(
            replace(
                algo,
                status=AlgoStatus.FINISHED,
                actual_price=order.average_price,
                actual_quantity=order.executed,
                updated_at=now,
            )
        )

    def _change(self, algo: AlgoRecord) -> AlgoRecord:
        self._keep(algo)
        self._announce(algo_update(algo, algo.updated_at))
        return algo

    def _keep(self, algo: AlgoRecord) -> None:
        self._algos[algo.algo_id] = algo
        if algo.is_open:
            self._open[algo.symbol][algo.algo_id] = algo
        else:
            self._open[algo.symbol].pop(algo.algo_id, None)
