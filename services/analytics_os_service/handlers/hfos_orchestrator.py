"""Looks at the portfolio as a whole each time a position opens, and tells what it found."""

from __future__ import annotations

from services.analytics_os_service.domain.balance import Balance, balance_of
from services.analytics_os_service.handlers.portfolio_keeper import PortfolioKeeper
from shared.bus.event_bus import EventBus
from shared.events.envelope import Event
from shared.events.v3 import PortfolioBalancePayload, PositionOpenedPayload
from shared.ids import derive_id
from shared.policy.store import PolicyStore


class HfosOrchestrator:
    """Publishes ``portfolio.balance`` in the trace of the trade that changed it.

    Within the limits there is nothing to do: REBALANCE_COMPLETED without adjustments. Beyond them: EXPOSURE_WARNING.
    """

    def __init__(self, *, bus: EventBus, portfolio: PortfolioKeeper, policy: PolicyStore) -> None:
        self._bus = bus
        self._portfolio = portfolio
        self._policy = policy

    async def on_position_opened(self, event: Event[PositionOpenedPayload]) -> None:
        """Tell the balance after this position; delivered again, it is told under the same id."""
        balance = balance_of(self._portfolio.portfolio.open_positions(), self._policy.current().policy)
        await self._bus.publish(
            "portfolio.balance", balance_payload(balance), event_id=derive_id("balance", event.metadata.event_id)
        )


def balance_payload(balance: Balance) -> PortfolioBalancePayload:
    """Return ``balance`` as the event tells it."""
    return PortfolioBalancePayload(
        action="REBALANCE_COMPLETED" if balance.is_within_limits else "EXPOSURE_WARNING",
        total_exposure_usd=float(balance.exposure_usd),
        max_allowed_exposure_usd=float(balance.limit_usd),
        position_count=balance.positions,
        max_positions=balance.max_positions,
        asset_allocation={symbol: float(value) for symbol, value in balance.by_symbol},
    )
