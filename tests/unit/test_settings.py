"""Settings from environment, files and ``.env``; every mistake is one line that names the variable."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import AliasChoices, Field, SecretStr, ValidationError

from shared.clock import ClockOrigin, ScaledClock, SystemClock
from shared.errors import ConfigurationError
from shared.settings import PostgresUrl, ServiceSettings, TradingMode, load_settings, market_clock

REDIS = "redis://:canary-redis-password@127.0.0.1:6379/0"


class DeskSettings(ServiceSettings):
    postgres_url: PostgresUrl = "postgresql://desk:canary%2Fpostgres@127.0.0.1/quantum_trader"
    token: SecretStr = SecretStr("")
    port: int = Field(default=8009, ge=1, le=65535, validation_alias=AliasChoices("qt_port", "port"))


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """An environment that says nothing but where Redis is, in an empty folder."""
    for field_name in DeskSettings.model_fields:
        monkeypatch.delenv(field_name.upper(), raising=False)
        monkeypatch.delenv(f"{field_name.upper()}_FILE", raising=False)
    for name in ("QT_PORT", "QT_HOST", "QT_STATE_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REDIS_URL", REDIS)
    return monkeypatch


def refusal(environment: pytest.MonkeyPatch, **variables: str) -> str:
    for name, value in variables.items():
        environment.setenv(name, value)
    with pytest.raises(ConfigurationError) as raised:
        load_settings(DeskSettings)
    message = str(raised.value)
    assert "\n" not in message
    assert "canary" not in message
    return message


def test_what_is_not_set_has_the_documented_defaults() -> None:
    settings = load_settings(DeskSettings)
    assert settings.trading_mode is TradingMode.PAPER
    assert settings.qt_symbols == ("BTCUSDT",)
    assert (settings.qt_timeframe, settings.qt_run_id, settings.log_level) == ("1h", "live", "INFO")
    assert (settings.host, settings.port) == ("127.0.0.1", 8009)
    assert settings.state_dir == Path("var")
    assert settings.exchange_url == "http://127.0.0.1:8100"
    assert settings.binance_api_secret.get_secret_value() == "paper"


def test_settings_cannot_be_changed() -> None:
    settings = load_settings(DeskSettings)
    with pytest.raises(ValidationError):
        settings.log_level = "DEBUG"  # type: ignore[misc]  # that is what is tested


def test_symbols_may_be_written_in_both_forms_and_come_out_as_the_venue_writes_them(
    environment: pytest.MonkeyPatch,
) -> None:
    environment.setenv("QT_SYMBOLS", "BTC/USDT:USDT, ethusdt ,BTCUSDT")
    assert load_settings(DeskSettings).qt_symbols == ("BTCUSDT", "ETHUSDT")


def test_environment_beats_the_dotenv_file_and_blank_lines_do_not_hurt(
    environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text("# comment\n\nLOG_LEVEL=debug\nQT_TIMEFRAME=5m\nSOMEBODY_ELSE=1\n")
    environment.setenv("QT_TIMEFRAME", "1m")
    settings = load_settings(DeskSettings)
    assert (settings.log_level, settings.qt_timeframe) == ("DEBUG", "1m")


@pytest.mark.parametrize("where", ["environment", ".env"])
def test_a_secret_can_come_from_a_file(environment: pytest.MonkeyPatch, tmp_path: Path, where: str) -> None:
    (tmp_path / "secret").write_text("from the file\n")
    if where == ".env":
        (tmp_path / ".env").write_text(f"BINANCE_API_SECRET_FILE={tmp_path / 'secret'}\n")
    else:
        environment.setenv("BINANCE_API_SECRET_FILE", str(tmp_path / "secret"))
    assert load_settings(DeskSettings).binance_api_secret.get_secret_value() == "from the file"


def test_a_secret_that_is_given_twice_is_refused(environment: pytest.MonkeyPatch) -> None:
    message = refusal(environment, BINANCE_API_SECRET="canary", BINANCE_API_SECRET_FILE="canary-file")
    assert message == "BINANCE_API_SECRET and BINANCE_API_SECRET_FILE are both set; keep one of them"


def test_a_secret_file_that_cannot_be_read_is_named(environment: pytest.MonkeyPatch) -> None:
    message = refusal(environment, BINANCE_API_SECRET_FILE="missing.txt")
    assert message == "BINANCE_API_SECRET_FILE names 'missing.txt', which cannot be read: No such file or directory"


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("QT_SYMBOLS", "BTC/USDT:USDT,NOPE", "QT_SYMBOLS=BTC/USDT:USDT,NOPE is wrong: symbol 'NOPE' is not known here"),
        ("QT_SYMBOLS", " , ", "at least one symbol"),
        ("QT_TIMEFRAME", "1w", "QT_TIMEFRAME=1w is wrong: timeframe '1w' is not known here"),
        ("LOG_LEVEL", "loud", "LOG_LEVEL=loud is wrong: must be one of DEBUG, INFO"),
        ("TRADING_MODE", "real", "TRADING_MODE=real is wrong: Input should be 'paper', 'testnet' or 'live'"),
        ("QT_PORT", "80000", "QT_PORT=80000 is wrong: Input should be less than or equal to 65535"),
        ("PORT", "x", "QT_PORT=x is wrong"),
        ("HEARTBEAT_INTERVAL_SECONDS", "nan", "HEARTBEAT_INTERVAL_SECONDS=nan is wrong"),
        ("HEARTBEAT_INTERVAL_SECONDS", "0", "HEARTBEAT_INTERVAL_SECONDS=0 is wrong"),
        ("REDIS_URL", "127.0.0.1:6379", "REDIS_URL is wrong: must be a URL such as redis://"),
        ("POSTGRES_URL", "mysql://root:canary@localhost", "POSTGRES_URL is wrong: must be a URL such as postgresql://"),
        ("EXCHANGE_URL", "ftp://user:canary@localhost", "EXCHANGE_URL is wrong: must be a URL such as http://"),
        ("QT_RUN_ID", "a b", "QT_RUN_ID=a b is wrong"),
    ],
)
def test_a_wrong_value_is_one_line_with_variable_value_and_reason(
    environment: pytest.MonkeyPatch, name: str, value: str, expected: str
) -> None:
    assert expected in refusal(environment, **{name: value})


def test_what_is_missing_is_named(environment: pytest.MonkeyPatch) -> None:
    environment.delenv("REDIS_URL")
    assert refusal(environment) == "REDIS_URL is not set"


def test_all_mistakes_are_told_at_once(environment: pytest.MonkeyPatch) -> None:
    message = refusal(environment, LOG_LEVEL="loud", QT_TIMEFRAME="1w")
    assert "LOG_LEVEL" in message
    assert "QT_TIMEFRAME" in message


@pytest.mark.parametrize("confirm", ["", "yes", "i-understand"])
def test_live_trading_needs_the_second_switch(environment: pytest.MonkeyPatch, confirm: str) -> None:
    message = refusal(environment, TRADING_MODE="live", QT_LIVE_CONFIRM=confirm)
    assert message == "TRADING_MODE=live trades real money and also needs QT_LIVE_CONFIRM=I-understand"


def test_live_trading_with_both_switches(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("TRADING_MODE", "live")
    environment.setenv("QT_LIVE_CONFIRM", "I-understand")
    assert load_settings(DeskSettings).trading_mode is TradingMode.LIVE


def test_secrets_are_collected_for_the_log_filter_and_stay_out_of_repr(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("BINANCE_API_KEY", "canary-key")
    environment.setenv("BINANCE_API_SECRET", "canary-secret")
    environment.setenv("TOKEN", "canary-token")
    settings = load_settings(DeskSettings)
    assert set(settings.secret_values()) == {
        "canary-key",
        "canary-secret",
        "canary-token",
        "canary-redis-password",
        "canary/postgres",
        "canary%2Fpostgres",  # as it stands in the URL
    }
    assert "canary" not in repr(settings)
    assert "canary" not in str(settings)


def test_the_host_variable_of_the_shell_does_not_open_the_port_to_the_network(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("HOST", "0.0.0.0")
    assert load_settings(DeskSettings).host == "127.0.0.1"
    environment.setenv("QT_HOST", "0.0.0.0")
    assert load_settings(DeskSettings).host == "0.0.0.0"


def test_the_market_clock_is_the_wall_unless_a_file_names_its_origin(
    environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert isinstance(market_clock(load_settings(DeskSettings)), SystemClock)
    origin = ClockOrigin(datetime(2025, 1, 1, tzinfo=UTC), datetime(2024, 1, 1, tzinfo=UTC), 60.0)
    origin.save(tmp_path / "clock.json")
    environment.setenv("QT_MARKET_CLOCK_FILE", str(tmp_path / "clock.json"))
    assert isinstance(market_clock(load_settings(DeskSettings)), ScaledClock)
    environment.setenv("QT_MARKET_CLOCK_FILE", str(tmp_path / "missing.json"))
    with pytest.raises(ConfigurationError, match=r"missing\.json.*cannot be read"):
        market_clock(load_settings(DeskSettings))
