"""A random life of one account: signals, a market that jumps, an exchange that lies, and a process that is killed.

What happens follows from the seed alone; how processes get along in between is the machine's business.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from infrastructure.paper_exchange.faults import Fault
from tests.support.account_stage import AccountStage
from tests.support.crash_script import comes_to_rest
from tests.support.eventually import eventually
from tests.support.markets import Prices

ORDER, ALGO = "/fapi/v1/order", "/fapi/v1/algoOrder"
ROUNDS = 14
#: What may go wrong, each drawn as likely as the others.
FAULTS: Sequence[Fault] = (
    Fault("lose_order_answer"),
    Fault("reset_after"),
    Fault("status_unknown", value="-1007"),
    Fault("status_unknown", value="-1006"),
    Fault("garble_order_answer", value="truncated"),
    Fault("garble_order_answer", value="html"),
    Fault("garble_order_answer", value="empty"),
    Fault("duplicate_answer"),
    Fault("hide_order", seconds=2.0),
    Fault("order_not_found", count=2),
    Fault("hold_order_answer", seconds=1.0, hold_events=True),
    Fault("hold_order_answer", seconds=1.0),
    Fault("partial_fills", path=ORDER, seconds=0.2, value="0.4"),
    Fault("slow_answer", seconds=1.0, count=3),
    Fault("overload", count=2),
    Fault("service_unavailable", count=2),
    Fault("internal_error"),
    Fault("reject_order", method="DELETE", path=ALGO, value="-2011"),
    Fault("reject_order", path=ALGO, value="-2021"),
    Fault("reject_triggered"),
    Fault("drop_user_event", count=3),
    Fault("duplicate_user_event", count=4),
    Fault("reorder_user_event", count=2, seconds=0.2),
    Fault("close_streams", value="user"),
    Fault("cut_streams", value="user"),
    Fault("expire_listen_key"),
    Fault("settle_funding", symbol="BTCUSDT", value="0.001"),
    Fault("rate_limit", seconds=1.0),
    Fault("maintenance", seconds=1.0),
)


def prices(seed: int, minutes: int = 600) -> list[Prices]:
    """Return one-minute candles that wander, and jump by 4 % now and then."""
    rng = random.Random(f"prices {seed}")
    price, candles = 50_000.0, []
    for _ in range(minutes):
        step = rng.choice((-0.04, 0.04)) if rng.random() < 0.08 else rng.uniform(-0.004, 0.004)
        after = round(price * (1 + step), 1)
        candles.append((price, max(price, after), min(price, after), after))
        price = after
    return candles


async def live_through(stage: AccountStage, seed: int, tell: Callable[[str], None]) -> None:
    """Let everything happen that ``seed`` holds, then let all come right and to rest."""
    rng = random.Random(seed)
    await stage.launch()
    await stage.marked()
    for _ in range(ROUNDS):
        draw = rng.random()
        if draw < 0.35:
            fault = rng.choice(FAULTS)
            tell(f"seed {seed}: {fault.kind} {fault.value}")
            stage.exchange.live.faults.arm(fault)
        elif draw < 0.45:
            tell(f"seed {seed}: SIGKILL")
            await stage.kill()
            await stage.start()
        minutes = rng.choice((1, 1, 2, 5))
        action = rng.choice(("BUY", "SELL"))
        tell(f"seed {seed}: {action}, then {minutes} min")
        await stage.signal(action)
        if rng.random() < 0.7:
            await _is_handled(stage)
        await stage.candle(60.0 * minutes)
    await _comes_right(stage)


async def _is_handled(stage: AccountStage) -> None:
    async def handled() -> bool:
        return await stage.has_handled("signal.generated")

    await eventually(handled, timeout=60, what="the signal handled")


async def _comes_right(stage: AccountStage) -> None:
    stage.exchange.live.faults.clear()
    assert stage.process is not None
    if stage.process.returncode is not None:
        await stage.start()
    await stage.ready()
    await stage.marked()
    await comes_to_rest(stage)
