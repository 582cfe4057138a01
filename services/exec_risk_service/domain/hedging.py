"""Hedging: a proposal to offset net exposure with BTC or ETH, and the entry that carries it out when that is wanted."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal

from services.exec_risk_service.domain.execution_rules import begin
from services.exec_risk_service.domain.execution_start import opening, terms_of
from services.exec_risk_service.domain.inputs import Cause
from services.exec_risk_service.domain.orders import EntryPlan
from services.exec_risk_service.domain.portfolio_checks import cents
from services.exec_risk_service.domain.risk_checks import EntryOrder, RiskView, max_leverage, max_symbol_exposure
from services.exec_risk_service.domain.risk_engine import first_reason, risk_view
from services.exec_risk_service.domain.sizing import quantity_for, size_cap
from services.exec_risk_service.domain.step import Turn
from shared.trading.orders import Side

#: Symbols that a hedge may use, the preferred one first.
HEDGES = ("BTCUSDT", "ETHUSDT")


@dataclass(frozen=True, slots=True)
class Hedge:
    """A position that would offset net exposure.

    Attributes:
        symbol: BTCUSDT or ETHUSDT.
        side: Against the exposure.
        size_usd: Value of the position, USDT, within the limits of one position.
        net_usd: Exposure in terms of the hedge: every position times its beta, USDT.
        trigger_usd: Exposure from which a hedge is proposed, USDT.
    """

    symbol: str
    side: Side
    size_usd: Decimal
    net_usd: Decimal
    trigger_usd: Decimal


def beta_exposure(view: RiskView, hedge: str) -> Decimal:
    """Return the net exposure in terms of ``hedge``, USDT; a beta that is not known counts as 1."""
    total = 0.0
    for symbol, exposure in view.exposures.by_symbol.items():
        beta = view.panel.beta_of(symbol, hedge)
        total += float(exposure) * (1.0 if beta is None else beta)
    return cents(total)


def hedge_for(view: RiskView, hedge: str) -> Hedge | None:
    """Return the position in ``hedge`` that offsets part of the net exposure; None where none is called for."""
    limits = view.rules.limits
    if limits.hedge_trigger is None or view.equity is None or hedge in view.exposures.by_symbol:
        return None
    net, trigger = beta_exposure(view, hedge), limits.hedge_trigger * view.equity
    if abs(net) <= trigger:
        return None
    largest = min(size_cap(view, view.rules.default_stop_loss_pct), max_symbol_exposure(view))
    size = min(abs(net) * limits.hedge_ratio, largest)
    return Hedge(hedge, Side.SELL if net > 0 else Side.BUY, size, net, trigger)


def consider_hedge(turn: Turn, cause: Cause, symbol: str, at: datetime) -> None:
    """Propose a hedge in ``symbol``, whose candle just closed, once per excess; carry it out where that is enabled."""
    if turn.context.rules.limits.hedge_trigger is None or symbol != _preferred(turn):
        return
    view = risk_view(turn.book, symbol, turn.context)
    hedge = hedge_for(view, symbol)
    if hedge is None or view.mark is None:
        turn.pace = replace(turn.pace, hedge_proposed=False)
        return
    if turn.pace.hedge_proposed:
        return
    turn.pace = replace(turn.pace, hedge_proposed=True)
    _propose(turn, cause, hedge)
    if turn.context.rules.limits.hedging_enabled:
        _carry_out(turn, cause, hedge, view, at=at)


def _preferred(turn: Turn) -> str | None:
    """Return the first hedge that has a price and nothing open; one symbol holds one position."""
    taken = turn.book.taken_symbols()
    return next((one for one in HEDGES if one in turn.marks and one not in taken), None)


def _propose(turn: Turn, cause: Cause, hedge: Hedge) -> None:
    turn.alert(
        "HEDGE_PROPOSED",
        f"net exposure is {hedge.net_usd:.2f} USD in terms of {hedge.symbol}, above {hedge.trigger_usd:.2f} USD: "
        f"{hedge.side.value} {hedge.symbol} for {hedge.size_usd:.2f} USD would offset part of it",
        severity="MEDIUM",
        symbols=(hedge.symbol,),
        trace_id=cause.trace_id,
        causation_id=cause.event_id,
        metadata={
            "symbol": hedge.symbol,
            "side": hedge.side.value,
            "size_usd": float(hedge.size_usd),
            "net_exposure_usd": float(hedge.net_usd),
            "trigger_usd": float(hedge.trigger_usd),
            "enabled": turn.context.rules.limits.hedging_enabled,
        },
    )


def _carry_out(turn: Turn, cause: Cause, hedge: Hedge, view: RiskView, *, at: datetime) -> None:
    assert view.mark is not None
    rules, price = turn.context.rules, view.mark
    order = EntryOrder(
        symbol=hedge.symbol,
        side=hedge.side,
        size_usd=hedge.size_usd,
        quantity=quantity_for(hedge.size_usd, price, view),
        price=price,
        leverage=min(rules.default_leverage, max_leverage(view)),
        stop_loss_pct=rules.default_stop_loss_pct,
        confidence=Decimal(1),  # a rule asks, not a model
    )
    denial = first_reason(order, view)
    if denial is None:
        plan = EntryPlan(stop_loss_pct=order.stop_loss_pct, take_profit_pct=None, model="hedge")
        begin(turn, opening(turn, cause, order, plan, terms_of(rules), at=at), None)
        return
    turn.alert(
        "TRADE_BLOCKED",
        f"{hedge.side.value} {hedge.symbol} (hedge): {denial.text}",
        severity="MEDIUM",
        symbols=(hedge.symbol,),
        action="BLOCK_TRADES",
        trace_id=cause.trace_id,
        causation_id=cause.event_id,
        metadata={"code": denial.code.value},
    )
