"""Runs a training in a process of its own, so that forecasts never wait for it, and relays its progress."""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Literal

import structlog
from pydantic import BaseModel, ConfigDict, ValidationError

from services.ai_service.ports import TrainingProgress, TrainingResult
from shared.errors import PermanentError, TransientError

log = structlog.get_logger(__name__)

WORKER_MODULE = "services.ai_service.training"
_GRACE_SECONDS = 5.0


class WorkerLine(BaseModel):
    """One line of JSON on the worker's stdout: progress, then one result or one error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: Literal["progress", "result", "error"]
    stage: str = ""
    progress_pct: float = 0.0
    version: str = ""
    samples: int = 0
    accuracy: float = 0.0
    seconds: float = 0.0
    message: str = ""
    hopeless: bool = False


class TrainingProcess:
    """``ModelTrainer`` that starts ``python -m services.ai_service.training`` and dies with none left behind."""

    def __init__(self, settings: Mapping[str, str], command: tuple[str, ...] = ("-m", WORKER_MODULE)) -> None:
        """Prepare.

        Args:
            settings: Environment of the worker beyond this process's own: every setting that it must share.
            command: Arguments of the Python interpreter.
        """
        self._settings = dict(settings)
        self._command = command

    async def train(self, until: datetime, report: Callable[[TrainingProgress], Awaitable[None]]) -> TrainingResult:
        """Train up to ``until``; see ``ModelTrainer.train``."""
        worker = await asyncio.create_subprocess_exec(
            sys.executable,
            *self._command,
            "--json",
            *("--until", until.isoformat()),
            *("--parent", str(os.getpid())),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=PIPE,
            env=_environment(self._settings),
        )
        log.info("training_started", pid=worker.pid, until=until.isoformat())
        try:
            return await _outcome(worker, report)
        finally:
            await _end(worker)


def _environment(settings: Mapping[str, str]) -> dict[str, str]:
    """Return this process's environment with ``settings`` over it; NAME_FILE beside NAME would be refused."""
    inherited = {name: value for name, value in os.environ.items() if name.removesuffix("_FILE") not in settings}
    return {**inherited, **settings}


async def _outcome(worker: Process, report: Callable[[TrainingProgress], Awaitable[None]]) -> TrainingResult:
    assert worker.stdout is not None
    async for raw in worker.stdout:
        try:
            line = WorkerLine.model_validate_json(raw)
        except ValidationError:
            log.warning("training_line_unreadable", line=raw.decode(errors="replace").strip()[:300])
            continue
        if line.kind == "progress":
            await report(TrainingProgress(line.stage, line.progress_pct))
        elif line.kind == "result":
            return TrainingResult(line.version, line.samples, line.accuracy, line.seconds)
        else:
            raise PermanentError(line.message) if line.hopeless else TransientError(line.message)
    raise TransientError(f"the training process ended without a result, exit code {await worker.wait()}")


async def _end(worker: Process) -> None:
    """Leave no process behind, whichever way the training ended."""
    if worker.returncode is not None:
        return
    with suppress(ProcessLookupError):
        worker.terminate()
    try:
        async with asyncio.timeout(_GRACE_SECONDS):
            await worker.wait()
    except TimeoutError:
        with suppress(ProcessLookupError):
            worker.kill()
        await worker.wait()
