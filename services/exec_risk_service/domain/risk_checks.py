"""Pre-trade checks: each takes an order and a view, and returns the reason against the order or None."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Protocol

from services.exec_risk_service.domain.denials import Denial, DenialCode
from services.exec_risk_service.domain.exposure import Exposures
from services.exec_risk_service.domain.kelly import KellyBet, TradeRecord
from services.exec_risk_service.domain.pace import Pace
from services.exec_risk_service.domain.return_panel import ReturnPanel
from services.exec_risk_service.domain.rules import Rules
from services.exec_risk_service.domain.trading_state import TradingStatus
from shared.trading.instruments import Instrument
from shared.trading.money import ZERO
from shared.trading.orders import Side
from shared.trading.policy import PolicyState


@dataclass(frozen=True, slots=True)
class Sizing:
    """How a size came about.

    Attributes:
        suggested_usd: By the signal, USDT.
        limited_by: What set the size: ``signal``, ``position_size_cap``, ``symbol_exposure``,
            ``risk_per_trade`` or ``kelly``.
        kelly: The largest bet that the record allows; None where nothing was known.
    """

    suggested_usd: Decimal
    limited_by: str
    kelly: KellyBet | None

    def told(self) -> str:
        """Return it in words, for the metadata of the order."""
        line = f"{self.suggested_usd:.2f} USD were suggested, {self.limited_by} sets the size"
        return line if self.kelly is None else f"{line}; {self.kelly.told()}"


@dataclass(frozen=True, slots=True)
class EntryOrder:
    """An order that would open a position.

    Attributes:
        symbol: Venue symbol.
        side: BUY or SELL.
        size_usd: Value of the position, USDT.
        quantity: Base asset, on the lot grid.
        price: Price that the size was computed at, USDT.
        leverage: Leverage.
        stop_loss_pct: Distance of its stop, percent.
        confidence: Of the signal, 0 to 1.
        sizing: How the size came about; None when someone named it.
    """

    symbol: str
    side: Side
    size_usd: Decimal
    quantity: Decimal
    price: Decimal
    leverage: Decimal
    stop_loss_pct: Decimal
    confidence: Decimal
    sizing: Sizing | None = None

    @property
    def signed_size(self) -> Decimal:
        """Value of the position, USDT, negative for a short one."""
        return self.size_usd * self.side.sign


@dataclass(frozen=True, slots=True)
class RiskView:
    """What the checks may look at. None means unknown, and unknown means no.

    Attributes:
        policy: Policy in force.
        rules: Limits of the installation.
        instrument: Filters of the symbol.
        mark: Newest mark price of the symbol, USDT.
        equity: Wallet plus open profit, USDT.
        available: Equity not bound as margin, USDT.
        drawdown: Fraction below the day's peak equity.
        peak_equity: That peak, open profit included, USDT.
        open_positions: Symbols with a position or with an entry under way.
        trading: What kind of orders may be sent.
        exposures: What every symbol holds and may still get.
        panel: Returns of the symbols side by side.
        maintenance: Maintenance margin of all exposures, USDT.
        market_time: Newest moment that the market told of.
        mark_age: Age of the mark price by market time; likewise ``mark_age_wall`` since we heard of it.
        pace: Entries and closes of the last while.
        record: Results of our closed trades.
        storage_alarm: Why events could get lost if Redis went away now; None when all is well.
        entry_bar: Why this process may send no entry now; None when it may.
    """

    policy: PolicyState
    rules: Rules
    instrument: Instrument | None
    mark: Decimal | None
    equity: Decimal | None
    available: Decimal | None
    drawdown: Decimal | None
    open_positions: int
    trading: TradingStatus = field(default_factory=TradingStatus)
    peak_equity: Decimal = ZERO
    exposures: Exposures = field(default_factory=Exposures)
    panel: ReturnPanel = field(default_factory=ReturnPanel)
    maintenance: Decimal = ZERO
    market_time: datetime | None = None
    mark_age: timedelta | None = None
    mark_age_wall: timedelta | None = None
    pace: Pace = field(default_factory=Pace)
    record: TradeRecord = field(default_factory=TradeRecord)
    storage_alarm: str | None = None
    entry_bar: str | None = None


class Bounds(Protocol):
    """Where limits come from: a view or the context of a step."""

    @property
    def policy(self) -> PolicyState: ...

    @property
    def rules(self) -> Rules: ...


Check = Callable[[EntryOrder, RiskView], Denial | None]


def trading_is_allowed(_order: EntryOrder, view: RiskView) -> Denial | None:
    """Trading is ACTIVE; otherwise positions are only reduced."""
    return None if view.trading.denial is None else Denial(DenialCode.TRADING_NOT_ALLOWED, view.trading.denial)


def numbers_are_finite(order: EntryOrder, view: RiskView) -> Denial | None:
    """No number of the order or of the account is NaN or infinite: such numbers cannot be compared."""
    ours = {"size_usd": order.size_usd, "price": order.price, "leverage": order.leverage}
    ours |= {"stop_loss_pct": order.stop_loss_pct, "quantity": order.quantity, "confidence": order.confidence}
    account = {"mark": view.mark, "equity": view.equity, "available": view.available, "drawdown": view.drawdown}
    for name, value in {**ours, **account}.items():
        if value is not None and not value.is_finite():
            return Denial(DenialCode.NOT_A_NUMBER, f"{name} must be a finite number, was {value}")
    return None


def policy_is_fresh(_order: EntryOrder, view: RiskView) -> Denial | None:
    """The policy store answers; a remembered policy is good for exits only."""
    if not view.policy.stale:
        return None
    return Denial(
        DenialCode.POLICY_STALE, f"policy version {view.policy.version} is stale: the store cannot be reached"
    )


def events_can_be_kept(_order: EntryOrder, view: RiskView) -> Denial | None:
    """What happens to the new position can be told: a fill that nobody hears of is worse than no position."""
    if not view.storage_alarm:
        return None
    return Denial(DenialCode.EVENTS_AT_RISK, f"events cannot be kept on disk: {view.storage_alarm}")


def entries_may_be_sent(_order: EntryOrder, view: RiskView) -> Denial | None:
    """This process holds the account, its clock is right, and the exchange takes requests."""
    return Denial(DenialCode.NOT_THE_EXECUTOR, view.entry_bar) if view.entry_bar else None


def account_is_known(_order: EntryOrder, view: RiskView) -> Denial | None:
    """The wallet was read from the exchange."""
    if view.equity is None or view.available is None or view.drawdown is None:
        unknown = "the account is unknown: no balance was read from the exchange yet"
        return Denial(DenialCode.ACCOUNT_UNKNOWN, unknown)
    if view.equity <= 0:
        return Denial(DenialCode.EQUITY_NOT_POSITIVE, f"equity {view.equity:.2f} USD is not above 0")
    return None


def instrument_is_known(order: EntryOrder, view: RiskView) -> Denial | None:
    """The exchange lists the symbol."""
    if view.instrument is not None:
        return None
    return Denial(DenialCode.SYMBOL_NOT_LISTED, f"{order.symbol} is not listed on the exchange")


def mark_is_known(order: EntryOrder, view: RiskView) -> Denial | None:
    """A candle of the symbol closed since we know it."""
    if view.mark is None or view.mark <= 0:
        return Denial(DenialCode.MARK_UNKNOWN, f"no mark price of {order.symbol} is known yet")
    return None


def terms_are_positive(order: EntryOrder, _view: RiskView) -> Denial | None:
    """Size, price, leverage and stop distance are above 0."""
    terms = {"size_usd": order.size_usd, "price": order.price, "leverage": order.leverage}
    for name, value in {**terms, "stop_loss_pct": order.stop_loss_pct}.items():
        if value <= 0:
            return Denial(DenialCode.TERMS_NOT_POSITIVE, f"{name} must be a number above 0, was {value}")
    return None


def price_is_plausible(order: EntryOrder, view: RiskView) -> Denial | None:
    """The order's price lies in a band around the newest mark price."""
    assert view.mark is not None
    deviation = abs(order.price / view.mark - 1)
    if deviation > view.rules.max_price_deviation:
        limit = view.rules.max_price_deviation * 100
        return Denial(
            DenialCode.PRICE_OFF_MARKET,
            f"price {order.price} is {deviation * 100:.1f} % away from the mark price {view.mark}; limit {limit:.1f} %",
        )
    return None


def confidence_is_enough(order: EntryOrder, view: RiskView) -> Denial | None:
    """The signal is as confident as the policy asks."""
    limit = Decimal(str(view.policy.policy.global_min_confidence))
    if order.confidence < limit:
        return Denial(
            DenialCode.CONFIDENCE_TOO_LOW, f"confidence {order.confidence} is below the policy's minimum {limit}"
        )
    return None


def within_leverage(order: EntryOrder, view: RiskView) -> Denial | None:
    """Leverage stays within policy, settings and the exchange's first bracket."""
    limit = max_leverage(view)
    if order.leverage <= limit:
        return None
    return Denial(DenialCode.LEVERAGE_TOO_HIGH, f"leverage {order.leverage.normalize():f} is above the limit {limit:f}")


def within_size(order: EntryOrder, view: RiskView) -> Denial | None:
    """Size reaches the exchange's minimum and stays under the cap."""
    cap = max_position_size(view)
    if order.size_usd > cap:
        return Denial(DenialCode.SIZE_TOO_LARGE, f"size {order.size_usd:.2f} USD is above the cap {cap:.2f} USD")
    if order.quantity <= 0:
        small = f"size {order.size_usd:.2f} USD is below the exchange's smallest order"
        return Denial(DenialCode.SIZE_TOO_SMALL, small)
    if order.quantity * order.price > order.size_usd:
        return Denial(
            DenialCode.QUANTITY_ABOVE_SIZE,
            f"quantity {order.quantity} at {order.price} is worth more than the size {order.size_usd:.2f} USD",
        )
    return None


def within_risk_at_stop(order: EntryOrder, view: RiskView) -> Denial | None:
    """The loss at the stop stays within the fraction of equity that one trade may lose."""
    assert view.equity is not None
    loss = order.size_usd * order.stop_loss_pct / 100
    allowed = view.equity * Decimal(str(view.policy.policy.max_risk_pct_per_trade))
    if loss > allowed:
        return Denial(
            DenialCode.RISK_AT_STOP_TOO_LARGE,
            f"loss at the stop would be {loss:.2f} USD; one trade may lose {allowed:.2f} USD",
        )
    return None


def within_open_positions(_order: EntryOrder, view: RiskView) -> Denial | None:
    """One more position is allowed; entries under way count."""
    limit = max_positions(view)
    if view.open_positions >= limit:
        return Denial(
            DenialCode.TOO_MANY_POSITIONS, f"{view.open_positions} positions are open or being opened; limit {limit}"
        )
    return None


def within_daily_drawdown(_order: EntryOrder, view: RiskView) -> Denial | None:
    """Equity did not fall too far below the day's peak."""
    assert view.drawdown is not None
    limit = max_daily_drawdown(view)
    if view.drawdown >= limit:
        return Denial(
            DenialCode.DRAWDOWN_TOO_DEEP,
            f"daily drawdown is {view.drawdown * 100:.2f} % (equity {view.equity:.2f} USD with open profit, peak "
            f"{view.peak_equity:.2f} USD today); entries stop at {limit * 100:.2f} %",
        )
    return None


def max_leverage(view: RiskView) -> Decimal:
    """Return the lowest of the leverage limits."""
    limits = [Decimal(str(view.policy.policy.max_leverage)), view.rules.max_leverage]
    if view.instrument is not None:
        limits.append(Decimal(view.instrument.max_leverage))
    return min(limits)


def max_position_size(view: Bounds) -> Decimal:
    """Return the lower of the size caps, USDT."""
    return min(Decimal(str(view.policy.policy.position_size_cap)), view.rules.max_position_size_usd)


def max_symbol_exposure(view: Bounds) -> Decimal:
    """Return the lower of the limits on what one symbol may hold, USDT."""
    configured = view.rules.limits.max_symbol_exposure_usd
    return max_position_size(view) if configured is None else min(max_position_size(view), configured)


def max_positions(view: Bounds) -> int:
    """Return the lower of the limits on open positions."""
    return min(view.policy.policy.max_positions, view.rules.max_open_positions)


def max_daily_drawdown(view: Bounds) -> Decimal:
    """Return the lower of the drawdown limits, a fraction."""
    return min(Decimal(str(view.policy.policy.max_daily_drawdown)), view.rules.max_daily_drawdown)
