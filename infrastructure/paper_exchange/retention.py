"""What order queries still return: Binance forgets orders, and recovery has to live with it."""

from __future__ import annotations

from datetime import datetime, timedelta

from infrastructure.paper_exchange.records import OrderRecord
from shared.trading.orders import OrderStatus

#: Orders that ended without a fill are found for this long, all others for the longer time.
UNFILLED = timedelta(days=3)
LONGEST = timedelta(days=90)
#: Widest time window of one query of orders or trades, and what a query without times looks back on.
WINDOW = timedelta(days=7)
#: How far incomes reach back.
INCOMES = timedelta(days=90)


def is_kept(order: OrderRecord, now: datetime) -> bool:
    """Tell whether a query at market time ``now`` still finds ``order``."""
    if order.is_open:
        return True
    ended_unfilled = order.status in (OrderStatus.CANCELED, OrderStatus.EXPIRED) and not order.executed
    return now - order.created_at <= (UNFILLED if ended_unfilled else LONGEST)
