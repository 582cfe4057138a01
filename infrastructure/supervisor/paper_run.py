"""The literal plan of a paper-trading run: every process, what it is told, and what it needs first."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from infrastructure.embedded.postgres_server import EmbeddedPostgres
from infrastructure.embedded.redis_server import EmbeddedRedis
from infrastructure.supervisor.api_token import API_TOKEN, api_token_file
from infrastructure.supervisor.environment import configured
from infrastructure.supervisor.http_client import LocalHttp
from infrastructure.supervisor.plan import Launch, Program, Running
from infrastructure.supervisor.ports import Ports
from infrastructure.supervisor.process import command_launcher
from infrastructure.supervisor.restart_policy import RestartPolicy
from infrastructure.supervisor.run_directory import RunDirectory
from infrastructure.supervisor.server_program import embedded_program
from shared.clock import Clock
from shared.errors import ConfigurationError, NotRunningError
from shared.settings import TradingMode

EXCHANGE = "paper-exchange"
AI = "ai-service"
EXEC_RISK = "exec-risk-service"
ANALYTICS = "analytics-os-service"
SERVICES = (AI, EXEC_RISK, ANALYTICS)
_MODULES: Mapping[str, str] = {
    AI: "services.ai_service",
    EXEC_RISK: "services.exec_risk_service",
    ANALYTICS: "services.analytics_os_service",
}
_HOST = "127.0.0.1"
#: The paper exchange keeps orders, positions and wallet in memory only.
_ONE_LIFE = RestartPolicy(
    max_restarts=0, irreplaceable_because="its orders and positions are lost with it, so the run ends; start a new one"
)
#: At its first start ai-service trains its models before it is ready.
_TRAINING_SECONDS = 1800.0


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What the user asked for.

    Attributes:
        candles: ``synthetic`` or a folder of candle files.
        symbols: Venue symbols.
        timeframe: For example ``1m``.
        speed: Market seconds per wall second.
        seed: Of the synthetic market and of the exchange.
        state_dir: Folder of everything that is kept.
        port_base: See ``ports.choose_ports``.
    """

    candles: str
    symbols: tuple[str, ...]
    timeframe: str
    speed: float
    seed: int
    state_dir: Path
    port_base: int


class PaperRun:
    """One run: its programs, and where they can be reached.

    Args:
        options: What the user asked for.
        run_id: Name of this life of the account.
        directory: Folder of this run.
        ports: Loopback ports of its processes.
        environment: Variables that the services inherit.
        clock: Wall clock.
        http: For readiness probes.

    Raises:
        ConfigurationError: The environment asks for something that this command does not do.
    """

    def __init__(
        self,
        options: RunOptions,
        *,
        run_id: str,
        directory: RunDirectory,
        ports: Ports,
        environment: Mapping[str, str],
        clock: Clock,
        http: LocalHttp,
    ) -> None:
        check_mode(environment)
        self.options = options
        self.run_id = run_id
        self.directory = directory
        self._ports = ports
        self._environment = environment
        self._clock = clock
        self._http = http
        self._rpc_key = secrets.token_hex(32)
        self._redis = None if configured("REDIS_URL", environment) else EmbeddedRedis(directory.redis)
        self._postgres = (
            None if configured("POSTGRES_URL", environment) else EmbeddedPostgres(options.state_dir / "postgres")
        )

    def programs(self) -> list[Program]:
        """Return the plan, in the order in which people expect to see it."""
        servers = [server for server in (self._redis, self._postgres) if server is not None]
        names = tuple(server.name for server in servers)
        return [
            *(embedded_program(server, self._clock) for server in servers),
            self._exchange(),
            # Nobody speaks before the archive listens, and no signal before someone guards the account.
            self._service(ANALYTICS, depends_on=(*names, EXCHANGE)),
            self._service(EXEC_RISK, depends_on=(*names, EXCHANGE, ANALYTICS)),
            self._service(AI, depends_on=(*names, EXCHANGE, EXEC_RISK), start_timeout_seconds=_TRAINING_SECONDS),
        ]

    @property
    def urls(self) -> dict[str, str]:
        """Every address of the run that is known by now."""
        addresses = {"exchange-admin": self.exchange_admin_url, "redis": self.redis_url, "postgres": self.postgres_url}
        return self.service_urls | {name: url for name, url in addresses.items() if url}

    @property
    def service_urls(self) -> dict[str, str]:
        """Base URL of every HTTP process."""
        ports = self._ports
        by_name = {EXCHANGE: ports.exchange, AI: ports.ai, EXEC_RISK: ports.exec_risk, ANALYTICS: ports.analytics}
        return {name: f"http://{_HOST}:{port}" for name, port in by_name.items()}

    @property
    def exchange_admin_url(self) -> str:
        """Base URL of the paper exchange's own books and switches."""
        return f"http://{_HOST}:{self._ports.exchange_admin}"

    @property
    def redis_url(self) -> str:
        """The Redis of this run; empty until the embedded one was started."""
        return self._server_url("REDIS_URL", self._redis)

    @property
    def postgres_url(self) -> str:
        """The PostgreSQL of this run; empty until the embedded one was started."""
        return self._server_url("POSTGRES_URL", self._postgres)

    def _server_url(self, variable: str, server: EmbeddedRedis | EmbeddedPostgres | None) -> str:
        if server is None:
            return configured(variable, self._environment) or ""
        try:
            return server.url
        except NotRunningError:
            return ""

    def _exchange(self) -> Program:
        options = self.options
        argv = [sys.executable, "-m", "infrastructure.paper_exchange"]
        argv += ["--port", str(self._ports.exchange), "--admin-port", str(self._ports.exchange_admin)]
        argv += ["--candles", options.candles, "--symbols", ",".join(options.symbols)]
        argv += ["--timeframe", options.timeframe, "--seed", str(options.seed)]
        argv += ["--clock-file", str(self.directory.clock_file.absolute())]
        return Program(
            name=EXCHANGE,
            launch=command_launcher(argv, environment=self._environment, log=self.directory.log(EXCHANGE)),
            ready=self._http.probe(f"{self.service_urls[EXCHANGE]}/fapi/v1/ping"),
            restart=_ONE_LIFE,
        )

    def _service(self, name: str, *, depends_on: tuple[str, ...], start_timeout_seconds: float = 120.0) -> Program:
        return Program(
            name=name,
            launch=self._service_launcher(name),
            ready=self._http.probe(f"{self.service_urls[name]}/health/ready"),
            depends_on=depends_on,
            start_timeout_seconds=start_timeout_seconds,
        )

    def _service_launcher(self, name: str) -> Launch:
        async def launch() -> Running:
            # Only now: the URLs of the embedded servers are known once they run.
            launch_command = command_launcher(
                [sys.executable, "-m", _MODULES[name]],
                environment=self._service_environment(name),
                log=self.directory.log(name),
            )
            return await launch_command()

        return launch

    def _service_environment(self, name: str) -> dict[str, str]:
        options = self.options
        port = {AI: self._ports.ai, EXEC_RISK: self._ports.exec_risk, ANALYTICS: self._ports.analytics}[name]
        told = {
            "REDIS_URL": self.redis_url,
            "POSTGRES_URL": self.postgres_url,
            "EXCHANGE_URL": self.service_urls[EXCHANGE],
            "TRADING_MODE": TradingMode.PAPER.value,
            "BINANCE_API_KEY": "paper",
            "BINANCE_API_SECRET": "paper",
            "QT_RUN_ID": self.run_id,
            "QT_MARKET_CLOCK_FILE": str(self.directory.clock_file.absolute()),
            "QT_SYMBOLS": ",".join(options.symbols),
            "QT_TIMEFRAME": options.timeframe,
            "QT_STATE_DIR": str(options.state_dir.absolute()),
            "QT_PORT": str(port),
        }
        if configured("QT_RPC_KEY", self._environment) is None:
            told["QT_RPC_KEY"] = self._rpc_key
        if name in (ANALYTICS, EXEC_RISK) and configured(API_TOKEN, self._environment) is None:
            told[f"{API_TOKEN}_FILE"] = str(api_token_file(self.directory.path))
        # NAME_FILE beside NAME is refused by the services, and what is told here wins.
        inherited = {key: value for key, value in self._environment.items() if key.removesuffix("_FILE") not in told}
        return {**inherited, **told}


def check_mode(environment: Mapping[str, str]) -> None:
    """Refuse to start when the environment asks for real money or the testnet.

    Raises:
        ConfigurationError: ``TRADING_MODE`` is set to something other than paper.
    """
    mode = environment.get("TRADING_MODE", TradingMode.PAPER.value)
    if mode != TradingMode.PAPER.value:
        raise ConfigurationError(
            f"TRADING_MODE={mode}: quantum-trader up trades on paper only; unset TRADING_MODE, or start the services "
            "one by one for the testnet or live trading"
        )
