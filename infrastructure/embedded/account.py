"""Who the servers run as, and what that user can reach."""

from __future__ import annotations

import os
import pwd
import stat
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Account:
    """A user of the operating system."""

    uid: int
    gid: int


def unprivileged_account() -> Account | None:
    """Return the account for servers when this process is root; None when it is not, and they run as ourselves."""
    if os.geteuid() != 0:
        return None
    try:
        entry = pwd.getpwnam("nobody")
    except KeyError:
        return Account(65534, 65534)
    return Account(entry.pw_uid, entry.pw_gid)


def can_enter(directory: Path, account: Account | None) -> bool:
    """Tell whether ``account`` can reach what lies in ``directory``: every folder on the way lets it pass."""
    if account is None:
        return True
    resolved = directory.resolve()
    return all(_allows(folder, account, stat.S_IXOTH) for folder in (resolved, *resolved.parents))


def can_run(program: Path, account: Account | None) -> bool:
    """Tell whether ``account`` can read and execute ``program``."""
    if account is None:
        return True
    resolved = program.resolve()
    return can_enter(resolved.parent, account) and _allows(resolved, account, stat.S_IXOTH | stat.S_IROTH)


def _allows(path: Path, account: Account, wanted: int) -> bool:
    """Tell whether the mode bits that apply to ``account`` hold ``wanted``, given as bits for others."""
    status = path.stat()
    if status.st_uid == account.uid:
        wanted <<= 6
    elif status.st_gid == account.gid:
        wanted <<= 3
    return status.st_mode & wanted == wanted
