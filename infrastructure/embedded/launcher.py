"""Run as a script: become an unprivileged user, tie this life to the parent's, then become the server.

``python -I -S launcher.py PARENT UID GID SIGNAL PROGRAM ARGUMENT...`` with UID -1 to stay who we are. It is a program
of its own because Python code between fork and exec can deadlock when the parent has threads. It imports nothing of
the project, so that it starts in milliseconds.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def become(parent: int, uid: int, gid: int, death_signal: int, command: list[str]) -> None:
    """Replace this process by ``command``; returns only with an exception."""
    os.umask(0o077)
    if uid >= 0:
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    # After the change of user, which clears the setting.
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, death_signal, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    # A parent that died before the call above sent no signal.
    if os.getppid() != parent:
        sys.exit(1)
    # Python ignores these two, and a program inherits what its predecessor ignored.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    os.execv(command[0], command)  # noqa: S606 - the argument list comes from the code beside this file


if __name__ == "__main__":
    try:
        become(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), sys.argv[5:])
    except OSError as error:
        sys.exit(f"cannot start {sys.argv[5]}: {error}")
