"""How far an emergency stop is, as routes, RPC and the command line show it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class StopProgress:
    """How far the stop is.

    Attributes:
        status: ``stopped`` only when the exchange showed that nothing is left; ``none`` while no stop is in force.
        stop_id: Which stop; empty while none is in force.
        reason: Why.
        requested_by: Who.
        orders_cancelled: By this process so far.
        positions_closed: Symbols that a closing order was sent for and that are flat, likewise.
        orders_left: Resting orders at the last look.
        positions_left: Positions at the last look.
        message: One line for a person.
    """

    status: Literal["none", "in_progress", "stopped"]
    stop_id: str = ""
    reason: str = ""
    requested_by: str = ""
    orders_cancelled: int = 0
    positions_closed: int = 0
    orders_left: int = 0
    positions_left: int = 0
    message: str = ""
