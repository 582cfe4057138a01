"""What a process has of memory, files and disk, and when it is told that one of them runs short."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import asdict, replace
from pathlib import Path

import psutil
import pytest

from shared.clock import SystemClock
from shared.health.checks import HealthMonitor
from shared.health.contract import HealthStatus
from shared.health.resources import (
    MemoryRoom,
    ResourceFigures,
    Resources,
    memory_room,
    resource_check,
    resource_health,
)
from shared.service import Service
from tests.support.eventually import eventually

PLENTY = ResourceFigures(
    memory_used_mb=200.0,
    memory_percent=20.0,
    memory_limit_mb=1000.0,
    memory_in_use_percent=85.0,
    cpu_percent=3.0,
    threads=5,
    open_files=30,
    open_files_percent=3.0,
    disk_free_mb=2048.0,
    disk_free_percent=10.0,
)


@pytest.mark.parametrize(
    ("figures", "error"),
    [
        (PLENTY, None),
        (replace(PLENTY, cpu_percent=400.0), None),
        (replace(PLENTY, memory_in_use_percent=85.1), "memory is 85.1 % full of 1000 MiB"),
        (replace(PLENTY, open_files_percent=86.0), "30 files are open, 86 % of what is allowed"),
        (replace(PLENTY, disk_free_percent=9.9), "the disk of the state folder has 2048 MiB left, 9.9 % of it"),
        (replace(PLENTY, disk_free_mb=1023.0), "the disk of the state folder has 1023 MiB left, 10 % of it"),
    ],
)
def test_what_runs_short_degrades(figures: ResourceFigures, error: str | None) -> None:
    found = resource_health(figures)

    assert found.status is (HealthStatus.DEGRADED if error else HealthStatus.OK)
    assert found.error == error
    assert found.details == asdict(figures)


def test_everything_that_is_short_is_told() -> None:
    found = resource_health(replace(PLENTY, memory_in_use_percent=99.0, disk_free_mb=1.0))

    assert found.error == ("memory is 99 % full of 1000 MiB; the disk of the state folder has 1 MiB left, 10 % of it")


def test_the_figures_of_this_process_are_plausible(tmp_path: Path) -> None:
    resources = Resources(tmp_path / "not" / "made" / "yet")

    with (tmp_path / "one").open("w"), (tmp_path / "two").open("w"):
        more = resources.figures()
    figures = resources.figures()

    assert more.open_files >= figures.open_files + 2
    assert 1 < figures.memory_used_mb < figures.memory_limit_mb
    assert 0 < figures.memory_percent <= 100
    assert 0 < figures.memory_in_use_percent <= 100
    assert figures.threads >= 1
    assert 0 < figures.open_files_percent <= 100
    assert 0 <= figures.disk_free_percent <= 100


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def test_the_tightest_group_of_version_2_counts_without_what_the_kernel_can_take_back(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "proc/self/cgroup": "0::/desk/exec\n",
            "sys/fs/cgroup/desk/memory.max": "4000000\n",
            "sys/fs/cgroup/desk/memory.current": "3000000\n",
            "sys/fs/cgroup/desk/memory.stat": "anon 1\ninactive_file 500000\nactive_file 7\n",
            "sys/fs/cgroup/desk/exec/memory.max": "max\n",
            "sys/fs/cgroup/desk/exec/memory.current": "1000000\n",
        },
    )

    assert memory_room(tmp_path) == MemoryRoom(limit=4_000_000, in_use=2_500_000)


def test_a_group_of_version_1_counts_even_when_its_path_is_the_one_of_the_host(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "proc/self/cgroup": "9:name=systemd:/\n4:cpu,memory:/docker/abc\n0::/\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "2000000\n",
            "sys/fs/cgroup/memory/memory.usage_in_bytes": "1500000\n",
            "sys/fs/cgroup/memory/memory.stat": "cache 9\ntotal_inactive_file 100000\n",
        },
    )

    assert memory_room(tmp_path) == MemoryRoom(limit=2_000_000, in_use=1_400_000)


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "max\n"},
        {
            "proc/self/cgroup": "4:memory:/\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",  # what version 1 says for no limit
        },
    ],
)
def test_without_a_limit_the_machine_is_the_limit(tmp_path: Path, files: dict[str, str]) -> None:
    write(tmp_path, files)

    assert memory_room(tmp_path).limit == psutil.virtual_memory().total


class HangingDisk(Resources):
    """Resources whose disk does not answer until it is released."""

    def __init__(self, state_dir: Path) -> None:
        super().__init__(state_dir)
        self.answers = threading.Event()
        self.looks = 0

    def figures(self) -> ResourceFigures:
        self.looks += 1
        self.answers.wait()
        return PLENTY


async def test_a_disk_that_hangs_holds_neither_the_loop_nor_more_than_one_thread(tmp_path: Path) -> None:
    disk = HangingDisk(tmp_path)
    monitor = HealthMonitor(
        {"system": resource_check(disk)}, clock=SystemClock(), recheck_seconds=0.001, timeout_seconds=0.01
    )
    service = Service("desk", [])
    await service.start()

    def status() -> HealthStatus:
        return monitor.report(service).dependencies["system"].status

    await monitor.start()
    await eventually(lambda: status() is HealthStatus.DOWN)
    assert monitor.report(service).status is HealthStatus.DEGRADED
    for _ in range(3):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await disk.health()
    assert disk.looks == 1

    disk.answers.set()
    await eventually(lambda: status() is HealthStatus.OK)
    await monitor.stop()
