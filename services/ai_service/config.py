"""Settings of the ai-service; every value can be set by the environment variable of the same name."""

from __future__ import annotations

from pydantic import AliasChoices, Field

from services.ai_service.domain.features import WINDOW_CANDLES
from services.ai_service.domain.labels import BarrierRule
from services.ai_service.domain.signals import SignalRule
from services.ai_service.domain.sizing import SizingRule
from shared.settings import ServiceSettings

SERVICE = "ai-service"


class AiServiceSettings(ServiceSettings):
    """What the ai-service is told from outside.

    Attributes:
        min_confidence_threshold: Lowest calibrated probability of the chosen side, 0 to 1. Calibrated probabilities
            lie close to one half, so the default leaves the choice to ``min_signal_strength`` and to the policy.
        min_signal_strength: Share of past forecasts that an entry's forecast must exceed, 0 to 1.
        sizing_capital_usd: Capital that positions are a share of, USDT; fixed, so that a size depends on the signal
            alone and not on when the account was read.
        kelly_share: Part of the full Kelly bet, 0 to 1.
        round_trip_cost_pct: Fees of entry plus exit, percent of the position; twice the taker fee of 0.05 %.
        exploration_size_usd: Position, USDT, of a bootstrap model whose expected return does not cover the costs;
            paper mode only; 0 makes it stay out.
        max_suggested_leverage: Highest leverage to suggest.
        horizon_candles: Candles that a forecast looks ahead.
        barrier_range_multiple: Distance of take profit and stop loss, in average true ranges times the square root
            of the horizon.
        min_barrier_pct: Their smallest distance, percent of price; three round trips.
        training_candles: Candles per symbol that a model is trained on; fewer when the exchange has fewer.
        min_training_candles: Fewest candles per symbol that make a model.
        training_seed: Seed of everything random in the training.
        max_backfill_candles: Candles per symbol that are published late after an absence.
        stream_quiet_seconds: Wall seconds after which a candle that should have come is asked for by REST.
        prediction_timeout_seconds: Longest wait for the candles of one prediction, wall seconds.
    """

    port: int = Field(default=8001, ge=1, le=65535, validation_alias=AliasChoices("qt_port", "port"))
    min_confidence_threshold: float = Field(default=0.5, ge=0, le=1)
    min_signal_strength: float = Field(default=0.2, ge=0, le=1)
    sizing_capital_usd: float = Field(default=10_000, gt=0)
    kelly_share: float = Field(default=0.5, gt=0, le=1)
    round_trip_cost_pct: float = Field(default=0.10, ge=0, le=5)
    exploration_size_usd: float = Field(default=300, ge=0)
    max_suggested_leverage: float = Field(default=5, ge=1, le=125)
    horizon_candles: int = Field(default=5, ge=1, le=500)
    barrier_range_multiple: float = Field(default=0.5, gt=0, le=10)
    min_barrier_pct: float = Field(default=0.3, gt=0, le=50)
    training_candles: int = Field(default=10_000, ge=400, le=200_000)
    min_training_candles: int = Field(default=400, ge=WINDOW_CANDLES + 200)
    training_seed: int = Field(default=7, ge=0)
    max_backfill_candles: int = Field(default=1500, ge=1, le=10_000)
    stream_quiet_seconds: float = Field(default=3.0, gt=0)
    prediction_timeout_seconds: float = Field(default=2.0, gt=0)

    @property
    def barriers(self) -> BarrierRule:
        """What a new model is trained to foresee."""
        return BarrierRule(self.horizon_candles, self.barrier_range_multiple, self.min_barrier_pct)

    @property
    def signal_rule(self) -> SignalRule:
        """Thresholds of an entry."""
        return SignalRule(self.min_confidence_threshold, self.min_signal_strength)

    @property
    def sizing_rule(self) -> SizingRule:
        """How positions are sized."""
        return SizingRule(
            capital_usd=self.sizing_capital_usd,
            kelly_share=self.kelly_share,
            round_trip_cost_pct=self.round_trip_cost_pct,
            exploration_size_usd=self.exploration_size_usd,
            max_leverage=self.max_suggested_leverage,
        )

    def worker_environment(self) -> dict[str, str]:
        """Return the variables that make a training process see what this process sees."""
        told = {
            "TRADING_MODE": self.trading_mode.value,
            "QT_LIVE_CONFIRM": self.qt_live_confirm,
            "QT_SYMBOLS": ",".join(self.qt_symbols),
            "QT_TIMEFRAME": self.qt_timeframe,
            "QT_STATE_DIR": str(self.state_dir),
            "EXCHANGE_URL": self.exchange_url,
            "LOG_LEVEL": self.log_level,
        }
        if self.qt_market_clock_file is not None:
            told["QT_MARKET_CLOCK_FILE"] = str(self.qt_market_clock_file)
        numbers = (
            "horizon_candles",
            "barrier_range_multiple",
            "min_barrier_pct",
            "training_candles",
            "min_training_candles",
            "training_seed",
        )
        return told | {name.upper(): str(getattr(self, name)) for name in numbers}
