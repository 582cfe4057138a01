"""Events of the ai-service: predictions, signals, and the reasoning behind them."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from shared.events.envelope import EventPayload
from shared.events.fields import (
    Count,
    Leverage,
    NotNegative,
    PositivePercent,
    Price,
    Score,
    Symbol,
    Text,
    Timeframe,
    UtcTime,
)

SignalAction = Literal["BUY", "SELL", "HOLD"]
ModelType = Literal["xgboost", "lightgbm", "nhits", "patchtst", "ensemble", "rl_ppo"]
DecisionType = Literal["position_sizing", "meta_strategy", "dynamic_tpsl"]


class SignalGeneratedPayload(EventPayload):
    """A wish to trade one symbol, with the suggested size; exec-risk decides."""

    symbol: Symbol = Field(description="Venue symbol.")
    action: SignalAction = Field(description="What to do; HOLD asks for nothing.")
    confidence: Score = Field(description="Confidence in the action, 0 to 1.")
    model_source: Text = Field(description="Model or ensemble that spoke, for example ensemble.")
    score: Score = Field(description="Strength of the signal, 0 to 1.")
    timeframe: Timeframe = Field(default="1m", description="Length of the candle behind the signal.")
    price: Price | None = Field(default=None, description="Close of that candle, USDT.")
    volume: NotNegative | None = Field(default=None, description="Volume of that candle, base asset.")
    model_version: str | None = Field(default=None, description="Version of the model.")
    ensemble_agreement: Score | None = Field(default=None, description="Share of the models that agree, 0 to 1.")
    models_voted: tuple[str, ...] | None = Field(default=None, description="Models that voted.")
    suggested_leverage: Leverage | None = Field(default=None, description="Suggested leverage, 1 to 125.")
    suggested_size_usd: NotNegative | None = Field(default=None, description="Suggested position size, USDT.")
    signal_id: str | None = Field(default=None, description="Id of the signal; the same after a redelivered candle.")
    expires_at: UtcTime | None = Field(
        default=None,
        description="Market time after which nobody may act on it: one timeframe after the close, at most 5 min.",
    )


class RlDecisionPayload(EventPayload):
    """The reasoning behind a signal's size, strategy or exits, published just before the signal."""

    decision_type: DecisionType = Field(description="Which decision.")
    symbol: Symbol = Field(description="Venue symbol.")
    signal_id: str | None = Field(default=None, description="Signal that this explains.")
    recommended_size_usd: NotNegative | None = Field(default=None, description="Position size, USDT.")
    recommended_leverage: Leverage | None = Field(default=None, description="Leverage, 1 to 125.")
    kelly_fraction: float | None = Field(default=None, description="Kelly bet as a fraction of capital.")
    selected_strategy: str | None = Field(default=None, description="Name of the strategy.")
    strategy_confidence: Score | None = Field(default=None, description="Confidence in the strategy, 0 to 1.")
    take_profit_pct: PositivePercent | None = Field(default=None, description="Distance of the take profit, percent.")
    stop_loss_pct: PositivePercent | None = Field(default=None, description="Distance of the stop loss, percent.")
    trailing_stop_enabled: bool | None = Field(default=None, description="Whether the stop follows the price.")
    rl_agent_version: Text = Field(description="Version of the agent.")
    state_features: dict[str, float] | None = Field(default=None, description="State that the agent saw.")
    q_values: dict[str, float] | None = Field(default=None, description="Value of each action in that state.")
    exploration_epsilon: Score | None = Field(default=None, description="Chance of a random action, 0 to 1.")


class Prediction(BaseModel):
    """What a model expects of the next ``horizon_candles``."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    p_up: Score = Field(description="Probability of a rise, 0 to 1.")
    p_down: Score = Field(description="Probability of a fall, 0 to 1.")
    expected_return_pct: float = Field(description="Expected return, percent.")


class ModelPredictionPayload(EventPayload):
    """One model's prediction, with what drift detection needs to judge it later."""

    model_id: Text = Field(description="Id of the model.")
    model_type: ModelType = Field(description="Family of the model.")
    prediction: Prediction = Field(description="What it expects.")
    confidence: Score = Field(description="Confidence in the prediction, 0 to 1.")
    latency_ms: NotNegative | None = Field(default=None, description="Time the model took, ms.")
    feature_count: Count | None = Field(default=None, description="Number of features used.")
    ground_truth_available: bool = Field(default=False, description="Whether the outcome is known already.")
    prediction_error: float | None = Field(default=None, description="Prediction minus outcome, once known.")
    symbol: Symbol | None = Field(default=None, description="Venue symbol.")
    timeframe: Timeframe | None = Field(default=None, description="Length of the candles.")
    candle_close_time: UtcTime | None = Field(default=None, description="Close of the newest candle, market time.")
    horizon_candles: Count | None = Field(default=None, description="How many candles ahead it looks.")
    model_version: str | None = Field(default=None, description="Version of the model.")
    feature_schema: str | None = Field(default=None, description="Hash of the feature names in manifest order.")
    features: tuple[float, ...] | None = Field(default=None, description="Features in manifest order.")


class RankedSymbol(BaseModel):
    """One place in the ranking of the universe."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    symbol: Symbol = Field(description="Venue symbol.")
    score: Score = Field(description="Rank score, 0 to 1, higher is better.")
    reason: str = Field(default="", description="Why it ranks there.")


class UniverseOpportunityPayload(EventPayload):
    """The best symbols of the universe, best first."""

    ranked_symbols: tuple[RankedSymbol, ...] = Field(description="Symbols, best first.")
    total_scanned: Count = Field(description="Number of symbols looked at.")
    timestamp: UtcTime = Field(description="Market time of the scan.")
    criteria_weights: dict[str, float] = Field(description="Weight of each criterion.")
