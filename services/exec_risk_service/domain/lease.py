"""Who may act on an account: the lease, the one who holds it, and when another may take it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

#: Nobody holds the account.
NOBODY = ""


@dataclass(frozen=True, slots=True)
class Holder:
    """One process, named so that its neighbours on the same machine can tell whether it is still alive.

    Attributes:
        host: Name of the machine, for people.
        boot: Which start of that machine; empty where the system does not tell.
        namespace: In which space its process id counts; a container has its own. Empty likewise.
        pid: Process id.
        started: When the process began, in ticks since the boot: a process id alone may belong to someone else by now.
    """

    host: str
    boot: str
    namespace: str
    pid: int
    started: int

    def as_text(self) -> str:
        """Return the name as it is stored."""
        return json.dumps(asdict(self), sort_keys=True)

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


def holder_of(text: str) -> Holder | None:
    """Return the process that ``text`` names; None when it was written by something else."""
    try:
        fields = json.loads(text)
        return Holder(
            host=str(fields["host"]),
            boot=str(fields["boot"]),
            namespace=str(fields["namespace"]),
            pid=int(fields["pid"]),
            started=int(fields["started"]),
        )
    except (ValueError, TypeError, KeyError):
        return None


@dataclass(frozen=True, slots=True)
class LeaseRecord:
    """What the store knows about one account, by the store's own clock.

    Attributes:
        epoch: One higher with each process that takes the account over.
        holder: Who has it, ``NOBODY`` when no one does.
        version: One higher with each change of the lease, renewals included.
        overdue_seconds: Seconds since it ran out; negative while it lasts.
    """

    epoch: int
    holder: str
    version: int
    overdue_seconds: float


def may_be_taken(record: LeaseRecord, *, holder: str, is_proven_dead: bool, grace_seconds: float) -> bool:
    """Tell whether ``holder`` may take the account.

    A holder whose death is proven has no request on its way that it could still send; any other is waited out, and
    longer than its lease: what it sent last may reach the exchange late, and may show there later still.

    Args:
        record: What the store says.
        holder: Who asks.
        is_proven_dead: The present holder is known to have ended.
        grace_seconds: Wait after a lease that ran out.
    """
    if record.holder in (NOBODY, holder) or is_proven_dead:
        return True
    return record.overdue_seconds >= grace_seconds
