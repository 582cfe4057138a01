"""From a closed candle to a signal: window, features, forecast, decision, and the three events that tell of them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from services.ai_service.domain.candle_events import candle_event_id, candle_of
from services.ai_service.domain.ensemble import EnsembleForecast, Member, combine
from services.ai_service.domain.features import FEATURE_SCHEMA, feature_row
from services.ai_service.domain.forecasts import Forecast, ModelStage
from services.ai_service.domain.signals import Action, Decision, expires_at
from services.ai_service.domain.windows import Floats
from services.ai_service.handlers.candle_windows import CandleWindows
from services.ai_service.handlers.model_shelf import ModelShelf
from services.ai_service.handlers.rl_position_sizing import RlPositionSizing
from services.ai_service.ports import Forecaster
from shared.bus.event_bus import EventBus
from shared.clock import Clock
from shared.errors import DeadlineExceededError, RpcError
from shared.events.envelope import Event
from shared.events.v3.ai import ModelPredictionPayload, Prediction, SignalGeneratedPayload
from shared.events.v3.market import CandleClosedPayload
from shared.ids import derive_id
from shared.rpc.commands import GetSignalRequest, GetSignalResult
from shared.telemetry.metrics import Metrics
from shared.telemetry.trading_log import trading_log
from shared.trading.candles import Candle

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Outlook:
    """All that was concluded from one candle."""

    candle: Candle
    model: Forecaster
    features: Floats
    forecast: Forecast
    latency_ms: float
    joint: EnsembleForecast
    decision: Decision


class SignalGenerator:
    """The ai-service's main handler.

    Every event id is derived from the candle's: a candle that is delivered again repeats the same events, which
    their consumers recognise.
    """

    def __init__(
        self,
        *,
        symbols: Sequence[str],
        timeframe: str,
        run_id: str,
        bus: EventBus,
        windows: CandleWindows,
        shelf: ModelShelf,
        sizing: RlPositionSizing,
        clock: Clock,
        market_clock: Clock,
        timeout_seconds: float,
        metrics: Metrics | None = None,
    ) -> None:
        """Prepare.

        Args:
            symbols: Venue symbols that signals are given for.
            timeframe: Length of the candles that are listened to.
            run_id: Part of the ids of candles that are asked for by RPC.
            bus: Where events go.
            windows: Candles up to the one in hand.
            shelf: The model.
            sizing: The decision and its reasoning.
            clock: Measures the latency of a forecast.
            market_clock: Says which candle is the newest.
            timeout_seconds: Longest wait for missing candles.
            metrics: Counters of the process.
        """
        self._symbols = frozenset(symbols)
        self._timeframe = timeframe
        self._run_id = run_id
        self._bus = bus
        self._windows = windows
        self._shelf = shelf
        self._sizing = sizing
        self._clock = clock
        self._market_clock = market_clock
        self._timeout_seconds = timeout_seconds
        self._metrics = metrics

    async def on_candle_closed(self, event: Event[CandleClosedPayload]) -> None:
        """Publish ``model.prediction``, ``rl.decision`` (BUY and SELL) and ``signal.generated`` for one candle.

        Raises:
            TransientError: Candles before it are missing and cannot be fetched now.
        """
        candle = candle_of(event.payload)
        if candle.symbol not in self._symbols or candle.timeframe != self._timeframe:
            return
        outlook = await self._outlook(candle)
        if outlook is None:
            return
        candle_id = event.metadata.event_id
        signal = _signal(outlook, candle_id)
        await self._publish_prediction(outlook, candle_id)
        await self._sizing.explain(
            candle.symbol, _signal_id(candle_id), derive_id("decision", candle_id), outlook.joint, outlook.decision
        )
        await self._bus.publish("signal.generated", signal, event_id=_signal_id(candle_id))
        _tell(signal, outlook.decision)

    async def get_signal(self, request: GetSignalRequest) -> GetSignalResult:
        """Return what the newest closed candle of a symbol says, as it was or will be published.

        Raises:
            RpcError: ``UNKNOWN_SYMBOL``, ``NO_MODEL`` or ``NO_CANDLES``.
        """
        if request.symbol not in self._symbols:
            raise RpcError("UNKNOWN_SYMBOL", f"{request.symbol} is not traded here; see QT_SYMBOLS")
        if self._shelf.trading_model is None:
            raise RpcError("NO_MODEL", f"no model may give signals now: {self._shelf.state}")
        candle = await self._windows.newest(request.symbol, self._market_clock.now())
        outlook = await self._outlook(candle) if candle is not None else None
        if candle is None or outlook is None:
            raise RpcError("NO_CANDLES", f"{request.symbol} has too few {self._timeframe} candles yet")
        return _result(_signal(outlook, candle_event_id(self._run_id, candle)), candle)

    async def _outlook(self, candle: Candle) -> _Outlook | None:
        """Return what ``candle`` says; None when nobody can or may say it."""
        model = self._shelf.trading_model
        if model is None:
            return None
        try:
            async with asyncio.timeout(self._timeout_seconds):
                window = await self._windows.ending_at(candle)
        except TimeoutError:
            raise DeadlineExceededError(
                f"the candles before {candle.symbol} {candle.open_time.isoformat()} did not come within "
                f"{self._timeout_seconds:g} s"
            ) from None
        if window is None:
            log.warning("too_few_candles", symbol=candle.symbol, candle=candle.open_time.isoformat())
            return None
        began = self._clock.monotonic()
        features = feature_row(window)
        forecast = model.predict(features)
        latency_ms = (self._clock.monotonic() - began) * 1000
        if self._metrics is not None:
            self._metrics.predicted(model.card.model_id)
        joint = combine([Member(model.card.family, model.card.version, forecast)])
        decision = self._sizing.decide(joint, on_trial=model.card.stage is ModelStage.BOOTSTRAP)
        return _Outlook(candle, model, features, forecast, latency_ms, joint, decision)

    async def _publish_prediction(self, outlook: _Outlook, candle_id: str) -> None:
        card, forecast = outlook.model.card, outlook.forecast
        await self._bus.publish(
            "model.prediction",
            ModelPredictionPayload(
                model_id=card.model_id,
                model_type=card.family,
                prediction=Prediction(
                    p_up=forecast.p_up,
                    p_down=1 - forecast.p_up,
                    expected_return_pct=forecast.expected_return_pct,
                ),
                confidence=max(forecast.p_up, 1 - forecast.p_up),
                latency_ms=outlook.latency_ms,
                feature_count=len(outlook.features),
                symbol=outlook.candle.symbol,
                timeframe=outlook.candle.timeframe,
                candle_close_time=outlook.candle.close_time,
                horizon_candles=card.barriers.horizon_candles,
                model_version=card.version,
                feature_schema=FEATURE_SCHEMA,
                features=tuple(float(value) for value in outlook.features),
            ),
            event_id=derive_id("prediction", candle_id, card.model_id),
        )


def _signal_id(candle_id: str) -> str:
    return derive_id("signal", candle_id)


def _signal(outlook: _Outlook, candle_id: str) -> SignalGeneratedPayload:
    candle, joint, decision = outlook.candle, outlook.joint, outlook.decision
    metadata: dict[str, object] = {"candle_close_time": candle.close_time.isoformat(), "reason": decision.reason}
    if decision.action is not Action.HOLD:
        metadata |= {"stop_loss_pct": decision.exit_pct, "take_profit_pct": decision.exit_pct}
    return SignalGeneratedPayload(
        symbol=candle.symbol,
        action=decision.action.value,
        confidence=decision.confidence,
        model_source=joint.source,
        score=decision.score,
        timeframe=candle.timeframe,
        price=candle.close,
        volume=candle.volume,
        model_version=joint.version,
        ensemble_agreement=joint.agreement,
        models_voted=joint.voters,
        suggested_leverage=decision.bet.leverage if decision.bet else None,
        suggested_size_usd=decision.bet.size_usd if decision.bet else None,
        signal_id=_signal_id(candle_id),
        expires_at=expires_at(candle.close_time, candle.timeframe),
        metadata=metadata,
    )


def _tell(signal: SignalGeneratedPayload, decision: Decision) -> None:
    trading_log.signal_generated(
        symbol=signal.symbol,
        action=signal.action,
        confidence=signal.confidence,
        timeframe=signal.timeframe,
        reason=decision.reason,
        price_usd=signal.price,
        suggested_size_usd=signal.suggested_size_usd,
        suggested_leverage=signal.suggested_leverage,
        signal_id=signal.signal_id,
    )


def _result(signal: SignalGeneratedPayload, candle: Candle) -> GetSignalResult:
    shared = set(GetSignalResult.model_fields) & set(SignalGeneratedPayload.model_fields)
    return GetSignalResult(**signal.model_dump(include=shared), candle_close_time=candle.close_time)
