"""What working a large order costs against sending it at once, on a recorded book; pure but for reading the files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import product
from pathlib import Path
from statistics import fmean, stdev
from types import MappingProxyType
from typing import Any

from rich.table import Column, Table

from infrastructure.bench.contest import Tell
from infrastructure.bench.figures import Comparison, Row
from infrastructure.paper_exchange.contracts import MAKER_FEE, TAKER_FEE, contract_for
from infrastructure.paper_exchange.file_candles import FileCandleSource
from infrastructure.replay.depth_capture import Record, read_capture
from infrastructure.replay.recorded_book import RecordedBook
from infrastructure.replay.worked_order import TOLERANCE_PCT, ParentOrder, Worked, quote_of, work
from services.exec_risk_service.domain.executions import Slice, Strategy, Urgency
from services.exec_risk_service.domain.strategies import smart, twap, vwap
from services.exec_risk_service.domain.strategies.slicing import Frame
from services.exec_risk_service.domain.strategies.smart import Choice, Situation
from shared.errors import ConfigurationError
from shared.trading.candles import Candle
from shared.trading.instruments import Instrument
from shared.trading.orders import Side

NAME = "execution_slippage"
SYMBOL = "BTCUSDT"
#: Where the reference data lies beside a checkout.
DATA = Path(__file__).parents[3] / "shared" / "data"
RECORDING = Path("hft") / "btcusdt_20240808.gz"

SIZES = (Decimal(5), Decimal(20), Decimal(60))
DURATION = timedelta(seconds=60)
SLICES = 12
#: Pause between the starts of two orders; the windows overlap, so neighbours tell partly the same.
EVERY = timedelta(seconds=30)
#: The recording begins with a book that has just been built.
_FIRST = timedelta(seconds=5)
_STRATEGIES = (Strategy.MARKET, Strategy.LIMIT, Strategy.TWAP, Strategy.VWAP, Strategy.SMART)


@dataclass(frozen=True, slots=True)
class Scene:
    """What orders of one window start from; ``candles`` tell the usual volume at that time of day."""

    start: datetime
    book: RecordedBook
    instrument: Instrument
    candles: tuple[Candle, ...]


@dataclass(frozen=True, slots=True)
class Summary:
    """One strategy at one size over all windows and both sides; basis points, above 0 is a cost.

    Attributes:
        orders: Number of parent orders behind it.
        arrival_bps: Mean cost against the middle price at the decision.
        vwap_bps: Mean cost against the VWAP of all trades in the window.
        off_vwap_bps: Mean distance from that VWAP, whichever way.
        worst_bps: Highest cost against arrival.
        saved_bps: Mean of what it saved against the single market order of the same window and side.
        saved_error_bps: Standard error of that mean over the windows, as if they were independent; buyer and seller of
            a window count as one, so that the drift of the price cancels.
        fee_bps: Mean commission.
        maker_share: Share of the quantity that was filled while resting.
        children: Mean number of child orders.
        late_share: Share of the quantity that was left at the end and then taken.
    """

    strategy: Strategy
    size: Decimal
    orders: int
    arrival_bps: float
    vwap_bps: float
    off_vwap_bps: float
    worst_bps: float
    saved_bps: float
    saved_error_bps: float
    fee_bps: float
    maker_share: float
    children: float
    late_share: float


def measure(
    data: Path = DATA, *, sizes: Sequence[Decimal] = SIZES, every: timedelta = EVERY, tell: Tell = lambda _text: None
) -> list[Summary]:
    """Work every strategy at every size over the recording.

    Args:
        data: Folder of the reference data.
        sizes: Quantities, base asset.
        every: Pause between the starts of two orders.
        tell: Told what is going on.

    Raises:
        ConfigurationError: The recording is not there, or damaged.
    """
    if not (data / RECORDING).is_file():
        raise ConfigurationError(f"{NAME} needs the recorded book {data / RECORDING}, which is not on this machine")
    records = read_capture(data / RECORDING)
    candles = same_time_of_day(data, records[0].at, records[-1].at)
    tell(f"{len(records)} records, volume curve from {len(candles)} candles")
    instrument = contract_for(SYMBOL, 60_000.0).instrument
    worked: dict[tuple[Strategy, Decimal], list[Worked]] = {}
    for start, book, rest in windows(records, every):
        tell(f"orders from {start:%H:%M:%S}")
        scene = Scene(start, book, instrument, candles)
        for size, strategy in product(sizes, _STRATEGIES):
            worked.setdefault((strategy, size), []).extend(
                work(_parent(side, size, strategy, scene), book.copy(), rest, instrument) for side in Side
            )
    return [
        summarized(strategy, worked[strategy, size], worked[Strategy.MARKET, size])
        for size, strategy in product(sizes, _STRATEGIES)
    ]


def windows(records: Sequence[Record], every: timedelta) -> Iterable[tuple[datetime, RecordedBook, Sequence[Record]]]:
    """Yield the start of each window, the book at it, and the records that follow."""
    book = RecordedBook()
    start = records[0].at + _FIRST
    for number, record in enumerate(records):
        if record.at >= start:
            if start + DURATION > records[-1].at:
                return
            yield start, book, records[number:]
            start += every
        book.play(record)


def same_time_of_day(data: Path, first: datetime, last: datetime) -> tuple[Candle, ...]:
    """Return one-minute candles of other days around that time of day, or none where the folder has none."""
    try:
        source = FileCandleSource(data / "market", [SYMBOL], "1m")
    except ConfigurationError:
        return ()
    end = source.last_open(SYMBOL)
    assert end is not None, "files end"
    candles = source.candles(SYMBOL, source.first_open(SYMBOL), end)
    begin, span = first - timedelta(minutes=1), last - first + timedelta(minutes=2)
    return tuple(candle for candle in candles if (candle.open_time - begin) % timedelta(days=1) < span)


def _parent(side: Side, size: Decimal, strategy: Strategy, scene: Scene) -> ParentOrder:
    """Return the order; SMART is told to hurry, so that what it chooses ends within the window."""
    if strategy is Strategy.SMART:
        quote = quote_of(scene.book, SYMBOL, scene.start)
        choice = smart.choose(Situation(side, size, quote, TOLERANCE_PCT, Urgency.HIGH))
    else:
        choice = Choice(strategy, "", SLICES, DURATION / SLICES)
    frame = Frame(scene.start, min(choice.duration, DURATION), choice.slices, f"{scene.start.isoformat()}|{side}")
    schedules: Mapping[Strategy, Callable[[], tuple[Slice, ...]]] = MappingProxyType(
        {
            Strategy.TWAP: lambda: twap.schedule(size, scene.book.mid, scene.instrument, frame),
            Strategy.VWAP: lambda: vwap.schedule(size, scene.book.mid, scene.instrument, frame, scene.candles),
        }
    )
    schedule = schedules[choice.strategy]() if choice.strategy in schedules else ()
    return ParentOrder(side, size, choice.strategy, scene.start, DURATION, schedule)


def summarized(strategy: Strategy, found: Sequence[Worked], at_once: Sequence[Worked]) -> Summary:
    """Return the means over ``found``, a buyer and a seller per window; ``at_once`` are their single market orders."""
    costs = [each.arrival_bps for each in found]
    saved = [market.arrival_bps - cost for market, cost in zip(at_once, costs, strict=True)]
    by_window = [fmean(both) for both in zip(saved[::2], saved[1::2], strict=True)]
    size = found[0].parent.quantity
    return Summary(
        strategy=strategy,
        size=size,
        orders=len(found),
        arrival_bps=fmean(costs),
        vwap_bps=fmean(each.vwap_bps for each in found),
        off_vwap_bps=fmean(abs(each.vwap_bps) for each in found),
        worst_bps=max(costs),
        saved_bps=fmean(saved),
        saved_error_bps=stdev(by_window) / len(by_window) ** 0.5 if len(by_window) > 1 else 0.0,
        fee_bps=fmean(_fee_bps(each) for each in found),
        maker_share=fmean(each.maker_share for each in found),
        children=fmean(each.children for each in found),
        late_share=fmean(float(each.taken_at_end / size) for each in found),
    )


def _fee_bps(worked: Worked) -> float:
    rates = float(MAKER_FEE), float(TAKER_FEE)
    return (worked.maker_share * rates[0] + (1 - worked.maker_share) * rates[1]) * 10_000


# -- showing -------------------------------------------------------------------------------------------------------


def rows_of(summaries: Sequence[Summary]) -> list[Row]:
    """Return a row of ``bench`` per strategy and size; the rival is one market order of the same size."""
    at_once = {each.size: each for each in summaries if each.strategy is Strategy.MARKET}
    return [_row(each, at_once[each.size]) for each in summaries if each.strategy is not Strategy.MARKET]


def _row(summary: Summary, at_once: Summary) -> Row:
    ratio = summary.arrival_bps / at_once.arrival_bps if at_once.arrival_bps else None
    return Row(
        name=f"{NAME}_{summary.strategy.value.lower()}_{summary.size}",
        unit="bps against arrival",
        value=summary.arrival_bps,
        first=Comparison("one market order", at_once.arrival_bps, ratio, None, None),
        details={"ours": _details(summary), "one market order": _details(at_once)},
    )


def _details(summary: Summary) -> Mapping[str, Any]:
    figures = {name: value for name, value in asdict(summary).items() if isinstance(value, float)}
    return {"orders": summary.orders, **{name: round(value, 4) for name, value in figures.items()}}


def table_of(summaries: Sequence[Summary]) -> Table:
    """Return the comparison for people."""
    right = ["arrival bps", "vwap bps", "off vwap", "worst", "saved bps", "fees bps", "maker", "late", "children"]
    table = Table(
        Column("BTC", justify="right"), "worked as", *(Column(name, justify="right") for name in right), title=_title()
    )
    for each in summaries:
        table.add_row(
            f"{each.size}",
            each.strategy.value,
            f"{each.arrival_bps:.2f}",
            f"{each.vwap_bps:.2f}",
            f"{each.off_vwap_bps:.2f}",
            f"{each.worst_bps:.2f}",
            "" if each.strategy is Strategy.MARKET else f"{each.saved_bps:+.2f} ± {each.saved_error_bps:.2f}",
            f"{each.fee_bps:.1f}",
            f"{each.maker_share:.0%}",
            f"{each.late_share:.0%}",
            f"{each.children:.1f}",
        )
    return table


def _title() -> str:
    return f"{SYMBOL}, recorded book {RECORDING.name}: {DURATION.total_seconds():.0f} s, both sides; above 0 is a cost"
