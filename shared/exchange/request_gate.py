"""What every request to the exchange passes on its way out, and what its answer changes for all that follow.

Two things keep a request back: the shared weight of the minute, and a pause that the exchange asked for. A pause is
known to every service through Redis and survives restarts in a file, so that nobody hammers at a closed door.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

import structlog

from shared.cancellation import end_task
from shared.clock import Clock
from shared.errors import ConnectionLostError, TransientError
from shared.exchange.outcome import Answer
from shared.exchange.pauses import Pause, PauseKind, longer, pause_after, pause_of
from shared.exchange.request_costs import ApiRequest, Priority, as_it_matters, as_look
from shared.exchange.weight_budget import WeightBudget
from shared.redis_connection import RedisConnection
from shared.settings import ServiceSettings
from shared.telemetry.metrics import Metrics

#: Time between two looks at the pauses that other services noted.
_REFRESH_SECONDS = 1.0
#: Longest wait for Redis; what it does not tell in this time is asked for again.
_ANSWER_SECONDS = 0.25
#: Pauses longer than this are not waited out by a request: whoever asked is told.
_PATIENCE_SECONDS = 90.0
_USED_WEIGHT = "x-mbx-used-weight-1m"

log = structlog.get_logger(__name__)


def pause_file(settings: ServiceSettings) -> Path:
    """Return where a service keeps the pauses of the exchange that it trades on."""
    return settings.state_dir / "exchange" / settings.trading_mode / "pause.json"


class RequestGate:
    """Lets requests out, or keeps them back.

    Attributes:
        name: Component name.
        entry_bar: Tells why no order that adds exposure may leave this process; asked after the request was signed, as
            the last thing before it is written. Set by who owns the account.
    """

    name = "exchange-gate"

    def __init__(
        self,
        scope: str,
        *,
        clock: Clock,
        redis: RedisConnection | None = None,
        file: Path | None = None,
        metrics: Metrics | None = None,
        market_waits: bool = True,
    ) -> None:
        """Prepare; pauses in ``file`` are known at once.

        Args:
            scope: Which exchange is asked: its host and port.
            clock: Wall clock.
            redis: Where services share weight and pauses; None keeps both to this process.
            file: Where pauses survive a restart while Redis is away; None for nowhere.
            metrics: Gets used weight and seconds of pause.
            market_waits: Whether candles are the least important; False where they belong to the recovery of an
                account, and count like looks at it.
        """
        self.budget = WeightBudget(scope, clock=clock, redis=redis)
        self.entry_bar: Callable[[], str | None] = lambda: None
        self._key = f"quantum:exchange:{scope}:pause"
        self._clock = clock
        self._market_waits = market_waits
        self._redis = redis
        self._file = file
        self._stop: Pause | None = None
        self._orders: Pause | None = None
        self._task: asyncio.Task[None] | None = None
        self._recall()
        if metrics is not None:
            metrics.watch_exchange_requests(
                used=lambda: self.budget.used,
                limit=lambda: self.budget.limit,
                paused_seconds=lambda: self.paused_seconds,
            )

    # -- life ----------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Learn what the others know, and go on learning it."""
        await self._refresh()
        if self._redis is not None:
            self._task = asyncio.create_task(self._keep_learning(), name=self.name)

    async def stop(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            await end_task(task)

    # -- before a request ----------------------------------------------------------------------------------------------

    def bar(self) -> str | None:
        """Tell, without asking anybody, why no entry can be sent now; None when one can."""
        pause = longer(self._lasting(self._stop), self._lasting(self._orders))
        return None if pause is None else f"the exchange asked for a pause until {_time(pause.until_ms)}: {pause.why}"

    def ban(self) -> str | None:
        """Tell for how long the exchange has shut this address out; None while it has not."""
        pause = self._lasting(self._stop)
        if pause is None or pause.kind is PauseKind.LIMIT:
            return None
        return f"the exchange has banned this address until {_time(pause.until_ms)}: {pause.why}"

    @property
    def paused_seconds(self) -> float:
        """Seconds until requests other than entries may go out again; 0 when they may."""
        return 0.0 if self._stop is None else self._stop.seconds_left(self._now_ms())

    async def opened(self) -> None:
        """Return when requests that reduce exposure may go out: at once, or after the pause."""
        while (seconds := self.paused_seconds) > 0:
            await self._clock.sleep(min(seconds, _REFRESH_SECONDS))

    async def admit(self, request: ApiRequest) -> None:
        """Return when ``request`` may be signed and sent.

        Candles wait for the end of a pause and for the next minute; everything else is told no, and tried again by
        whoever knows whether it is still wanted.

        Raises:
            ConnectionLostError: It may not, so it was not sent.
        """
        request = as_it_matters(request)
        waits = request.priority is Priority.MARKET and self._market_waits
        if waits and self.paused_seconds <= _PATIENCE_SECONDS:
            await self.opened()
        self._require_open(request)
        asked = request if waits or request.priority is not Priority.MARKET else as_look(request)
        while (seconds := await self.budget.take(asked)) > 0:
            if not waits:
                raise ConnectionLostError(
                    f"{request}: not sent, {self.budget.used} of {self.budget.limit} weight are used and the rest is "
                    f"kept for exits; free again in {seconds:.0f} s"
                )
            await self._clock.sleep(seconds)
            self._require_open(request)

    def pass_entry(self, request: ApiRequest) -> None:
        """Look at the fence for the last time; the request is signed, so its time stamp is older than this look.

        Raises:
            ConnectionLostError: It adds exposure, and this process may not send such an order any more.
        """
        if request.adds_exposure and (why := self.entry_bar()) is not None:
            raise ConnectionLostError(f"{request}: not sent, {why}")

    def _require_open(self, request: ApiRequest) -> None:
        pause = self._lasting(self._stop)
        if pause is None and request.adds_exposure:
            pause = self._lasting(self._orders)
        if pause is not None:
            raise ConnectionLostError(
                f"{request}: not sent, the exchange asked for a pause until {_time(pause.until_ms)} ({pause.why})"
            )

    # -- after its answer ----------------------------------------------------------------------------------------------

    async def answered(self, request: ApiRequest, answer: Answer, headers: Mapping[str, str]) -> None:
        """Note what came back: the used weight, and a pause if it asks for one."""
        pause = pause_after(answer, headers, self._now_ms())
        if pause is not None:
            await self._pause(pause)
        told = next((value for name, value in headers.items() if name.lower() == _USED_WEIGHT), "")
        await self.budget.report(request, int(told) if told.isdigit() else None)

    async def _pause(self, pause: Pause) -> None:
        if not self._note(pause):
            return
        log.warning("exchange_pause", kind=pause.kind.value, until=_time(pause.until_ms), why=pause.why)
        if pause.kind.stops_everything:
            self._remember(pause)
            await self._share(pause)

    def _note(self, pause: Pause) -> bool:
        """Keep ``pause`` if it ends later than what is known; tell whether it does."""
        known = self._stop if pause.kind.stops_everything else self._orders
        if pause.seconds_left(self._now_ms()) <= 0 or longer(known, pause) is not pause:
            return False
        if pause.kind.stops_everything:
            self._stop = pause
        else:
            self._orders = pause
        return True

    # -- what all services know ----------------------------------------------------------------------------------------

    async def _keep_learning(self) -> None:
        while True:
            await self._clock.sleep(_REFRESH_SECONDS)
            await self._refresh()

    async def _refresh(self) -> None:
        if self._redis is None:
            return
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                (text,) = await self._redis.execute(("GET", self._key))
        except (TransientError, TimeoutError):
            return  # what is known stays known
        if isinstance(text, bytes) and (pause := pause_of(text)) is not None and self._note(pause):
            self._remember(pause)
        elif text is None and (own := self._lasting(self._stop)) is not None:
            await self._share(own)  # Redis forgot it, or was away when it began

    async def _share(self, pause: Pause) -> None:
        if self._redis is None:
            return
        lasts_ms = max(1, int(pause.seconds_left(self._now_ms()) * 1000))
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                await self._redis.execute(("SET", self._key, pause.as_text(), "PX", lasts_ms))
        except (TransientError, TimeoutError) as error:
            log.warning("exchange_pause_not_shared", error=str(error))

    def _remember(self, pause: Pause) -> None:
        if self._file is None:
            return
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            draft = self._file.with_suffix(".draft")
            draft.write_text(pause.as_text(), encoding="utf-8")
            draft.replace(self._file)
        except OSError as error:
            log.warning("exchange_pause_not_kept", file=str(self._file), error=str(error))

    def _recall(self) -> None:
        try:
            text = "" if self._file is None else self._file.read_text(encoding="utf-8")
        except OSError:
            return
        if (pause := pause_of(text)) is not None:
            self._stop = self._lasting(pause)

    # -- helpers -------------------------------------------------------------------------------------------------------

    def _lasting(self, pause: Pause | None) -> Pause | None:
        return pause if pause is not None and pause.seconds_left(self._now_ms()) > 0 else None

    def _now_ms(self) -> int:
        return int(self._clock.now().timestamp() * 1000)


def _time(epoch_ms: int) -> str:
    return f"{datetime.fromtimestamp(epoch_ms / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"
