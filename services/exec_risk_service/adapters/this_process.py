"""The name of this process as holder of an account, and the proof that another one has ended."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from services.exec_risk_service.domain.lease import Holder, holder_of

_PROC = Path("/proc")
#: State letters of a process that runs no more, though its entry is still there.
_ENDED = frozenset({"Z", "X", "x"})


def this_process() -> Holder:
    """Return the name of this process."""
    return Holder(
        host=socket.gethostname(),
        boot=_boot_id(),
        namespace=_pid_namespace(),
        pid=os.getpid(),
        started=_state_and_start(os.getpid())[1],
    )


def is_proven_dead(text: str) -> bool:
    """Tell whether the holder named by ``text`` has ended for certain; a stranger's fate is never certain.

    Only a process of the same boot and the same space of process ids can be judged, and only by the system itself.
    """
    holder, me = holder_of(text), this_process()
    if holder is None or not holder.boot or not holder.namespace:
        return False
    if (holder.host, holder.boot, holder.namespace) != (me.host, me.boot, me.namespace):
        return False
    try:
        os.kill(holder.pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False  # it exists, and belongs to another user
    state, started = _state_and_start(holder.pid)
    if not started:
        return False  # it cannot be looked at
    return state in _ENDED or started != holder.started


def _state_and_start(pid: int) -> tuple[str, int]:
    """Return state letter and start of a process in ticks since the boot; ``("", 0)`` where that cannot be read."""
    try:
        text = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "", 0
    fields = text.rpartition(")")[2].split()  # the name before it may hold anything
    return fields[0], int(fields[19])


def _boot_id() -> str:
    try:
        return (_PROC / "sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _pid_namespace() -> str:
    try:
        return str((_PROC / "self/ns/pid").readlink())
    except OSError:
        return ""
