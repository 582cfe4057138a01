"""Shows how far a training is: a bar for people, lines of JSON for the service."""

from __future__ import annotations

import sys
from typing import Protocol, TextIO

from services.ai_service.adapters.training_process import WorkerLine
from services.ai_service.ports import TrainingProgress, TrainingResult


class ProgressView(Protocol):
    """Told of everything that a training has to say."""

    def progress(self, progress: TrainingProgress) -> None:
        """Show how far it is."""
        ...

    def finished(self, result: TrainingResult) -> None:
        """Show what it made."""
        ...

    def failed(self, message: str, *, hopeless: bool) -> None:
        """Show why it ended; ``hopeless`` when trying again cannot help."""
        ...


def view_for(stream: TextIO, *, json_lines: bool) -> ProgressView:
    """Return JSON lines on stdout, a moving bar when ``stream`` is a terminal and Rich is there, else plain lines."""
    if json_lines:
        return JsonProgress()
    if stream.isatty():
        try:
            return BarProgress()
        except ImportError:  # an image of this service alone carries no Rich
            pass
    return PlainProgress(stream)


class JsonProgress:
    """One ``WorkerLine`` per line on stdout."""

    def progress(self, progress: TrainingProgress) -> None:
        self._write(WorkerLine(kind="progress", stage=progress.stage, progress_pct=progress.progress_pct))

    def finished(self, result: TrainingResult) -> None:
        self._write(
            WorkerLine(
                kind="result",
                version=result.version,
                samples=result.samples,
                accuracy=result.accuracy,
                seconds=result.seconds,
            )
        )

    def failed(self, message: str, *, hopeless: bool) -> None:
        self._write(WorkerLine(kind="error", message=message, hopeless=hopeless))

    def _write(self, line: WorkerLine) -> None:
        sys.stdout.write(line.model_dump_json(exclude_defaults=True) + "\n")
        sys.stdout.flush()


class PlainProgress:
    """One line per tenth of the work."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._tenth = -1

    def progress(self, progress: TrainingProgress) -> None:
        if int(progress.progress_pct // 10) > self._tenth:
            self._tenth = int(progress.progress_pct // 10)
            self._say(f"training {progress.progress_pct:3.0f} %  {progress.stage}")

    def finished(self, result: TrainingResult) -> None:
        self._say(_summary(result))

    def failed(self, message: str, *, hopeless: bool) -> None:
        self._say(f"error: {message}" if hopeless else f"error: {message}; trying again may help")

    def _say(self, line: str) -> None:
        self._stream.write(line + "\n")
        self._stream.flush()


class BarProgress:
    """A moving bar on stderr."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import Progress

        self._bar = Progress(console=Console(stderr=True))
        self._task = self._bar.add_task("training", total=100.0)
        self._bar.start()

    def progress(self, progress: TrainingProgress) -> None:
        self._bar.update(self._task, completed=progress.progress_pct, description=progress.stage)

    def finished(self, result: TrainingResult) -> None:
        self._bar.stop()
        self._bar.console.print(_summary(result))

    def failed(self, message: str, *, hopeless: bool) -> None:
        self._bar.stop()
        self._bar.console.print(f"error: {message}" if hopeless else f"error: {message}; trying again may help")


def _summary(result: TrainingResult) -> str:
    return (
        f"model {result.version}: {result.samples} rows, {100 * result.accuracy:.1f} % of held-out directions right, "
        f"{result.seconds:.0f} s"
    )
