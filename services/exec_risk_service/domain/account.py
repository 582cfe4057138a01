"""Money of the account: the wallet folded from fills and payments, equity, and how far it fell today."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date, datetime
from decimal import Decimal

from shared.trading.money import ZERO

#: Payments remembered to recognise a repeated report; the stream repeats within minutes.
REMEMBERED_PAYMENTS = 64


@dataclass(frozen=True, slots=True)
class AccountState:
    """What the account holds, USDT.

    Attributes:
        wallet: Balance without open profit; None until the exchange told it once: then nothing may be traded.
        start_wallet: Balance when this account's record began.
        realized_pnl: Profit booked since, fees not included.
        commission: Fees paid since.
        funding: Funding received (positive) or paid since.
        adjustments: Transfers, and differences found against the exchange.
        peak_equity: Highest equity ever.
        day: UTC day of market time that ``day_peak_equity`` belongs to.
        day_peak_equity: Highest equity of that day.
        payments: Keys of the newest payments, oldest first.
        paid_until: Market time of the newest payment, or of the first balance.
    """

    wallet: Decimal | None = None
    start_wallet: Decimal = ZERO
    realized_pnl: Decimal = ZERO
    commission: Decimal = ZERO
    funding: Decimal = ZERO
    adjustments: Decimal = ZERO
    peak_equity: Decimal = ZERO
    day: date | None = None
    day_peak_equity: Decimal = ZERO
    payments: tuple[str, ...] = ()
    paid_until: datetime | None = None

    @property
    def expected_wallet(self) -> Decimal:
        """The balance that the recorded amounts add up to; equals ``wallet`` always."""
        return self.start_wallet + self.realized_pnl - self.commission + self.funding + self.adjustments

    def opened(self, wallet: Decimal, at: datetime) -> AccountState:
        """Begin the record with the exchange's balance at ``at``; what was booked before is part of it."""
        booked = self.expected_wallet - self.start_wallet
        return replace(self, wallet=wallet, start_wallet=wallet - booked, paid_until=at)

    def after_fill(self, realized_pnl: Decimal, commission: Decimal) -> AccountState:
        """Book one fill. The wallet stays unknown while it is unknown."""
        return replace(
            self,
            wallet=None if self.wallet is None else self.wallet + realized_pnl - commission,
            realized_pnl=self.realized_pnl + realized_pnl,
            commission=self.commission + commission,
        )

    def after_funding(self, amount: Decimal) -> AccountState:
        """Book one funding payment."""
        wallet = None if self.wallet is None else self.wallet + amount
        return replace(self, wallet=wallet, funding=self.funding + amount)

    def adjusted(self, amount: Decimal) -> AccountState:
        """Book a transfer, or a difference that the exchange showed us."""
        wallet = None if self.wallet is None else self.wallet + amount
        return replace(self, wallet=wallet, adjustments=self.adjustments + amount)

    def is_new_payment(self, key: str, at: datetime) -> bool:
        """Tell whether the payment ``key`` is not part of the record yet."""
        return self.paid_until is not None and at >= self.paid_until and key not in self.payments

    def noted(self, key: str, at: datetime) -> AccountState:
        """Remember the payment ``key`` so that it is booked once."""
        paid_until = at if self.paid_until is None else max(self.paid_until, at)
        return replace(self, payments=(*self.payments, key)[-REMEMBERED_PAYMENTS:], paid_until=paid_until)

    def marked(self, equity: Decimal, day: date) -> AccountState:
        """Note today's and the all-time peak; a new day starts from its first equity."""
        new_day = self.day is None or day > self.day
        return replace(
            self,
            peak_equity=max(self.peak_equity, equity),
            day=day if new_day else self.day,
            day_peak_equity=equity if new_day else max(self.day_peak_equity, equity),
        )

    def measured_anew(self, equity: Decimal) -> AccountState:
        """Let the day's drawdown begin at ``equity``."""
        return replace(self, day_peak_equity=equity)

    def drawdown(self, equity: Decimal) -> Decimal:
        """Return the fall from the day's peak as a fraction of it, 0 or more."""
        peak = max(self.day_peak_equity, equity)
        return (peak - equity) / peak if peak > 0 else ZERO
