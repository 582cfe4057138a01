"""All three services in one process: their own handlers and domain on a memory bus, a manual clock and the engine."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

from infrastructure.paper_exchange.candle_port import CandleSource
from infrastructure.paper_exchange.matching_engine import MatchingEngine
from infrastructure.replay.engine_history import EngineHistory
from infrastructure.replay.engine_venue import EngineVenue
from infrastructure.replay.step_log import StepLog
from services.ai_service.app import AiService
from services.ai_service.app import assemble as assemble_ai
from services.ai_service.config import AiServiceSettings
from services.ai_service.domain.candle_events import candle_closed, candle_event_id, candle_trace_id
from services.ai_service.models.model_store import FileModelStore
from services.ai_service.training.pipeline import Report, TrainingPlan, fetch_candles, train_model, training_end
from services.analytics_os_service.adapters.memory_archive import MemoryArchive
from services.analytics_os_service.app import AnalyticsOs
from services.analytics_os_service.app import assemble as assemble_analytics
from services.exec_risk_service.app import ExecRisk
from services.exec_risk_service.app import assemble as assemble_exec_risk
from services.exec_risk_service.config import ExecRiskSettings
from services.exec_risk_service.domain.rules import Rules
from services.exec_risk_service.handlers.lanes import InlineLanes
from shared.bus.consumer import ConsumerOptions
from shared.bus.memory import MEMORY_OPTIONS, MemoryBroker, MemoryBus
from shared.clock import ManualClock
from shared.errors import QuantumTraderError
from shared.ids import SeededIds
from shared.policy.memory_store import MemoryPolicyStore, SharedPolicy
from shared.settings import TradingMode
from shared.trading.candles import Candle
from shared.trading.instruments import timeframe_duration

RUN_ID = "replay"
AI = "ai-service"
EXEC_RISK = "exec-risk-service"
ANALYTICS = "analytics-os-service"
#: Market time between two looks at an execution that is not done.
_EXECUTION_STEP = timedelta(seconds=1)
SERVICES = (AI, EXEC_RISK, ANALYTICS)


def rules_for(timeframe: str) -> Rules:
    """Return the limits that a live exec-risk has in this environment; holding times count in candles."""
    # The servers are never opened: bus and journal are in memory.
    settings = ExecRiskSettings(
        redis_url="redis://127.0.0.1:6379/0", postgres_url="postgresql://127.0.0.1/none", qt_timeframe=timeframe
    )
    return settings.rules


@dataclass(frozen=True, slots=True)
class ReplaySettings:
    """What is replayed.

    Attributes:
        symbols: Venue symbols.
        timeframe: Candles that are traded.
        start: Market time of the first candle's open.
        seed: Of every id.
        state_dir: Folder of the models.
    """

    symbols: tuple[str, ...]
    timeframe: str
    start: datetime
    seed: int
    state_dir: Path


class ReplaySuite:
    """The suite, wired as ``app.py`` of each service wires it, driven candle by candle.

    Attributes:
        engine: The exchange.
        broker: Every event, in the order of publishing.
        exec_risk: The wired exec-risk.
        analytics: The wired analytics-os.
        steps: exec-risk's record of itself.
        started_at: Market time of the start.
    """

    def __init__(self, source: CandleSource, settings: ReplaySettings, *, rules: Rules | None = None) -> None:
        self._settings = settings
        self._step: timedelta = timeframe_duration(settings.timeframe)
        self._clock = ManualClock(settings.start)
        self.engine = MatchingEngine(source, start=settings.start)
        self.broker = MemoryBroker(keep=10_000_000)
        self.started_at = settings.start
        self.steps = StepLog()
        self._venue = EngineVenue(self.engine)
        self._history = EngineHistory(self.engine)
        self._models = FileModelStore(settings.state_dir)
        self._ids = SeededIds(settings.seed)
        self._ai_bus, self._exec_bus = self._bus(AI), self._bus(EXEC_RISK)
        # As in its app.py: what came too late for the one it was meant for still belongs into the archive.
        self._analytics_bus = self._bus(ANALYTICS, replace(MEMORY_OPTIONS, refuse_late_commands=False))
        shared_policy = SharedPolicy()
        self._policies = [MemoryPolicyStore(self._clock, shared_policy) for _ in SERVICES]
        self._ai_settings = AiServiceSettings(
            redis_url="redis://127.0.0.1:6379/0",  # never opened: the bus is in memory
            trading_mode=TradingMode.PAPER,
            qt_run_id=RUN_ID,
            qt_symbols=settings.symbols,
            qt_timeframe=settings.timeframe,
            state_dir=settings.state_dir,
        )
        self._ai: AiService = assemble_ai(
            settings=self._ai_settings,
            bus=self._ai_bus,
            rpc=None,
            policy=self._policies[0],
            history=self._history,
            models=self._models,
            clock=self._clock,
            market_clock=self._clock,
        )
        self.exec_risk: ExecRisk = assemble_exec_risk(
            account=f"{TradingMode.PAPER}:{RUN_ID}",
            symbols=settings.symbols,
            rules=rules or rules_for(settings.timeframe),
            bus=self._exec_bus,
            rpc=None,
            policy=self._policies[1],
            clock=self._clock,
            market_clock=self._clock,
            venue=self._venue,
            journal=self.steps,
            lanes=InlineLanes(),
        )

        self.analytics: AnalyticsOs = assemble_analytics(
            run_id=RUN_ID,
            bus=self._analytics_bus,
            rpc=None,
            archive=MemoryArchive(),
            policy=self._policies[2],
            clock=self._clock,
        )

    def _bus(self, service: str, options: ConsumerOptions = MEMORY_OPTIONS) -> MemoryBus:
        return MemoryBus(
            self.broker,
            service=service,
            instance=f"{service}-1",
            clock=self._clock,
            market_clock=self._clock,
            ids=self._ids,
            options=options,
        )

    async def start(self, report: Report) -> None:
        """Find or train a model, recover the empty account, begin to consume.

        Raises:
            QuantumTraderError: There is too little history for a model.
        """
        for policy in self._policies:
            await policy.start()
        if not await self._ai.keeper.load():
            await self._train(report)
        await self.exec_risk.recover()
        await self._analytics_bus.start()
        await self._exec_bus.start()
        await self._ai_bus.start()
        await self._settle()

    async def stop(self) -> None:
        """End the buses."""
        await self._ai_bus.stop()
        await self._exec_bus.stop()
        await self._analytics_bus.stop()

    async def play(self, open_time: datetime) -> int:
        """Play the candles that open at ``open_time``, one per symbol, to their close; return how many there were."""
        close = open_time + self._step
        await self._work_executions(close)
        self.engine.advance_to(close)
        self._clock.advance_to(close)
        await self._settle()
        await self.exec_risk.executions.work()
        count = 0
        for symbol in self._settings.symbols:
            for candle in await self._history.candles(symbol, self._settings.timeframe, open_time, close):
                await self._publish(candle)
                count += 1
        await self._settle()
        return count

    async def _work_executions(self, close: datetime) -> None:
        """Let executions that take their time go on inside the candle, as the timer of the live service does."""
        while self.exec_risk.ledger.book.executions and self._clock.now() + _EXECUTION_STEP < close:
            self.engine.advance_to(self._clock.now() + _EXECUTION_STEP)
            self._clock.advance_to(self._clock.now() + _EXECUTION_STEP)
            await self._settle()
            await self.exec_risk.executions.work()
            await self._settle()

    async def _publish(self, candle: Candle) -> None:
        event_id = candle_event_id(RUN_ID, candle)
        await self._ai_bus.publish(
            "candle.closed", candle_closed(candle, "replay"), trace_id=candle_trace_id(event_id), event_id=event_id
        )

    async def _settle(self) -> None:
        """Handle events and reports until neither causes the other any more."""
        await self.broker.settled()
        while await self._venue.deliver(self.exec_risk.on_report):
            await self.broker.settled()

    async def _train(self, report: Report) -> None:
        settings = self._ai_settings
        plan = TrainingPlan(
            symbols=settings.qt_symbols,
            timeframe=settings.qt_timeframe,
            barriers=settings.barriers,
            candles=settings.training_candles,
            min_candles=settings.min_training_candles,
            seed=settings.training_seed,
        )
        until = training_end(self.engine.now, plan.timeframe)
        candles = await fetch_candles(plan, self._history, until, report)
        manifest, model = train_model(plan, candles, self._clock.now(), report)
        self._models.save(manifest, model)
        if not await self._ai.keeper.load():
            raise QuantumTraderError(f"the model {manifest.version} that was just trained is not usable")
