"""The folder of one embedded server: reachable for its user, used by one process at a time."""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from infrastructure.embedded.account import Account, can_enter
from shared.errors import ConfigurationError

#: Where a server's folder goes when root runs the project out of a folder that nobody else may enter.
_SYSTEM_STATE = Path("/var/lib/quantum-trader")
_ORIGIN = "origin"
_LOCK = ".lock"


class Place:
    """Folder and lock of one server.

    Attributes:
        path: The folder; ``directory`` itself, or a stand-in where ``account`` can reach it.
        data: The server's own folder inside, which belongs to ``account``.
    """

    def __init__(self, directory: Path, account: Account | None, stand_ins: Path = _SYSTEM_STATE) -> None:
        self._account = account
        self._lock: int | None = None
        self._wanted = directory.absolute()
        self.path = self._reachable(stand_ins)
        self.data = self.path / "data"

    def acquire(self) -> None:
        """Take the folder for this process; the kernel gives it back when the process ends in any way.

        Raises:
            ConfigurationError: Another living process has it.
        """
        if self._lock is not None:
            return
        lock = os.open(self.path / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            raise ConfigurationError(
                f"{self._wanted} is in use by another running process; stop that one, or choose another state folder"
            ) from None
        self._lock = lock

    def release(self) -> None:
        """Give the folder back."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def make_data(self, name: str = "data") -> Path:
        """Create (when missing) a folder that only the server's user can read."""
        folder = self.path / name
        folder.mkdir(mode=0o700, exist_ok=True)
        if self._account:
            os.chown(folder, self._account.uid, self._account.gid)
        folder.chmod(0o700)
        return folder

    def secret(self, name: str) -> str:
        """Return the secret of that name, made at the first call; only we can read its file."""
        file = self.path / name
        with suppress(FileNotFoundError):
            if stored := file.read_text(encoding="utf-8").strip():
                return stored
        value = secrets.token_hex(24)
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as opened:
            opened.write(value)
            opened.flush()
            os.fsync(opened.fileno())
        return value

    def _reachable(self, stand_ins: Path) -> Path:
        missing = [folder for folder in (self._wanted, *self._wanted.parents) if not folder.exists()]
        self._wanted.mkdir(parents=True, exist_ok=True)
        for folder in missing:
            # Ours, so we may open the way through it, whatever the umask says; not to list what is inside.
            folder.chmod(0o711 if self._account else 0o700)
        if can_enter(self._wanted, self._account):
            return self._wanted
        return self._stand_in(stand_ins)

    def _stand_in(self, stand_ins: Path) -> Path:
        """Return a folder elsewhere that always stands for this one.

        Opening the way to the wanted folder would mean to widen the rights of folders that are not ours.
        """
        root = _make_root(stand_ins)
        _remove_orphans(root)
        folder = root / hashlib.sha256(str(self._wanted).encode()).hexdigest()[:16]
        folder.mkdir(mode=0o711, exist_ok=True)
        folder.chmod(0o711)
        if not (folder / _ORIGIN).exists():
            (folder / _ORIGIN).write_text(str(self._wanted), encoding="utf-8")
        return folder


def _make_root(stand_ins: Path) -> Path:
    try:
        stand_ins.mkdir(mode=0o711, parents=True, exist_ok=True)
    except OSError:
        stand_ins = Path(tempfile.gettempdir()) / "quantum-trader"
        stand_ins.mkdir(mode=0o711, exist_ok=True)
    status = stand_ins.lstat()
    if stand_ins.is_symlink() or status.st_uid != os.geteuid():
        raise ConfigurationError(f"{stand_ins} belongs to another user; remove it, or set REDIS_URL and POSTGRES_URL")
    stand_ins.chmod(0o711)
    return stand_ins


def _remove_orphans(root: Path) -> None:
    """Delete stand-ins whose folder is gone: its owner deleted the state, and cannot know of the copy."""
    for folder in root.iterdir():
        with suppress(OSError):
            if not Path((folder / _ORIGIN).read_text(encoding="utf-8")).exists():
                shutil.rmtree(folder)
