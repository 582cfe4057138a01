"""Settings of exec-risk and the limits that follow from them."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest

from services.exec_risk_service.config import ExecRiskSettings
from services.exec_risk_service.domain.risk_limits import RiskLimits
from shared.errors import ConfigurationError
from shared.settings import load_settings


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:6379/0")
    monkeypatch.setenv("POSTGRES_URL", "postgresql://user:secret-word@127.0.0.1/quantum_trader")


def test_defaults_are_those_of_the_specification() -> None:
    settings = load_settings(ExecRiskSettings)

    assert (settings.port, settings.account) == (8002, "paper:live")
    assert (settings.max_leverage, settings.max_position_size_usd) == (Decimal(20), Decimal(10_000))
    assert settings.max_open_positions == 10
    assert settings.rules.max_daily_drawdown == Decimal("0.1")


def test_the_account_is_named_by_mode_and_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRADING_MODE", "testnet")
    monkeypatch.setenv("QT_RUN_ID", "seven")

    monkeypatch.setenv("BINANCE_API_KEY", "k" * 64)
    monkeypatch.setenv("BINANCE_API_SECRET", "s" * 64)
    assert load_settings(ExecRiskSettings).account == "testnet:seven"


def test_the_holding_time_is_counted_in_candles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QT_TIMEFRAME", "15m")
    monkeypatch.setenv("MAX_HOLDING_CANDLES", "4")

    assert load_settings(ExecRiskSettings).rules.max_holding == timedelta(hours=1)


def test_no_target_is_a_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEFAULT_TAKE_PROFIT_PCT", "0")

    assert load_settings(ExecRiskSettings).rules.default_take_profit_pct is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MAX_LEVERAGE", "NaN"),
        ("MAX_LEVERAGE", "200"),
        ("MAX_POSITION_SIZE_USD", "Infinity"),
        ("MAX_DAILY_DRAWDOWN_PCT", "0"),
        ("DEFAULT_STOP_LOSS_PCT", "100"),
        ("POSTGRES_URL", "mysql://x"),
    ],
)
def test_a_wrong_value_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)

    with pytest.raises(ConfigurationError, match=name):
        load_settings(ExecRiskSettings)


def test_the_password_is_not_shown() -> None:
    settings = load_settings(ExecRiskSettings)

    assert "secret-word" not in repr(settings)
    assert "secret-word" in settings.secret_values()


def test_limits_of_the_risk_os_come_from_their_settings_in_their_units() -> None:
    settings = ExecRiskSettings(
        redis_url="redis://127.0.0.1:6379/0",
        postgres_url="postgresql://127.0.0.1/none",
        qt_timeframe="5m",
        max_value_at_risk_pct=Decimal(4),
        cooldown_after_loss_candles=3,
        max_symbol_exposure_usd=Decimal(700),
        hedge_trigger_times_equity=Decimal(1),
    )

    limits = settings.rules.limits

    assert (limits.max_value_at_risk, limits.max_symbol_exposure_usd) == (Decimal("0.04"), Decimal(700))
    assert limits.cooldown_after_loss == timedelta(minutes=15)
    assert (limits.hedge_trigger, limits.hedging_enabled) == (Decimal(1), False)


def test_the_defaults_of_the_settings_are_those_of_the_rules() -> None:
    settings = ExecRiskSettings(redis_url="redis://127.0.0.1:6379/0", postgres_url="postgresql://127.0.0.1/none")

    assert settings.rules.limits == RiskLimits()
