"""Faults that a test can switch on: the literal table of kinds, and the armed ones with their conditions.

A fault strikes on an occasion of its kind (an order request, a look-up, a user event, ...). Conditions narrow it down:
``start`` seconds after arming, not before ``after`` fitting occasions have passed, only for a path, a symbol or a
client id prefix, with a probability. Occasions and draws come in a fixed order, so a seed and a script repeat a run.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from types import MappingProxyType

from infrastructure.paper_exchange.refusals import REFUSALS
from shared.errors import InvalidInputError


class Occasion(StrEnum):
    """What a fault waits for."""

    ORDER = "ORDER"  # a request that places or changes orders; any other request when path or method names it
    LOOKUP = "LOOKUP"  # GET of one order or one conditional order
    MARKET_REQUEST = "MARKET_REQUEST"  # GET of market data
    REQUEST = "REQUEST"  # any request
    USER_EVENT = "USER_EVENT"  # one message of the user stream
    MARKET_MESSAGE = "MARKET_MESSAGE"  # one message of a market stream
    TRIGGER = "TRIGGER"  # a conditional order whose price is reached
    ACT = "ACT"  # nothing: it happens by itself, or right after a request when a condition names requests


@dataclass(frozen=True, slots=True)
class FaultKind:
    """One row of the table.

    Attributes:
        occasion: What it waits for.
        text: What it does, and which fields it reads.
        values: What ``value`` may be, the first one by default; empty when it may be anything.
    """

    occasion: Occasion
    text: str
    values: tuple[str, ...] = ()


_ORDER, _LOOKUP, _REQUEST = Occasion.ORDER, Occasion.LOOKUP, Occasion.REQUEST
_EVENT, _MESSAGE, _TRIGGER, _ACT = Occasion.USER_EVENT, Occasion.MARKET_MESSAGE, Occasion.TRIGGER, Occasion.ACT
_STREAMS = ("all", "user", "market")

#: Every kind. Requests first, in the order in which several of them meet one request.
FAULTS: Mapping[str, FaultKind] = MappingProxyType(
    {
        # -- the request is not executed ------------------------------------------------------------------------------
        "maintenance": FaultKind(
            _ACT, "every request is answered with HTTP `value` and no JSON for `seconds`", ("503", "504")
        ),
        "rate_limit": FaultKind(
            _ACT,
            "every request is answered with HTTP 429 and Retry-After for `seconds`; "
            "whoever asks on is banned (HTTP 418)",
        ),
        "ip_ban": FaultKind(_ACT, "every request is answered with HTTP 418 and -1003 for `seconds`"),
        "reset_before": FaultKind(_ORDER, "the TCP connection is reset, nothing was executed"),
        "late_execution": FaultKind(
            _ORDER, "the request waits `seconds` before it is executed; an order outside its recvWindow then gets -5028"
        ),
        "lose_order": FaultKind(_ORDER, "not executed; HTTP 503 'Unknown error' (execution unknown)"),
        "service_unavailable": FaultKind(_ORDER, "not executed; HTTP 503 'Service Unavailable.'"),
        "internal_error": FaultKind(
            _ORDER, "not executed; HTTP 503 'Internal error; unable to process your request. Please try again.'"
        ),
        "overload": FaultKind(
            _ORDER, "not executed; HTTP 503 with -1008; reduce-only, close-position and cancels pass, as on Binance"
        ),
        "reject_order": FaultKind(_ORDER, "not executed; refused with the code in `value`, for example -2022 or -4116"),
        # -- the request is executed ------------------------------------------------------------------------------
        "partial_fills": FaultKind(
            _ORDER, "the order fills by the share in `value` (default 0.25), with pauses of `seconds` between"
        ),
        "hide_order": FaultKind(
            _ORDER, "executed; for `seconds` the order is missing from every GET and cannot be cancelled"
        ),
        "reset_after": FaultKind(_ORDER, "executed; the TCP connection is reset instead of an answer"),
        "hold_order_answer": FaultKind(
            _ORDER,
            "executed; its HTTP answer comes `seconds` later and its user events before it; with `hold_events` "
            "they are held back as long",
        ),
        "lose_order_answer": FaultKind(_ORDER, "executed; HTTP 503 'Unknown error' (execution unknown)"),
        "status_unknown": FaultKind(
            _ORDER, "executed; HTTP 503 with the code in `value` (execution status unknown)", ("-1007", "-1006")
        ),
        "duplicate_answer": FaultKind(
            _ORDER, "executed; the answer is -4116, as when something on the way sent the order twice"
        ),
        "garble_order_answer": FaultKind(
            _ORDER, "executed; HTTP 200 with the body in `value`", ("truncated", "html", "empty")
        ),
        "slow_answer": FaultKind(_REQUEST, "executed; the answer comes `seconds` later (default 5)"),
        "wrong_answer_price": FaultKind(
            Occasion.MARKET_REQUEST,
            "the prices in a market answer (klines, depth, tickers, mark price) become wrong as those of wrong_price",
            ("nan", "zero", "negative", "spike"),
        ),
        "order_not_found": FaultKind(_LOOKUP, "the answer is -2013 although the order is there; it is found later"),
        # -- streams ----------------------------------------------------------------------------------------------
        "drop_user_event": FaultKind(_EVENT, "a user event is not sent; `event` names the type, empty means any"),
        "duplicate_user_event": FaultKind(_EVENT, "a user event is sent twice"),
        "reorder_user_event": FaultKind(
            _EVENT, "a user event comes after the next one, or after `seconds` (default 1)"
        ),
        "drop_market_message": FaultKind(
            _MESSAGE, "a market message is not sent; `event` is a part of the stream's name"
        ),
        "depth_gap": FaultKind(
            _MESSAGE, "one depth difference is not sent, so that `pu` does not fit the previous `u`"
        ),
        "wrong_price": FaultKind(
            _MESSAGE,
            "the prices of a market message become not a number, 0, negative or ten times too high; "
            "`event` is a part of the stream's name",
            ("nan", "zero", "negative", "spike"),
        ),
        # -- what happens by itself ----------------------------------------------------------------------------------
        "expire_listen_key": FaultKind(_ACT, "listenKeyExpired, after that the user stream stays open and silent"),
        "close_streams": FaultKind(_ACT, "streams end with code 1000, as after 24 hours", _STREAMS),
        "cut_streams": FaultKind(_ACT, "streams end in the middle of a frame", _STREAMS),
        "ignore_pings": FaultKind(_ACT, "pings of clients get no pong for `seconds`"),
        "legacy_silence": FaultKind(
            _ACT, "the old /ws addresses, which carry public streams only, carry nothing for `seconds`"
        ),
        "clock_offset": FaultKind(_ACT, "the exchange's clock is wrong by `value` milliseconds for `seconds`"),
        "flatten": FaultKind(
            _ACT,
            "someone else closes the position in `symbol` at market, so that the next reduce-only order gets -2022",
        ),
        "liquidate": FaultKind(_ACT, "the position in `symbol` is liquidated (client id autoclose-...)"),
        "adl": FaultKind(_ACT, "the position in `symbol` is auto-deleveraged (client id adl_autoclose)"),
        "settle_funding": FaultKind(
            _ACT, "funding of `symbol` is settled now, at the rate in `value` (default its own)"
        ),
        "funding_interval": FaultKind(
            _ACT, "funding of `symbol` is settled every `value` hours from now on (default 1)"
        ),
        "reject_triggered": FaultKind(
            _TRIGGER, "a conditional order triggers, and its market order is refused with the code in `value` (-2019)"
        ),
        "change_filters": FaultKind(
            _ACT, 'filters of `symbol` change to `value`, for example {"tick_size": "1", "min_notional": "500"}'
        ),
        "delist": FaultKind(
            _ACT, "`symbol` is no longer traded: status `value`", ("SETTLING", "CLOSE", "PENDING_TRADING", "TRADING")
        ),
        "hedge_mode": FaultKind(_ACT, "the account is in hedge mode from now on, whatever is open"),
    }
)


@dataclass(frozen=True, slots=True)
class Fault:
    """One armed fault.

    Attributes:
        kind: A key of ``FAULTS``.
        count: How many times it still strikes; 0 until it is cleared. What happens by itself happens once.
        after: How many fitting occasions pass by first.
        start: Wall seconds after arming before which nothing fits.
        probability: Of striking on a fitting occasion, drawn from the seed.
        seconds: How long something is held or lasts, wall seconds; 0 means the kind's default, or until cleared.
        method: HTTP method of the requests it strikes; empty for the kind's own.
        path: Start of their path; likewise.
        client_id: Start of the client id in them; empty for any.
        symbol: Venue symbol; empty for any.
        event: Type of the user events, or a part of the name of the market stream; empty for all.
        value: What the kind's row says.
        hold_events: Whether user events wait with the answer.
    """

    kind: str
    count: int = 1
    after: int = 0
    start: float = 0.0
    probability: float = 1.0
    seconds: float = 0.0
    method: str = ""
    path: str = ""
    client_id: str = ""
    symbol: str = ""
    event: str = ""
    value: str = ""
    hold_events: bool = False

    @property
    def names_requests(self) -> bool:
        """Whether a condition is about requests: a kind that happens by itself then waits for one."""
        return bool(self.method or self.path or self.client_id or self.after)

    def check(self) -> None:
        """Refuse what makes no sense.

        Raises:
            InvalidInputError: There is no such kind, or a field is out of range.
        """
        if self.kind not in FAULTS:
            raise InvalidInputError(f"fault {self.kind!r} is not known; use one of {', '.join(FAULTS)}")
        if self.count < 0 or self.after < 0 or self.seconds < 0 or self.start < 0:
            raise InvalidInputError(f"fault {self.kind} needs count, after, seconds and start of 0 or more")
        if not 0 <= self.probability <= 1:
            raise InvalidInputError(f"fault {self.kind}: probability is {self.probability}; it lies between 0 and 1")
        values = FAULTS[self.kind].values
        if self.value and values and self.value not in values:
            raise InvalidInputError(f"fault {self.kind}: value {self.value!r} is not one of {', '.join(values)}")
        if self.kind in _CODED and self.value and not _is_code(self.value):
            raise InvalidInputError(f"fault {self.kind}: value {self.value!r} is no code that this exchange knows")

    @property
    def chosen(self) -> str:
        """``value``, or the kind's first."""
        return self.value or next(iter(FAULTS[self.kind].values), "")


_CODED = frozenset({"reject_order", "reject_triggered"})


def _is_code(text: str) -> bool:
    return text.lstrip("-").isdigit() and int(text) in REFUSALS


@dataclass(frozen=True, slots=True)
class Scene:
    """What is happening, for the conditions of a fault to fit or not; empty is what does not apply.

    Attributes:
        client_ids: Of the orders in a request.
        symbols: In a request or message.
        is_usual: Whether the kind strikes here when no condition names a path or method.
        event: Type of a user event, or name of a market stream.
    """

    method: str = ""
    path: str = ""
    client_ids: tuple[str, ...] = ()
    symbols: tuple[str, ...] = ()
    is_usual: bool = True
    event: str = ""

    def fits(self, fault: Fault, *, is_part: bool = False) -> bool:
        """Tell whether ``fault`` may strike here; with ``is_part`` its event may be a part of the scene's."""
        if fault.method or fault.path:
            if fault.method not in ("", self.method) or not self.path.startswith(fault.path):
                return False
        elif not self.is_usual:
            return False
        if fault.client_id and not any(each.startswith(fault.client_id) for each in self.client_ids):
            return False
        if fault.symbol and self.symbols and fault.symbol not in self.symbols:
            return False
        return fault.event in self.event if is_part else fault.event in ("", self.event)


#: A scene that every unconditional fault fits.
ANYWHERE = Scene()


@dataclass(slots=True)
class _Armed:
    """A fault, since when it is armed, and how many fitting occasions it has let pass."""

    fault: Fault
    since: float
    passed: int = 0


class Faults:
    """The armed faults, oldest first, and the seed of their draws."""

    def __init__(self, seed: int = 0) -> None:
        self._armed: list[_Armed] = []
        self._random = random.Random(seed)  # noqa: S311 - draws of a test script, not secrets
        self.struck: list[str] = []

    def arm(self, fault: Fault, now: float = 0.0) -> None:
        """Add ``fault``.

        Args:
            fault: What shall happen, and when.
            now: Monotonic wall seconds; ``Fault.start`` counts from here.

        Raises:
            InvalidInputError: There is no such kind, or a field is out of range.
        """
        fault.check()
        self._armed.append(_Armed(fault, now))

    def run_script(self, script: Iterable[Fault], seed: int, now: float = 0.0) -> None:
        """Put ``script`` in place of what is armed and begin its draws with ``seed``; all or nothing."""
        faults = list(script)
        for fault in faults:
            fault.check()
        self.clear()
        self._random = random.Random(seed)  # noqa: S311 - draws of a test script, not secrets
        self._armed = [_Armed(fault, now) for fault in faults]

    def clear(self) -> None:
        self._armed.clear()
        self.struck.clear()

    def armed(self) -> tuple[Fault, ...]:
        return tuple(each.fault for each in self._armed)

    def strike(self, kind: str, scene: Scene = ANYWHERE, now: float = math.inf) -> Fault | None:
        """Return the oldest armed fault of ``kind`` that fits and count it down, or None."""
        is_part = FAULTS[kind].occasion is Occasion.MARKET_MESSAGE
        for each in self._armed:
            fault = each.fault
            if fault.kind == kind and now >= each.since + fault.start and scene.fits(fault, is_part=is_part):
                if each.passed < fault.after:
                    each.passed += 1
                elif self._draws(fault):
                    return self._used(each)
        return None

    def due_acts(self, now: float) -> list[Fault]:
        """Return what happens by itself by now, and count it down."""
        due = [
            each
            for each in self._armed
            if FAULTS[each.fault.kind].occasion is Occasion.ACT
            and not each.fault.names_requests
            and now >= each.since + each.fault.start
        ]
        for each in due:
            self._armed.remove(each)
        happening = [each.fault for each in due if self._draws(each.fault)]
        self.struck += [fault.kind for fault in happening]
        return happening

    def acts_after(self, scene: Scene, now: float) -> list[Fault]:
        """Return what happens right after the request in ``scene``, and count it down."""
        kinds = dict.fromkeys(
            each.fault.kind
            for each in self._armed
            if FAULTS[each.fault.kind].occasion is Occasion.ACT and each.fault.names_requests
        )
        struck = [self.strike(kind, scene, now) for kind in kinds]
        return [fault for fault in struck if fault is not None]

    def _draws(self, fault: Fault) -> bool:
        return fault.probability >= 1 or self._random.random() < fault.probability

    def _used(self, each: _Armed) -> Fault:
        fault = each.fault
        self.struck.append(fault.kind)
        if fault.count == 1:
            self._armed.remove(each)
        elif fault.count > 1:
            each.fault = replace(fault, count=fault.count - 1)
        return fault
