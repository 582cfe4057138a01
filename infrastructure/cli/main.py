"""The ``quantum-trader`` command: names the subcommands and turns every error into one line and an exit code."""

from __future__ import annotations

import os
import sys
import tempfile
import traceback
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import typer

from infrastructure.cli import exit_codes
from infrastructure.cli.bench import bench
from infrastructure.cli.dlq import dlq_app
from infrastructure.cli.doctor import doctor
from infrastructure.cli.emergency import emergency_stop, resume
from infrastructure.cli.events import events_app
from infrastructure.cli.exchange import exchange
from infrastructure.cli.output import write_error, write_line
from infrastructure.cli.policy import policy_app
from infrastructure.cli.status import status
from infrastructure.cli.up import up
from shared.errors import QuantumTraderError

app = typer.Typer(
    name="quantum-trader",
    help="Self-hosted ML trading suite for Binance USD-M futures. Paper trading unless told otherwise.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("up")(up)
app.command("status")(status)
app.command("doctor")(doctor)
app.command("exchange")(exchange)
app.command("emergency-stop")(emergency_stop)
app.command("resume")(resume)
app.command("bench")(bench)
app.add_typer(events_app, name="events")
app.add_typer(policy_app, name="policy")
app.add_typer(dlq_app, name="dlq")
_REPLAY = "infrastructure.replay.command"
if find_spec(_REPLAY) is not None:
    app.command("replay")(import_module(_REPLAY).replay)


def _show_version(wanted: bool) -> None:
    if wanted:
        write_line(f"quantum-trader {version('quantum-trader')}")
        raise typer.Exit


@app.callback()
def _options(
    show_version: bool = typer.Option(
        False, "--version", callback=_show_version, is_eager=True, help="Print the version and exit."
    ),
) -> None:
    """Options that stand before the command."""


def run(arguments: Sequence[str]) -> int:
    """Carry out one command line and return its exit code."""
    try:
        result = app(args=list(arguments), prog_name="quantum-trader", standalone_mode=False)
        return result if isinstance(result, int) else exit_codes.OK
    except typer.TyperException as error:
        if error.format_message():
            write_error(f"{error.format_message()} (help: quantum-trader --help)")
        return exit_codes.USAGE
    except QuantumTraderError as error:
        write_error(str(error))
        return exit_codes.exit_code_for(error)
    except (KeyboardInterrupt, typer.Abort):
        return exit_codes.INTERRUPTED
    except BrokenPipeError:
        # The reader (head, less) has seen enough; nothing may be written to the closed pipe at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return exit_codes.OK
    except Exception as error:  # noqa: BLE001 - the last line of defence: people get a sentence, not a traceback
        write_error(f"unexpected {type(error).__name__}: {error}; details are in {_write_details()}")
        return exit_codes.ERROR


def _write_details() -> Path:
    """Write the traceback of the error in hand to a fresh file and return its path."""
    descriptor, name = tempfile.mkstemp(prefix="quantum-trader-error-", suffix=".log")
    with os.fdopen(descriptor, "w") as file:
        file.write(traceback.format_exc())
    return Path(name)


def main() -> None:
    """Entry point of the console script."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
