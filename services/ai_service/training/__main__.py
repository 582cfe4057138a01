"""``python -m services.ai_service.training``: train one model now, by hand or as the service's worker."""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import os
import signal
import sys
from collections.abc import Sequence
from datetime import UTC, datetime

from pydantic import Field

from services.ai_service.adapters.exchange_candles import ExchangeCandleHistory
from services.ai_service.adapters.training_process import WORKER_MODULE
from services.ai_service.config import SERVICE, AiServiceSettings
from services.ai_service.models.model_store import FileModelStore
from services.ai_service.ports import TrainingProgress, TrainingResult
from services.ai_service.training.pipeline import Report, TrainingPlan, fetch_candles, train_model, training_end
from services.ai_service.training.progress import view_for
from shared.clock import SystemClock
from shared.errors import ConfigurationError, PermanentError, QuantumTraderError
from shared.exchange.client import create_exchange
from shared.settings import RedisUrl, load_settings, market_clock
from shared.telemetry.logs import configure_logging

_PR_SET_PDEATHSIG = 1


class TrainingSettings(AiServiceSettings):
    """The service's settings; a training by hand needs no Redis."""

    redis_url: RedisUrl = Field(default="redis://127.0.0.1:6379/0")


def main(arguments: Sequence[str] | None = None) -> int:
    """Train; return 0, 1 when it failed, 4 when a setting is wrong."""
    options = _parse(arguments)
    if options.parent is not None:
        die_with(options.parent)
        os.nice(10)  # the services come first
    view = view_for(sys.stderr, json_lines=options.json)
    try:
        settings = load_settings(TrainingSettings)
        configure_logging(f"{SERVICE}-training", settings.log_level, settings.secret_values())
        result = asyncio.run(_train(settings, options.until, view.progress))
    except QuantumTraderError as error:
        view.failed(str(error), hopeless=isinstance(error, (PermanentError, ConfigurationError)))
        return 4 if isinstance(error, ConfigurationError) else 1
    view.finished(result)
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=f"python -m {WORKER_MODULE}",
        description="Train a LightGBM model on the exchange's own history and put it into the model store.",
    )
    parser.add_argument(
        "--until", type=_moment, help="newest moment that may be seen, ISO 8601; market time by default"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object per line on stdout instead of a bar")
    parser.add_argument("--parent", type=int, help="process that this one must not outlive")
    return parser.parse_args(arguments)


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no time; write it as 2025-05-20T00:00:00+00:00") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


async def _train(settings: TrainingSettings, until: datetime | None, report: Report) -> TrainingResult:
    clock, market = SystemClock(), market_clock(settings)
    began = clock.monotonic()
    client = create_exchange(
        settings.trading_mode.value,
        base_url=settings.exchange_url,
        api_key=settings.binance_api_key,
        secret=settings.binance_api_secret.get_secret_value(),
    )
    plan = plan_of(settings)
    try:
        end = training_end(until or market.now(), plan.timeframe)
        candles = await fetch_candles(plan, ExchangeCandleHistory(client, market), end, report)
    finally:
        await client.close()
    manifest, model = train_model(plan, candles, clock.now(), report)
    FileModelStore(settings.state_dir).save(manifest, model)
    report(TrainingProgress("saved", 100.0))
    return TrainingResult(
        version=manifest.version,
        samples=manifest.samples,
        accuracy=manifest.metrics["accuracy"],
        seconds=clock.monotonic() - began,
    )


def plan_of(settings: AiServiceSettings) -> TrainingPlan:
    """Return what the settings ask to train."""
    return TrainingPlan(
        symbols=settings.qt_symbols,
        timeframe=settings.qt_timeframe,
        barriers=settings.barriers,
        candles=settings.training_candles,
        min_candles=settings.min_training_candles,
        seed=settings.training_seed,
    )


def die_with(parent: int) -> None:
    """Have the kernel kill this process when ``parent`` ends, however that ends."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before the kernel was told
        sys.exit(1)


if __name__ == "__main__":
    sys.exit(main())
