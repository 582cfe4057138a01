"""How much of a stream may go: never what a group has not settled. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

#: Higher than any entry id: nobody reads the stream, so nobody is waited for.
_LAST_ID = f"{2**63}-0"


@dataclass(frozen=True, slots=True)
class StreamState:
    """How full a stream is, and how far its readers are.

    Attributes:
        stream: Full name.
        length: Entries in it.
        floors: Per group, the id of the oldest entry that it has not settled; what is older nobody needs.
    """

    stream: str
    length: int
    floors: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class TrimRule:
    """How long streams may become.

    Attributes:
        target: Entries that stay for services which start later, and for looking back.
        hard_cap: Length at which a person must be told that a group does not keep up.
    """

    target: int = 10_000
    hard_cap: int = 200_000


@dataclass(frozen=True, slots=True)
class Trim:
    """What to drop.

    Attributes:
        stream: From where.
        below: Only entries with lower ids.
        at_most: No more than so many of the oldest.
    """

    stream: str
    below: str
    at_most: int


@dataclass(frozen=True, slots=True)
class Overfull:
    """A stream beyond its cap.

    Attributes:
        stream: Which one.
        length: Entries in it.
        group: The service that is furthest behind; None when nobody reads it.
    """

    stream: str
    length: int
    group: str | None


def entry_order(entry_id: str) -> tuple[int, int]:
    """Return what entry ids are ordered by."""
    milliseconds, _, count = entry_id.partition("-")
    return int(milliseconds), int(count or 0)


def trim_of(state: StreamState, rule: TrimRule) -> Trim | None:
    """Return what may go now; None when the stream is short enough or everything is still needed."""
    surplus = state.length - rule.target
    if surplus <= 0:
        return None
    return Trim(state.stream, min(state.floors.values(), key=entry_order, default=_LAST_ID), surplus)


def overfull(state: StreamState, rule: TrimRule) -> Overfull | None:
    """Tell whether the stream is beyond its cap, and who holds it up."""
    if state.length <= rule.hard_cap:
        return None
    slowest = min(state.floors, key=lambda group: entry_order(state.floors[group]), default=None)
    return Overfull(state.stream, state.length, slowest)
