"""Settings of the exec-risk-service; every value can be set by the environment variable of the same name."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Self

from pydantic import AliasChoices, Field, model_validator

from services.exec_risk_service.domain.executions import Strategy
from services.exec_risk_service.domain.governor_rules import GovernorRules
from services.exec_risk_service.domain.protection import ExitRules
from services.exec_risk_service.domain.risk_limits import RiskLimits
from services.exec_risk_service.domain.rules import Rules
from shared.settings import ApiToken, PostgresUrl, ServiceSettings, TradingMode
from shared.trading.instruments import timeframe_duration

SERVICE = "exec-risk-service"
#: What opens the paper exchange, and nothing else.
_NO_KEYS = frozenset({"", "paper"})


class ExecRiskSettings(ServiceSettings):
    """What the exec-risk-service is told from outside. The policy may be stricter than these limits, never looser.

    Attributes:
        postgres_url: Journal of intents, orders, fills and positions, schema ``exec_risk``.
        max_leverage: Highest leverage of a position.
        max_position_size_usd: Largest position, USDT.
        max_open_positions: Open positions at the same time.
        max_daily_drawdown_pct: Fall of equity below the day's peak at which entries stop, percent.
        max_price_deviation_pct: Largest distance of a signal's price from the newest closing price, percent.
        default_leverage: Leverage of a signal that suggests none.
        default_stop_loss_pct: Distance of the stop of a signal that suggests none, percent.
        default_take_profit_pct: Distance of the target of a signal that suggests none, percent; 0 for no target.
        max_holding_candles: Candles after which a position is closed.
        dynamic_tpsl_enabled: Stop and target follow volatility, profit and time; the policy can switch it off too.
        trailing_stop_enabled: The stop follows the best price.
        stop_atr_multiple: Average true ranges between entry and first stop.
        max_unprotected_seconds: Wall time without a stop after which a person is told.
        default_execution_strategy: How an entry is worked when nobody says it: MARKET, LIMIT, TWAP, VWAP or SMART.
        max_slippage_pct: Most slippage against the arrival price that any order may accept, percent.
        retry_attempts: Times that an order is sent when the exchange refuses it for reasons of the moment.
        retry_delay_seconds: Wall time before the first repetition; each further one waits twice as long.
        max_symbol_exposure_usd: Largest value that one symbol may hold with what is pending, USDT; 0 for
            ``max_position_size_usd``.
        max_gross_exposure_times_equity: Largest value of all positions without sign; likewise
            ``max_net_exposure_times_equity`` with sign, ``max_correlated_exposure_times_equity`` of symbols that move
            together, ``max_effective_exposure_times_equity`` with each pair weighed by its correlation.
        correlation_threshold: Correlation from which symbols count as moving together, 0 to 1.
        max_value_at_risk_pct: Largest value at risk (99 %, one day), percent of equity.
        assumed_daily_volatility_pct: Of a symbol without enough history, percent.
        margin_reserve_pct: Part of equity that stays free of initial margin, percent.
        max_maintenance_margin_pct: Largest maintenance margin of all positions, percent of equity.
        max_mark_age_candles: Candles after which a price is stale, by market time and by wall time.
        cooldown_after_loss_candles: Candles that a symbol rests after a loss; likewise
            ``cooldown_after_close_candles`` after any close.
        max_entries_per_minute: Entries per minute of market time; that many may also come at once.
        kelly_share: Part of the full Kelly bet that may be placed, 0 to 1.
        kelly_cap_pct: Largest bet, percent of equity lost at the stop; likewise ``kelly_floor_pct``, the smallest that
            Kelly may ask for.
        hedge_trigger_times_equity: Net exposure from which a hedge is proposed; 0 proposes none.
        hedging_enabled: Also carry such a proposal out, through the same checks.
        position_check_interval_seconds: Wall time between two comparisons of our book with the exchange.
        governor_enabled: The Safety Governor watches the account; an emergency stop by a person works without it.
        emergency_stop_drawdown_pct: Fall of equity below the day's peak at which everything is closed, percent.
        emergency_stop_consecutive_losses: Losing positions in a row at which everything is closed.
        emergency_stop_at_daily_drawdown: Close everything already where the daily drawdown stops entries.
        reject_storm_count: Definitive refusals within ``reject_storm_window_seconds`` that stop entries.
        reject_storm_window_seconds: Wall time.
        max_unknown_outcomes: Orders of unknown fate at the same time that stop entries.
        position_mismatch_halt_pct: Difference to the exchange's position, percent of equity, at which trading halts.
        qt_api_token: What callers of the control endpoints must show; None keeps them closed.
        max_journal_outage_seconds: How long PostgreSQL may be away before a position without a stop on the exchange
            makes the emergency stop close everything.
        qt_crashpoint: Moment at which a test ends the process; refused where money is real.
        executor_lease_seconds: A process that did not renew its hold on the account for this long may be succeeded;
            after half of it, it sends no entry.
        executor_status_lag_seconds: How long the exchange may take to show the last order of a process that fell
            silent: its successor waits that much longer.
        entry_countdown_seconds: The exchange cancels resting entries when it has not heard of us for this long.
    """

    port: int = Field(default=8002, ge=1, le=65535, validation_alias=AliasChoices("qt_port", "port"))
    postgres_url: PostgresUrl
    max_leverage: Decimal = Field(default=Decimal(20), ge=1, le=125)
    max_position_size_usd: Decimal = Field(default=Decimal(10_000), gt=0)
    max_open_positions: int = Field(default=10, ge=0)
    max_daily_drawdown_pct: Decimal = Field(default=Decimal(10), gt=0, le=100)
    max_price_deviation_pct: Decimal = Field(default=Decimal(20), gt=0)
    default_leverage: Decimal = Field(default=Decimal(1), ge=1, le=125)
    default_stop_loss_pct: Decimal = Field(default=Decimal(2), gt=0, lt=100)
    default_take_profit_pct: Decimal = Field(default=Decimal(4), ge=0)
    max_holding_candles: int = Field(default=48, ge=1)
    dynamic_tpsl_enabled: bool = True
    trailing_stop_enabled: bool = True
    stop_atr_multiple: Decimal = Field(default=Decimal(3), gt=0, le=20)
    max_unprotected_seconds: float = Field(default=3.0, gt=0)
    default_execution_strategy: Strategy = Strategy.SMART
    max_slippage_pct: Decimal = Field(default=Decimal("0.5"), gt=0, le=10)
    retry_attempts: int = Field(default=3, ge=1, le=10)
    retry_delay_seconds: float = Field(default=1.0, gt=0)
    max_symbol_exposure_usd: Decimal = Field(default=Decimal(0), ge=0)
    max_gross_exposure_times_equity: Decimal = Field(default=Decimal(5), gt=0)
    max_net_exposure_times_equity: Decimal = Field(default=Decimal(3), gt=0)
    max_correlated_exposure_times_equity: Decimal = Field(default=Decimal(2), gt=0)
    max_effective_exposure_times_equity: Decimal = Field(default=Decimal(3), gt=0)
    correlation_threshold: float = Field(default=0.7, gt=0, le=1)
    max_value_at_risk_pct: Decimal = Field(default=Decimal(10), gt=0)
    assumed_daily_volatility_pct: float = Field(default=8.0, gt=0)
    margin_reserve_pct: Decimal = Field(default=Decimal(5), ge=0, lt=100)
    max_maintenance_margin_pct: Decimal = Field(default=Decimal(50), gt=0, le=100)
    max_mark_age_candles: int = Field(default=3, ge=1)
    cooldown_after_loss_candles: int = Field(default=0, ge=0)
    cooldown_after_close_candles: int = Field(default=0, ge=0)
    max_entries_per_minute: int = Field(default=30, ge=1)
    kelly_share: Decimal = Field(default=Decimal("0.5"), gt=0, le=1)
    kelly_cap_pct: Decimal = Field(default=Decimal(5), gt=0, le=100)
    kelly_floor_pct: Decimal = Field(default=Decimal("0.1"), ge=0, le=100)
    hedge_trigger_times_equity: Decimal = Field(default=Decimal(0), ge=0)
    hedging_enabled: bool = False
    position_check_interval_seconds: float = Field(default=10.0, gt=0)
    governor_enabled: bool = True
    emergency_stop_drawdown_pct: Decimal = Field(default=Decimal(15), gt=0, le=100)
    emergency_stop_consecutive_losses: int = Field(default=5, ge=1)
    emergency_stop_at_daily_drawdown: bool = False
    reject_storm_count: int = Field(default=5, ge=1)
    reject_storm_window_seconds: float = Field(default=60.0, gt=0)
    max_unknown_outcomes: int = Field(default=3, ge=1)
    position_mismatch_halt_pct: Decimal = Field(default=Decimal(25), gt=0)
    executor_lease_seconds: float = Field(default=10.0, ge=1)
    executor_status_lag_seconds: float = Field(default=5.0, ge=0)
    entry_countdown_seconds: float = Field(default=120.0, ge=2)
    max_journal_outage_seconds: float = Field(default=10.0, gt=0)
    qt_crashpoint: str = ""
    qt_api_token: ApiToken | None = Field(default=None, repr=False)

    @model_validator(mode="after")
    def _keys_of_the_exchange(self) -> Self:
        if self.trading_mode is TradingMode.PAPER:
            return self
        keys = {
            "BINANCE_API_KEY": self.binance_api_key,
            "BINANCE_API_SECRET": self.binance_api_secret.get_secret_value(),
        }
        for name, value in keys.items():
            if value in _NO_KEYS:
                raise ValueError(f"TRADING_MODE={self.trading_mode.value} needs a key of that exchange in {name}")
        return self

    @model_validator(mode="after")
    def _no_crash_with_real_money(self) -> Self:
        if self.qt_crashpoint and self.trading_mode is TradingMode.LIVE:
            raise ValueError("QT_CRASHPOINT is for tests; unset it to trade live")
        return self

    @property
    def run_place(self) -> tuple[Path, str, str]:
        """State folder, mode and run: what names the files of this account."""
        return self.state_dir, self.trading_mode.value, self.qt_run_id

    @property
    def api_token(self) -> str | None:
        """The token itself."""
        return None if self.qt_api_token is None else self.qt_api_token.get_secret_value()

    @property
    def account(self) -> str:
        """Name of the account and its run: every row of the journal carries it."""
        return f"{self.trading_mode.value}:{self.qt_run_id}"

    @property
    def rules(self) -> Rules:
        """Limits of this installation."""
        return Rules(
            max_leverage=self.max_leverage,
            max_position_size_usd=self.max_position_size_usd,
            max_open_positions=self.max_open_positions,
            max_daily_drawdown=self.max_daily_drawdown_pct / 100,
            max_price_deviation=self.max_price_deviation_pct / 100,
            default_leverage=self.default_leverage,
            default_stop_loss_pct=self.default_stop_loss_pct,
            default_take_profit_pct=self.default_take_profit_pct or None,
            default_strategy=self.default_execution_strategy,
            max_slippage_pct=self.max_slippage_pct,
            retry_attempts=self.retry_attempts,
            retry_delay=timedelta(seconds=self.retry_delay_seconds),
            timeframe=self.qt_timeframe,
            limits=self._limits,
            governor=GovernorRules(
                is_enabled=self.governor_enabled,
                stop_drawdown=self.emergency_stop_drawdown_pct / 100,
                stop_losses=self.emergency_stop_consecutive_losses,
                stop_at_daily_drawdown=self.emergency_stop_at_daily_drawdown,
                storm_count=self.reject_storm_count,
                storm_window=timedelta(seconds=self.reject_storm_window_seconds),
                unknown_outcomes=self.max_unknown_outcomes,
                mismatch_halt=self.position_mismatch_halt_pct / 100,
            ),
            max_holding=timeframe_duration(self.qt_timeframe) * self.max_holding_candles,
            max_unprotected=timedelta(seconds=self.max_unprotected_seconds),
            exits=ExitRules(
                is_dynamic=self.dynamic_tpsl_enabled,
                is_trailing=self.trailing_stop_enabled,
                atr_multiple=self.stop_atr_multiple,
            ),
        )

    @property
    def _limits(self) -> RiskLimits:
        candle = timeframe_duration(self.qt_timeframe)
        return RiskLimits(
            max_symbol_exposure_usd=self.max_symbol_exposure_usd or None,
            max_gross_exposure=self.max_gross_exposure_times_equity,
            max_net_exposure=self.max_net_exposure_times_equity,
            max_correlated_exposure=self.max_correlated_exposure_times_equity,
            max_effective_exposure=self.max_effective_exposure_times_equity,
            correlation_threshold=self.correlation_threshold,
            max_value_at_risk=self.max_value_at_risk_pct / 100,
            assumed_volatility=self.assumed_daily_volatility_pct / 100,
            margin_reserve=self.margin_reserve_pct / 100,
            max_maintenance=self.max_maintenance_margin_pct / 100,
            max_mark_age_candles=self.max_mark_age_candles,
            cooldown_after_loss=candle * self.cooldown_after_loss_candles,
            cooldown_after_close=candle * self.cooldown_after_close_candles,
            max_entries_per_minute=self.max_entries_per_minute,
            kelly_share=self.kelly_share,
            kelly_cap=self.kelly_cap_pct / 100,
            kelly_floor=self.kelly_floor_pct / 100,
            hedge_trigger=self.hedge_trigger_times_equity or None,
            hedging_enabled=self.hedging_enabled,
        )
