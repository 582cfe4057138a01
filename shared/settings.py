"""Settings of a service: environment and ``.env``, read once, frozen, with one clear line for every wrong value."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, TypeVar
from urllib.parse import unquote, urlsplit

from pydantic import AfterValidator, AliasChoices, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from shared.backoff import Backoff
from shared.clock import Clock, ClockOrigin, ScaledClock, SystemClock
from shared.errors import ConfigurationError, InvalidInputError
from shared.redis_topology import parse_redis_url, secrets_of, sentinel_url
from shared.trading.instruments import timeframe_duration, venue_symbol

#: What ``QT_LIVE_CONFIRM`` must say before real money is traded.
LIVE_CONFIRMATION = "I-understand"
#: Shortest key of RPC; a shorter one could be guessed.
MIN_RPC_KEY_BYTES = 32
_LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")

S = TypeVar("S", bound="ServiceSettings")


class TradingMode(StrEnum):
    """Which exchange the orders go to."""

    PAPER = "paper"  # the paper exchange on loopback
    TESTNET = "testnet"  # Binance's futures testnet
    LIVE = "live"  # real money; needs QT_LIVE_CONFIRM too


def _redis_url(url: str) -> str:
    try:
        parse_redis_url(url)
    except InvalidInputError as error:
        raise ValueError(str(error)) from error
    return url


def _postgres_url(url: str) -> str:
    return _url_of_scheme(url, ("postgresql", "postgres"), "postgresql://user:password@127.0.0.1:5432/quantum_trader")


def _http_url(url: str) -> str:
    return _url_of_scheme(url, ("http", "https"), "http://127.0.0.1:8100").rstrip("/")


def _url_of_scheme(url: str, schemes: tuple[str, ...], example: str) -> str:
    if urlsplit(url).scheme not in schemes or "://" not in url:
        raise ValueError(f"must be a URL such as {example}")
    return url


#: URLs may hold passwords, so they stay out of ``repr``.
def _api_token(token: SecretStr) -> SecretStr:
    text = token.get_secret_value()
    if len(text) < _SHORTEST_TOKEN or len(set(text)) < _FEWEST_CHARACTERS or not text.isascii() or " " in text:
        raise ValueError(
            f"must be a random secret of at least {_SHORTEST_TOKEN} ASCII characters without spaces, for example from: "
            "openssl rand -hex 32"
        )
    return token


_SHORTEST_TOKEN = 32
#: A random token of that length has more; ``aaaa...`` and ``changeme-changeme-...`` do not.
_FEWEST_CHARACTERS = 10
#: Opens the control endpoints of a service.
ApiToken = Annotated[SecretStr, AfterValidator(_api_token)]
RedisUrl = Annotated[str, Field(repr=False), AfterValidator(_redis_url)]
PostgresUrl = Annotated[str, Field(repr=False), AfterValidator(_postgres_url)]
HttpUrl = Annotated[str, AfterValidator(_http_url)]


class ServiceSettings(BaseSettings):
    """What every service is told from outside; each service's ``config.py`` adds its own fields.

    A field ``redis_url`` is read from ``REDIS_URL``, or from the file that ``REDIS_URL_FILE`` names.

    Attributes:
        redis_url: Bus, RPC and policy: one server, a master behind Sentinel, or a cluster.
        redis_sentinel_hosts: Sentinels, ``host:port,host:port``, that know the master; then only credentials, database
            and options of ``REDIS_URL`` count.
        redis_sentinel_master: What the sentinels call the master.
        redis_sentinel_password: What the sentinels want.
        redis_max_retries: Tries at the start after the first one.
        redis_retry_base_seconds: Wait before the second try; it doubles from try to try, with jitter.
        redis_retry_cap_seconds: Longest wait between two tries.
        log_level: DEBUG, INFO, WARNING, ERROR or CRITICAL.
        trading_mode: paper, testnet or live.
        qt_live_confirm: Must be ``I-understand`` when ``trading_mode`` is live.
        qt_run_id: One continuous life of the account.
        qt_market_clock_file: Origin of a market clock that runs faster than the wall; None means the wall.
        qt_symbols: Venue symbols that are traded; ``QT_SYMBOLS`` is comma separated.
        qt_timeframe: Length of the candles that are traded.
        exchange_url: Base URL of the paper exchange; only used in paper mode.
        binance_api_key: Key of the exchange account.
        binance_api_secret: Its secret.
        qt_rpc_key: Signs RPC, at least 32 bytes; the same for all services of an installation. None takes requests from
            everybody who can reach Redis.
        heartbeat_interval_seconds: Time between two ``service.heartbeat``.
        host: Address to listen on, ``QT_HOST``.
        port: Port to listen on, ``QT_PORT`` or ``PORT``.
        disk_buffer_mb: Most that facts may take on disk while Redis is away, MiB.
        otel_exporter_otlp_endpoint: Collector of traces, for example ``http://127.0.0.1:4318``; None sends none.
        otel_exporter_otlp_headers: What the collector wants to see, ``name=value,name=value``.
        otel_traces_sampler_arg: Share of the traces that is sent, 0 to 1.
        state_dir: Folder of models and snapshot files, ``QT_STATE_DIR``.
    """

    model_config = SettingsConfigDict(
        frozen=True,
        extra="ignore",
        env_file=".env",
        env_file_encoding="utf-8",
        populate_by_name=True,
        protected_namespaces=(),
        validate_default=True,
    )

    redis_url: RedisUrl
    redis_sentinel_hosts: str = ""
    redis_sentinel_master: str = Field(default="mymaster", min_length=1)
    redis_sentinel_password: SecretStr = SecretStr("")
    redis_max_retries: int = Field(default=10, ge=0)
    redis_retry_base_seconds: float = Field(default=1.0, gt=0)
    redis_retry_cap_seconds: float = Field(default=30.0, gt=0)
    log_level: str = "INFO"
    trading_mode: TradingMode = TradingMode.PAPER
    qt_live_confirm: str = ""
    qt_run_id: str = Field(default="live", pattern=r"^[A-Za-z0-9._-]{1,64}$")
    qt_market_clock_file: Path | None = None
    qt_symbols: Annotated[tuple[str, ...], NoDecode] = ("BTCUSDT",)
    qt_timeframe: str = "1h"
    exchange_url: HttpUrl = "http://127.0.0.1:8100"
    binance_api_key: str = Field(default="paper", repr=False)
    binance_api_secret: SecretStr = SecretStr("paper")
    qt_rpc_key: SecretStr | None = Field(default=None, repr=False)
    heartbeat_interval_seconds: float = Field(default=5.0, gt=0)
    host: str = Field(default="127.0.0.1", validation_alias=AliasChoices("qt_host"))
    port: int = Field(ge=1, le=65535, validation_alias=AliasChoices("qt_port", "port"))
    otel_exporter_otlp_endpoint: str | None = None
    otel_exporter_otlp_headers: SecretStr = SecretStr("")
    otel_traces_sampler_arg: float = Field(default=1.0, ge=0, le=1)
    disk_buffer_mb: int = Field(default=256, ge=1)
    state_dir: Path = Field(default=Path("var"), validation_alias=AliasChoices("qt_state_dir"))

    @model_validator(mode="before")
    @classmethod
    def _master_behind_sentinels(cls, values: Any) -> Any:
        if not isinstance(values, dict) or not values.get("redis_sentinel_hosts"):
            return values
        password = values.get("redis_sentinel_password", "")
        try:
            url = sentinel_url(
                values.get("redis_url", ""),
                hosts=values["redis_sentinel_hosts"],
                master_name=values.get("redis_sentinel_master", cls.model_fields["redis_sentinel_master"].default),
                sentinel_password=password.get_secret_value() if isinstance(password, SecretStr) else password,
            )
        except InvalidInputError as error:
            raise ValueError(str(error)) from error
        return {**values, "redis_url": url}

    @field_validator("log_level")
    @classmethod
    def _known_log_level(cls, level: str) -> str:
        if level.upper() not in _LOG_LEVELS:
            raise ValueError(f"must be one of {', '.join(_LOG_LEVELS)}")
        return level.upper()

    @field_validator("qt_rpc_key")
    @classmethod
    def _key_that_cannot_be_guessed(cls, key: SecretStr | None) -> SecretStr | None:
        if key is not None and len(key.get_secret_value().encode()) < MIN_RPC_KEY_BYTES:
            raise ValueError(f"must have at least {MIN_RPC_KEY_BYTES} bytes")
        return key

    @field_validator("qt_symbols", mode="before")
    @classmethod
    def _venue_symbols(cls, symbols: object) -> object:
        parts = symbols.split(",") if isinstance(symbols, str) else symbols
        if not isinstance(parts, list | tuple):
            return symbols
        try:
            wanted = [venue_symbol(str(part).strip().upper()) for part in parts if str(part).strip()]
        except InvalidInputError as error:
            raise ValueError(str(error)) from error
        if not wanted:
            raise ValueError("must name at least one symbol, for example BTC/USDT:USDT")
        return tuple(dict.fromkeys(wanted))

    @field_validator("qt_timeframe")
    @classmethod
    def _known_timeframe(cls, timeframe: str) -> str:
        try:
            timeframe_duration(timeframe)
        except InvalidInputError as error:
            raise ValueError(str(error)) from error
        return timeframe

    @model_validator(mode="after")
    def _live_needs_two_switches(self) -> ServiceSettings:
        if self.trading_mode is TradingMode.LIVE and self.qt_live_confirm != LIVE_CONFIRMATION:
            raise ValueError(f"TRADING_MODE=live trades real money and also needs QT_LIVE_CONFIRM={LIVE_CONFIRMATION}")
        return self

    @property
    def disk_buffer_bytes(self) -> int:
        """Most that facts may take on disk while Redis is away."""
        return self.disk_buffer_mb * 1024 * 1024

    def disk_buffer_file(self, service: str) -> Path:
        """Return where ``service`` keeps events while Redis is away: apart for every mode and run."""
        return self.state_dir / "bus" / self.trading_mode / self.qt_run_id / f"{service}.sqlite"

    @property
    def redis_backoff(self) -> Backoff:
        """Delays between tries to reach Redis, spread so that not all processes come back in the same moment."""
        return Backoff(base_seconds=self.redis_retry_base_seconds, cap_seconds=self.redis_retry_cap_seconds, jitter=0.5)

    def secret_values(self) -> tuple[str, ...]:
        """Return every secret among the settings, for the log filter: secret fields, the key, passwords in URLs."""
        headers = self.otel_exporter_otlp_headers.get_secret_value().split(",")
        found = [self.binance_api_key, *(unquote(header.partition("=")[2]) for header in headers)]
        for name in type(self).model_fields:
            value = getattr(self, name)
            if isinstance(value, SecretStr):
                found.append(value.get_secret_value())
            elif isinstance(value, str) and "://" in value:
                found.extend(secrets_of(value))
        return tuple(value for value in found if value)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Order of precedence: arguments, environment, files named by the environment, ``.env``, its files."""
        for variables in (env_settings, dotenv_settings):
            assert isinstance(variables, EnvSettingsSource)
            # Some shells export HOST, and reading it for ``host`` would open the port to the network.
            variables.env_vars = {name: value for name, value in variables.env_vars.items() if name != "host"}
        return (
            init_settings,
            env_settings,
            _NamedFiles(settings_cls, env_settings),
            dotenv_settings,
            _NamedFiles(settings_cls, dotenv_settings),
        )


class _NamedFiles(PydanticBaseSettingsSource):
    """Values whose variable is called ``NAME_FILE``: the file's content is the value of ``NAME``."""

    def __init__(self, settings_cls: type[BaseSettings], variables: PydanticBaseSettingsSource) -> None:
        super().__init__(settings_cls)
        assert isinstance(variables, EnvSettingsSource)
        self._variables: Mapping[str, str | None] = variables.env_vars

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        for name in _variable_names(field, field_name):
            path = self._variables.get(f"{name}_file")
            if path is None:
                continue
            if self._variables.get(name) is not None:
                raise ConfigurationError(f"{name.upper()} and {name.upper()}_FILE are both set; keep one of them")
            return _read_value(name.upper(), path), name, False
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        values = {}
        for field_name, field in self.settings_cls.model_fields.items():
            value, key, _ = self.get_field_value(field, field_name)
            if value is not None:
                values[key] = value
        return values


def _variable_names(field: FieldInfo, field_name: str) -> list[str]:
    alias = field.validation_alias
    if isinstance(alias, AliasChoices):
        return [choice for choice in alias.choices if isinstance(choice, str)]
    return [alias if isinstance(alias, str) else field_name]


def _read_value(name: str, path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigurationError(f"{name}_FILE names {path!r}, which cannot be read: {reason}") from error


def load_settings(settings: type[S]) -> S:
    """Read ``settings`` from environment and ``.env``.

    Raises:
        ConfigurationError: A value is missing or wrong; one line that names the variables and never shows a secret.
    """
    try:
        return settings()
    except ValidationError as error:
        raise ConfigurationError(_one_line(settings, error)) from None
    except SettingsError as error:
        raise ConfigurationError(str(error)) from None
    except UnicodeDecodeError as error:
        raise ConfigurationError(f".env cannot be read: it is not UTF-8 text ({error.reason})") from None


def _one_line(settings: type[ServiceSettings], error: ValidationError) -> str:
    problems = []
    for problem in error.errors(include_url=False, include_context=False):
        message = problem["msg"].removeprefix("Value error, ")
        if not problem["loc"]:
            problems.append(message)
            continue
        field_name = _field_of(settings, str(problem["loc"][0]))
        variable = _variable_names(settings.model_fields[field_name], field_name)[0].upper()
        if problem["type"] == "missing":
            problems.append(f"{variable} is not set")
        else:
            problems.append(f"{variable}{_shown(settings, field_name, problem['input'])} is wrong: {message}")
    return " ".join("; ".join(problems).split())


def _field_of(settings: type[ServiceSettings], location: str) -> str:
    """Return the field that a validation error points at; it names either the field or one of its variables."""
    for field_name, field in settings.model_fields.items():
        if location == field_name or location in _variable_names(field, field_name):
            return field_name
    raise KeyError(location)


def _shown(settings: type[ServiceSettings], field_name: str, value: object) -> str:
    field = settings.model_fields[field_name]
    # What is kept out of repr, and every URL, may hold a secret.
    if not field.repr or field.annotation is SecretStr or "://" in str(value):
        return ""
    return f"={value}"


def market_clock(settings: ServiceSettings) -> Clock:
    """Return the clock of the market: the wall, or the shared origin when a recorded market runs at speed.

    Raises:
        ConfigurationError: ``QT_MARKET_CLOCK_FILE`` names a file that cannot be used.
    """
    if settings.qt_market_clock_file is None:
        return SystemClock()
    return ScaledClock(ClockOrigin.load(settings.qt_market_clock_file))
