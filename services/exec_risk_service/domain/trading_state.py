"""What kind of orders may be sent: one state, the literal table of its changes, and who may cause which.

The state follows from what is wrong at the moment: nothing (ACTIVE), one or more causes that keep entries back
(REDUCING), or a halt that only a person ends (HALTED). Causes are kept apart, so that one that is over does not
lift another.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime
from enum import StrEnum
from types import MappingProxyType

from shared.fsm import TransitionTable

#: The check that every entry passes first says this when it denies.
_MEANING = {
    "REDUCING": "positions may only be reduced",
    "HALTED": "nothing may be opened until a person resumes trading",
}


class TradingState(StrEnum):
    """What may be sent."""

    ACTIVE = "ACTIVE"  # everything
    REDUCING = "REDUCING"  # reduce-only orders and cancels
    HALTED = "HALTED"  # the same; only a person leaves it


class Move(StrEnum):
    """What changes the state."""

    RESTRICT = "RESTRICT"  # a cause keeps entries back
    LIFT = "LIFT"  # the last such cause is over
    HALT = "HALT"  # trading ends until a person says otherwise
    RESUME = "RESUME"  # a person says so


#: The whole life of the state.
TRADING_STATES: TransitionTable[TradingState, Move] = TransitionTable(
    "trading state",
    {
        (TradingState.ACTIVE, Move.RESTRICT): TradingState.REDUCING,
        (TradingState.ACTIVE, Move.HALT): TradingState.HALTED,
        (TradingState.REDUCING, Move.RESTRICT): TradingState.REDUCING,
        (TradingState.REDUCING, Move.LIFT): TradingState.ACTIVE,
        (TradingState.REDUCING, Move.HALT): TradingState.HALTED,
        (TradingState.REDUCING, Move.RESUME): TradingState.ACTIVE,
        (TradingState.HALTED, Move.RESTRICT): TradingState.HALTED,
        (TradingState.HALTED, Move.LIFT): TradingState.HALTED,
        (TradingState.HALTED, Move.HALT): TradingState.HALTED,
        (TradingState.HALTED, Move.RESUME): TradingState.ACTIVE,
    },
)


class Authority(StrEnum):
    """Who speaks."""

    RULE = "RULE"  # a rule of this service, or another service
    PERSON = "PERSON"  # somebody who showed the token, with name and reason


#: Who may cause which move.
MAY: Mapping[Move, frozenset[Authority]] = MappingProxyType(
    {
        Move.RESTRICT: frozenset({Authority.RULE, Authority.PERSON}),
        Move.LIFT: frozenset({Authority.RULE, Authority.PERSON}),
        Move.HALT: frozenset({Authority.RULE, Authority.PERSON}),
        Move.RESUME: frozenset({Authority.PERSON}),
    }
)


class Ends(StrEnum):
    """When a cause stops keeping entries back."""

    WITH_ITS_CAUSE = "WITH_ITS_CAUSE"  # who saw it come also sees it go
    NEXT_MARKET_DAY = "NEXT_MARKET_DAY"  # or a person
    BY_A_PERSON = "BY_A_PERSON"


class TradingCause(StrEnum):
    """Why entries are kept back or trading is halted."""

    DAILY_DRAWDOWN = "DAILY_DRAWDOWN"
    EMERGENCY_DRAWDOWN = "EMERGENCY_DRAWDOWN"
    CONSECUTIVE_LOSSES = "CONSECUTIVE_LOSSES"
    REJECT_STORM = "REJECT_STORM"
    UNKNOWN_OUTCOMES = "UNKNOWN_OUTCOMES"
    STALE_DATA = "STALE_DATA"
    USER_STREAM_LOST = "USER_STREAM_LOST"
    POSITION_MISMATCH = "POSITION_MISMATCH"
    CLOCK_SKEW = "CLOCK_SKEW"
    EXCHANGE_BAN = "EXCHANGE_BAN"
    ACCOUNT_TERMS = "ACCOUNT_TERMS"
    FOREIGN_EXECUTOR = "FOREIGN_EXECUTOR"
    LIQUIDATION_NEAR = "LIQUIDATION_NEAR"
    SIGNALS_EXPIRED = "SIGNALS_EXPIRED"
    SYSTEM_MODE = "SYSTEM_MODE"
    EMERGENCY_STOP = "EMERGENCY_STOP"
    OPERATOR = "OPERATOR"


#: How each cause ends.
ENDINGS: Mapping[TradingCause, Ends] = MappingProxyType(
    {
        TradingCause.DAILY_DRAWDOWN: Ends.NEXT_MARKET_DAY,
        TradingCause.EMERGENCY_DRAWDOWN: Ends.BY_A_PERSON,
        TradingCause.CONSECUTIVE_LOSSES: Ends.BY_A_PERSON,
        TradingCause.REJECT_STORM: Ends.WITH_ITS_CAUSE,
        TradingCause.UNKNOWN_OUTCOMES: Ends.WITH_ITS_CAUSE,
        TradingCause.STALE_DATA: Ends.WITH_ITS_CAUSE,
        TradingCause.USER_STREAM_LOST: Ends.WITH_ITS_CAUSE,
        TradingCause.POSITION_MISMATCH: Ends.BY_A_PERSON,
        TradingCause.CLOCK_SKEW: Ends.WITH_ITS_CAUSE,
        TradingCause.EXCHANGE_BAN: Ends.WITH_ITS_CAUSE,
        TradingCause.ACCOUNT_TERMS: Ends.WITH_ITS_CAUSE,
        TradingCause.FOREIGN_EXECUTOR: Ends.BY_A_PERSON,
        TradingCause.LIQUIDATION_NEAR: Ends.WITH_ITS_CAUSE,
        TradingCause.SIGNALS_EXPIRED: Ends.WITH_ITS_CAUSE,
        TradingCause.SYSTEM_MODE: Ends.WITH_ITS_CAUSE,
        TradingCause.EMERGENCY_STOP: Ends.BY_A_PERSON,
        TradingCause.OPERATOR: Ends.BY_A_PERSON,
    }
)


@dataclass(frozen=True, slots=True)
class Restriction:
    """One cause that keeps entries back.

    Attributes:
        cause: Which.
        reason: One line with the numbers.
        changed_by: Rule or person.
        since: Wall time.
        day: UTC day of market time at that moment; None before the first price.
    """

    cause: TradingCause
    reason: str
    changed_by: str
    since: datetime
    day: date | None = None

    @property
    def ends(self) -> Ends:
        return ENDINGS[self.cause]


@dataclass(frozen=True, slots=True)
class EmergencyStop:
    """An order to end all exposure: in force until a person resumes trading.

    Attributes:
        stop_id: Names it in the journal, in the latch file and in the ids of its orders.
        reason: Why.
        requested_by: Person or rule.
        since: Wall time.
        verified_at: Wall time at which the exchange showed neither position nor order; None before.
    """

    stop_id: str
    reason: str
    requested_by: str
    since: datetime
    verified_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class TradingStatus:
    """The state of trading and what it rests on.

    Attributes:
        state: What may be sent.
        reason: Why it is so, one line; empty while nothing ever changed it.
        changed_by: Rule or person behind the last change.
        since: Wall time of the last change; None before the first.
        restrictions: What keeps entries back now, oldest first.
        stop: Emergency stop in force.
        ended_stop: Id of the last emergency stop that a person ended.
        losses_in_a_row: Losing positions since the last winning one, or since a person resumed.
        rejections: Wall times of the newest definitive refusals of the exchange.
    """

    state: TradingState = TradingState.ACTIVE
    reason: str = ""
    changed_by: str = ""
    since: datetime | None = None
    restrictions: tuple[Restriction, ...] = ()
    stop: EmergencyStop | None = None
    ended_stop: str = ""
    losses_in_a_row: int = 0
    rejections: tuple[datetime, ...] = ()

    @property
    def denial(self) -> str | None:
        """Why an order that adds exposure may not be sent; None when it may."""
        if self.state is TradingState.ACTIVE:
            return None
        return f"trading is {self.state.value}, {_MEANING[self.state.value]}: {self.reason}"

    def restriction(self, cause: TradingCause) -> Restriction | None:
        """Return what ``cause`` keeps back now."""
        return next((one for one in self.restrictions if one.cause is cause), None)

    # -- changes -------------------------------------------------------------------------------------------------------

    def restricted(self, restriction: Restriction, *, halt: bool = False) -> TradingStatus:
        """Return the status with one more cause; a cause that is in force already changes nothing but to halt."""
        known = self.restriction(restriction.cause) is not None
        state = TRADING_STATES.next_state(self.state, Move.HALT if halt else Move.RESTRICT)
        if known and state is self.state:
            return self
        causes = self.restrictions if known else (*self.restrictions, restriction)
        if state is self.state:  # another cause explains the state already
            return replace(self, restrictions=causes)
        return replace(
            self,
            state=state,
            restrictions=causes,
            reason=restriction.reason,
            changed_by=restriction.changed_by,
            since=restriction.since,
        )

    def lifted(self, cause: TradingCause, *, reason: str, changed_by: str, now: datetime) -> TradingStatus:
        """Return the status without one cause; ACTIVE when it was the last that held a REDUCING state."""
        left = tuple(one for one in self.restrictions if one.cause is not cause)
        if len(left) == len(self.restrictions):
            return self
        rest = replace(self, restrictions=left)
        if self.state is TradingState.HALTED:
            return rest
        if left:  # still REDUCING, for another reason
            return replace(rest, reason=left[0].reason, changed_by=left[0].changed_by)
        state = TRADING_STATES.next_state(self.state, Move.LIFT)
        return replace(rest, state=state, reason=reason, changed_by=changed_by, since=now)

    def resumed(self, *, reason: str, by: str, now: datetime) -> TradingStatus:
        """Return the status after a person ended what only a person ends; what is still wrong keeps it REDUCING."""
        state = TRADING_STATES.next_state(self.state, Move.RESUME)
        left = tuple(one for one in self.restrictions if one.ends is Ends.WITH_ITS_CAUSE)
        if left:
            state = TRADING_STATES.next_state(state, Move.RESTRICT)
            reason = f"{reason}; still: {left[0].reason}"
        return TradingStatus(
            state=state,
            reason=reason,
            changed_by=by,
            since=now,
            restrictions=left,
            ended_stop=self.stop.stop_id if self.stop is not None else self.ended_stop,
        )
