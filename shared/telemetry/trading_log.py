"""The log lines that tell what was traded, one typed method each, so that every service says the same thing alike.

Names of fields say their units: ``_usd`` is USDT, ``_pct`` percent, quantities are in the base asset. The trace id is
added to each line as to any other, so ``grep`` for it finds the way from the signal to the closed position.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import structlog
from structlog.typing import FilteringBoundLogger

Severity = Literal["LOW", "MEDIUM", "HIGH", "CRITICAL"]


class TradingLogger:
    """Writes trading events to the log; the name of the method is the name of the event."""

    def __init__(self, logger: FilteringBoundLogger | None = None) -> None:
        """Prepare.

        Args:
            logger: Where the lines go; the log of this process by default.
        """
        self._log: FilteringBoundLogger = logger or structlog.get_logger("trading")

    # -- signals and models ------------------------------------------------------------------------------------------

    def signal_generated(
        self,
        *,
        symbol: str,
        action: str,
        confidence: float,
        timeframe: str,
        reason: str,
        price_usd: float | None = None,
        suggested_size_usd: float | None = None,
        suggested_leverage: float | None = None,
        signal_id: str | None = None,
    ) -> None:
        """A signal was published; HOLD, which asks for nothing, only shows at DEBUG."""
        tell = self._log.debug if action == "HOLD" else self._log.info
        tell(
            "signal_generated",
            symbol=symbol,
            action=action,
            confidence=confidence,
            timeframe=timeframe,
            reason=reason,
            price_usd=price_usd,
            suggested_size_usd=suggested_size_usd,
            suggested_leverage=suggested_leverage,
            signal_id=signal_id,
        )

    def signal_denied(self, *, symbol: str, side: str, reason: str) -> None:
        """A signal is not carried out."""
        self._log.info("signal_denied", symbol=symbol, side=side, reason=reason)

    def model_loaded(
        self, *, model_id: str, model_type: str, version: str, stage: str, figures: Mapping[str, float]
    ) -> None:
        """A model gives signals from now on; ``figures`` are those of its validation."""
        self._log.info(
            "model_loaded",
            model_id=model_id,
            model_type=model_type,
            version=version,
            stage=stage,
            figures=dict(figures),
        )

    # -- orders ------------------------------------------------------------------------------------------------------

    def order_submitted(
        self,
        *,
        symbol: str,
        side: str,
        order_type: str,
        leg: str,
        quantity: float,
        client_order_id: str,
        trigger_price_usd: float | None = None,
        limit_price_usd: float | None = None,
        strategy: str | None = None,
        explanation: str | None = None,
    ) -> None:
        """An order is being sent; ``quantity`` 0 closes whatever is open; the explanation tells why it is worked so."""
        self._log.info(
            "order_submitted",
            symbol=symbol,
            side=side,
            order_type=order_type,
            leg=leg,
            quantity=quantity,
            trigger_price_usd=trigger_price_usd,
            limit_price_usd=limit_price_usd,
            strategy=strategy,
            explanation=explanation,
            client_order_id=client_order_id,
        )

    def order_filled(
        self,
        *,
        symbol: str,
        side: str,
        status: str,
        leg: str,
        fill_quantity: float,
        fill_price_usd: float,
        filled_quantity: float,
        commission_usd: float,
        client_order_id: str,
    ) -> None:
        """One trade of an order; ``filled_quantity`` is the sum of all so far."""
        self._log.info(
            "order_filled",
            symbol=symbol,
            side=side,
            status=status,
            leg=leg,
            fill_quantity=fill_quantity,
            fill_price_usd=fill_price_usd,
            filled_quantity=filled_quantity,
            commission_usd=commission_usd,
            client_order_id=client_order_id,
        )

    def order_ended(
        self, *, symbol: str, leg: str, status: str, filled_quantity: float, reason: str | None, client_order_id: str
    ) -> None:
        """An order ended before it was filled: cancelled, expired, or never arrived."""
        self._log.info(
            "order_ended",
            symbol=symbol,
            leg=leg,
            status=status,
            filled_quantity=filled_quantity,
            reason=reason,
            client_order_id=client_order_id,
        )

    def order_rejected(self, *, symbol: str, leg: str, reason: str | None, client_order_id: str) -> None:
        """The exchange said no."""
        self._log.warning("order_rejected", symbol=symbol, leg=leg, reason=reason, client_order_id=client_order_id)

    def order_unknown(self, *, symbol: str, leg: str, reason: str | None, client_order_id: str) -> None:
        """The answer was lost: the order may exist, and is being looked up."""
        self._log.warning("order_unknown", symbol=symbol, leg=leg, reason=reason, client_order_id=client_order_id)

    # -- positions ---------------------------------------------------------------------------------------------------

    def position_opened(
        self,
        *,
        symbol: str,
        side: Literal["LONG", "SHORT"],
        entry_price_usd: float,
        size_usd: float,
        leverage: float,
        stop_loss_price_usd: float | None,
        take_profit_price_usd: float | None,
        position_id: str,
    ) -> None:
        """A position exists."""
        self._log.info(
            "position_opened",
            symbol=symbol,
            side=side,
            entry_price_usd=entry_price_usd,
            size_usd=size_usd,
            leverage=leverage,
            stop_loss_price_usd=stop_loss_price_usd,
            take_profit_price_usd=take_profit_price_usd,
            position_id=position_id,
        )

    def position_closed(
        self,
        *,
        symbol: str,
        side: Literal["LONG", "SHORT"],
        entry_price_usd: float,
        exit_price_usd: float,
        size_usd: float,
        pnl_usd: float,
        pnl_pct: float,
        duration_seconds: float,
        exit_reason: str,
        position_id: str,
    ) -> None:
        """A position is flat again; the profit is after fees and funding, the duration in market time."""
        self._log.info(
            "position_closed",
            symbol=symbol,
            side=side,
            entry_price_usd=entry_price_usd,
            exit_price_usd=exit_price_usd,
            size_usd=size_usd,
            pnl_usd=pnl_usd,
            pnl_pct=pnl_pct,
            duration_seconds=duration_seconds,
            exit_reason=exit_reason,
            position_id=position_id,
        )

    def stop_placed(
        self, *, symbol: str, leg: str, side: str, trigger_price_usd: float | None, client_order_id: str
    ) -> None:
        """A stop, or a take-profit, rests on the exchange."""
        self._log.info(
            "stop_placed",
            symbol=symbol,
            leg=leg,
            side=side,
            trigger_price_usd=trigger_price_usd,
            client_order_id=client_order_id,
        )

    # -- risk and policy ---------------------------------------------------------------------------------------------

    def risk_alert(
        self,
        *,
        alert_type: str,
        severity: Severity,
        message: str,
        symbols: Sequence[str] = (),
        action_taken: str | None = None,
    ) -> None:
        """Risk management acted, or found something wrong; the worse, the louder."""
        tell = {"HIGH": self._log.warning, "CRITICAL": self._log.error}.get(severity, self._log.info)
        tell(
            "risk_alert",
            alert_type=alert_type,
            severity=severity,
            message=message,
            symbols=list(symbols),
            action_taken=action_taken,
        )

    def emergency_stop(self, *, trigger_reason: str, close_all_positions: bool, drawdown_pct: float | None) -> None:
        """Trading is stopped until a person says otherwise."""
        self._log.critical(
            "emergency_stop",
            trigger_reason=trigger_reason,
            close_all_positions=close_all_positions,
            drawdown_pct=drawdown_pct,
        )

    def trading_state_changed(self, *, previous: str, current: str, reason: str, changed_by: str) -> None:
        """Other orders may be sent than before."""
        self._log.warning(
            "trading_state_changed", previous=previous, current=current, reason=reason, changed_by=changed_by
        )

    def policy_changed(
        self,
        *,
        version: int | None,
        mode: str,
        updated_by: str,
        changed_fields: Sequence[str],
        reason: str | None = None,
    ) -> None:
        """Another policy is in force."""
        self._log.info(
            "policy_changed",
            version=version,
            mode=mode,
            updated_by=updated_by,
            changed_fields=list(changed_fields),
            reason=reason,
        )


#: The trading log of this process.
trading_log = TradingLogger()
