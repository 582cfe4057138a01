"""Settings of exec-risk and the limits that follow from them."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest

from services.exec_risk_service.config import ExecRiskSettings
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
