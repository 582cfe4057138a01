"""The floor under the disk buffer: the same bytes written to a file and forced to the disk, nothing else."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from infrastructure.bench.cue import Cue, seconds_now
from infrastructure.bench.ours.disk_buffer import buffered_entries, duration_figures


def append(cue: Cue) -> dict[str, Any]:
    """Append one entry after the other, each forced to the disk before the next."""
    entries = buffered_entries()
    descriptor = os.open(Path(cue.options["folder"]) / "bare", os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    cue.wait_for_start()
    times: list[float] = []
    began = seconds_now()
    while seconds_now() < began + cue.options["seconds"]:
        fields = next(entries).fields
        start = seconds_now()
        os.write(descriptor, b"".join([*fields.keys(), *fields.values()]))
        os.fdatasync(descriptor)
        times.append(seconds_now() - start)
    os.close(descriptor)
    return duration_figures(times)
