"""A program for supervisor tests: notes its life in a journal, says when it is ready, ends as it is told to.

It imports nothing outside the standard library, so that it starts in milliseconds.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path


def main(name: str, folder: Path, behaviour: str) -> int:
    """Behave as asked:

    ``serve`` until SIGTERM; ``misconfigured`` exits with 4; ``crash`` exits with 1; ``hang`` never gets ready;
    ``stubborn`` ignores SIGTERM; ``parent`` starts a child of its own and notes its pid; ``crash-once`` dies at the
    first launch only.
    """
    asked_to_stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: None if behaviour == "stubborn" else asked_to_stop.set())
    if behaviour == "misconfigured":
        sys.stderr.write('{"event": "start_failed", "error": "QT_SPEED=\'fast\' is no number"}\n')
        return 4
    if behaviour == "crash":
        sys.stderr.write("out of luck\n")
        return 1
    first_launch = not (folder / f"{name}.launched").exists()
    (folder / f"{name}.launched").touch()
    if behaviour == "crash-once" and first_launch:
        return 1
    if behaviour == "parent":
        child = subprocess.Popen([sys.executable, "-S", "-c", "import signal; signal.pause()"])
        (folder / f"{name}.child").write_text(str(child.pid))
    if behaviour != "hang":
        note(folder, f"ready {name}")
        (folder / f"{name}.ready").touch()
    asked_to_stop.wait()
    (folder / f"{name}.ready").unlink(missing_ok=True)
    note(folder, f"stopped {name}")
    return 0


def note(folder: Path, line: str) -> None:
    """Append one line; short appends of several processes do not mix."""
    with (folder / "journal").open("a") as journal:
        journal.write(line + "\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2]), sys.argv[3]))
