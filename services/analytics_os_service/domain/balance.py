"""How much is at stake, against what the policy allows. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from services.analytics_os_service.domain.portfolio import Trade
from shared.trading.money import ZERO, to_decimal
from shared.trading.policy import RiskPolicy


@dataclass(frozen=True, slots=True)
class Balance:
    """The open positions in sum. Amounts in USDT.

    Attributes:
        exposure_usd: Value of all positions, long and short alike.
        limit_usd: As many positions as the policy allows, each as large as it allows.
        by_symbol: Value by venue symbol, sorted.
        positions: How many are open.
        max_positions: How many may be.
    """

    exposure_usd: Decimal
    limit_usd: Decimal
    by_symbol: tuple[tuple[str, Decimal], ...]
    positions: int
    max_positions: int

    @property
    def is_within_limits(self) -> bool:
        return self.exposure_usd <= self.limit_usd and self.positions <= self.max_positions


def balance_of(open_trades: Sequence[Trade], policy: RiskPolicy) -> Balance:
    """Return the balance of ``open_trades`` under ``policy``."""
    by_symbol: dict[str, Decimal] = {}
    for trade in open_trades:
        by_symbol[trade.symbol] = by_symbol.get(trade.symbol, ZERO) + _value(trade)
    return Balance(
        exposure_usd=sum(by_symbol.values(), ZERO),
        limit_usd=policy.max_positions * to_decimal(policy.position_size_cap),
        by_symbol=tuple(sorted(by_symbol.items())),
        positions=len(open_trades),
        max_positions=policy.max_positions,
    )


def _value(trade: Trade) -> Decimal:
    if trade.mark is not None:
        return trade.mark.size_usd
    return trade.entry.size_usd if trade.entry is not None else ZERO
