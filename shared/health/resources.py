"""What this process has of memory, processor, files and disk, and when one of them runs short."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import psutil

from shared.health.checks import DependencyCheck
from shared.health.contract import DependencyHealth, HealthStatus

#: Above this share memory, or the number of open files, is short.
FULL_PERCENT = 85.0
#: Below either of these the disk is short.
DISK_LOW_PERCENT = 10.0
DISK_LOW_BYTES = 1024**3
_MEBIBYTE = 1024**2

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ResourceFigures:
    """What was found at one moment.

    Attributes:
        memory_used_mb: Resident memory of this process, MiB.
        memory_percent: The same as a share of ``memory_limit_mb``.
        memory_limit_mb: What the container may use, else what the machine has, MiB.
        memory_in_use_percent: Share of the limit that is in use by all processes under it: what ends in a kill.
        cpu_percent: Processor use of this process since the last look, percent of one core.
        threads: Threads of this process.
        open_files: File descriptors of this process.
        open_files_percent: The same as a share of what it may open.
        disk_free_mb: Room on the disk of the state folder, MiB.
        disk_free_percent: The same as a share of the disk.
    """

    memory_used_mb: float
    memory_percent: float
    memory_limit_mb: float
    memory_in_use_percent: float
    cpu_percent: float
    threads: int
    open_files: int
    open_files_percent: float
    disk_free_mb: float
    disk_free_percent: float


@dataclass(frozen=True, slots=True)
class MemoryRoom:
    """Memory that a group of processes shares: the machine, or a control group.

    Attributes:
        limit: Bytes that they may use together.
        in_use: Bytes that they use and the kernel cannot take back.
    """

    limit: int
    in_use: int


class Resources:
    """Looks at this process, its container and the disk of its state folder.

    The look is taken in a thread of its own: a disk that hangs must not hold the event loop. While one look hangs, no
    other is begun.
    """

    def __init__(self, state_dir: Path, *, root: Path = Path("/")) -> None:
        """Prepare, without looking.

        Args:
            state_dir: Folder of what the service keeps; need not exist yet.
            root: Where ``proc`` and ``sys`` are.
        """
        self._state_dir = state_dir.absolute()
        self._root = root
        self._process = psutil.Process()
        self._process.cpu_percent()  # the first call only sets the mark that the next one measures from
        self._look: Future[ResourceFigures] | None = None

    async def health(self) -> DependencyHealth:
        """Return the figures, DEGRADED when something is short."""
        if self._look is None or self._look.done():
            self._look = _in_own_thread(self.figures)
        return resource_health(await asyncio.wrap_future(self._look))

    def figures(self) -> ResourceFigures:
        """Take a look; waits for the disk."""
        room = memory_room(self._root)
        rss = self._process.memory_info().rss
        open_files = self._process.num_fds()
        may_open = self._process.rlimit(psutil.RLIMIT_NOFILE)[0]
        disk = psutil.disk_usage(str(_existing(self._state_dir)))
        return ResourceFigures(
            memory_used_mb=round(rss / _MEBIBYTE, 1),
            memory_percent=_percent(rss, room.limit),
            memory_limit_mb=round(room.limit / _MEBIBYTE, 1),
            memory_in_use_percent=_percent(room.in_use, room.limit),
            cpu_percent=self._process.cpu_percent(),
            threads=self._process.num_threads(),
            open_files=open_files,
            open_files_percent=0.0 if may_open == psutil.RLIM_INFINITY else _percent(open_files, may_open),
            disk_free_mb=round(disk.free / _MEBIBYTE, 1),
            disk_free_percent=_percent(disk.free, disk.used + disk.free),
        )


def resource_check(resources: Resources) -> DependencyCheck:
    """Return the check of this process's own resources; what runs short is a warning, never an outage."""
    return DependencyCheck(resources.health, is_critical=False)


def resource_health(figures: ResourceFigures) -> DependencyHealth:
    """Return the figures, DEGRADED with the reason when something is short."""
    short = list(_what_is_short(figures))
    return DependencyHealth(
        status=HealthStatus.DEGRADED if short else HealthStatus.OK,
        error="; ".join(short) or None,
        details=asdict(figures),
    )


def _what_is_short(figures: ResourceFigures) -> Iterator[str]:
    if figures.memory_in_use_percent > FULL_PERCENT:
        yield f"memory is {figures.memory_in_use_percent:g} % full of {figures.memory_limit_mb:g} MiB"
    if figures.open_files_percent > FULL_PERCENT:
        yield f"{figures.open_files} files are open, {figures.open_files_percent:g} % of what is allowed"
    if figures.disk_free_percent < DISK_LOW_PERCENT or figures.disk_free_mb < DISK_LOW_BYTES / _MEBIBYTE:
        yield (
            f"the disk of the state folder has {figures.disk_free_mb:g} MiB left, {figures.disk_free_percent:g} % of it"
        )


def memory_room(root: Path = Path("/")) -> MemoryRoom:
    """Return the memory that this process can have: the tightest control group around it, else the machine.

    Args:
        root: Where ``proc`` and ``sys`` are.
    """
    machine = psutil.virtual_memory()
    return min(
        [MemoryRoom(machine.total, machine.total - machine.available), *_control_groups(root)],
        key=lambda room: room.limit,
    )


def _control_groups(root: Path) -> Iterator[MemoryRoom]:
    """Yield every control group around this process that limits its memory, version 1 or 2."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            yield from _groups_up(root / "sys/fs/cgroup", path, "memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            yield from _groups_up(
                root / "sys/fs/cgroup/memory",
                path,
                "memory.limit_in_bytes",
                "memory.usage_in_bytes",
                "total_inactive_file",
            )


def _groups_up(top: Path, path: str, limit: str, in_use: str, reclaimable: str) -> Iterator[MemoryRoom]:
    """Yield the limited groups from ``path`` up to ``top``: a parent's limit holds for its children, too.

    Inside a container the path may be the one that the host sees; then only ``top`` is there.
    """
    group = top / path.lstrip("/")
    while group.is_relative_to(top):
        if (bytes_limit := _number(group / limit)) is not None:
            cache = _field(group / "memory.stat", reclaimable)
            yield MemoryRoom(bytes_limit, max(0, (_number(group / in_use) or 0) - cache))
        group = group.parent


def _number(path: Path) -> int | None:
    """Return the number in a file; None when there is no such file or it says ``max``."""
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def _field(path: Path, name: str) -> int:
    """Return the number beside ``name`` in a file of such pairs, 0 when there is none."""
    try:
        pairs = (line.split() for line in path.read_text().splitlines())
        return next((int(pair[1]) for pair in pairs if pair[0] == name), 0)
    except OSError:
        return 0


def _existing(folder: Path) -> Path:
    return next(place for place in (folder, *folder.parents) if place.exists())


def _percent(part: float, whole: float) -> float:
    return round(100.0 * part / whole, 2) if whole else 0.0


def _in_own_thread(work: Callable[[], T]) -> Future[T]:
    """Run ``work`` in a thread that nobody waits for at the end of the process."""
    done: Future[T] = Future()
    done.set_running_or_notify_cancel()  # from now on whoever stops waiting for it cannot cancel it

    def run() -> None:
        try:
            done.set_result(work())
        except BaseException as error:  # noqa: BLE001 - it belongs to whoever waits
            done.set_exception(error)

    threading.Thread(target=run, name="resources", daemon=True).start()
    return done
