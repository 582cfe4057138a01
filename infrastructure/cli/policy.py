"""``quantum-trader policy``: the limits that all services obey, shown and changed while they run."""

from __future__ import annotations

import asyncio
import getpass
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from infrastructure.cli.options import JsonOption, StateDirOption, state_dir_from

if TYPE_CHECKING:  # the command line starts fast because heavy imports wait for their command
    from shared.policy.document import PolicyDocument
    from shared.policy.redis_store import RedisPolicyStore
    from shared.trading.policy import RiskMode

T = TypeVar("T")

#: ``source`` of the events that the command line publishes.
_SOURCE = "command-line"

policy_app = typer.Typer(
    no_args_is_help=True,
    help="Show and change the risk policy; every service obeys a change within a second. "
    "Uses the Redis of the running system, else REDIS_URL.",
)

ReasonOption = Annotated[str, typer.Option("--reason", help="Why; stands in the audit trail.")]
ByOption = Annotated[str | None, typer.Option("--by", help="Who; else the user of this shell.")]
ExpectOption = Annotated[
    int | None, typer.Option("--expect-version", min=1, help="Refuse when the policy has another version by now.")
]
ModeOption = Annotated[str | None, typer.Option("--mode", help="Mode whose values are meant; else the active one.")]


@policy_app.command("show")
def show(*, mode: ModeOption = None, state_dir: StateDirOption = None, json: JsonOption = False) -> None:
    """Show the values of every mode, and which one is active."""
    from infrastructure.cli.policy_view import show_policy

    wanted = _mode(mode)

    async def read(store: RedisPolicyStore) -> PolicyDocument:
        _require_fresh(store)
        return store.document()

    show_policy(_with_store(state_dir, read), mode=wanted, json=json)


@policy_app.command("set")
def set_values(
    assignments: Annotated[
        list[str], typer.Argument(metavar="FIELD=VALUE...", help="For example max_leverage=5 max_daily_drawdown=4%.")
    ],
    *,
    reason: ReasonOption,
    mode: ModeOption = None,
    by: ByOption = None,
    expect_version: ExpectOption = None,
    state_dir: StateDirOption = None,
    json: JsonOption = False,
) -> None:
    """Change values of one mode; of the active one unless --mode names another."""
    from infrastructure.cli.policy_values import read_assignments
    from shared.errors import InvalidInputError
    from shared.policy.changes import PolicyChange

    try:
        values = read_assignments(assignments)
    except InvalidInputError as error:
        raise typer.BadParameter(str(error)) from error
    named = _mode(mode)

    async def change(store: RedisPolicyStore) -> PolicyDocument:
        _require_fresh(store)
        seen = store.document()
        wanted = PolicyChange(updated_by=_who(by), reason=reason, values={named or seen.active_mode: values})
        # Which mode is active was read a moment ago: a switch in between must not redirect the values.
        expected = expect_version if named or expect_version else seen.version
        return await store.change(wanted, expected_version=expected)

    _change(state_dir, change, json=json)


@policy_app.command("mode")
def switch_mode(
    mode: Annotated[str, typer.Argument(metavar="MODE", help="NORMAL, DEFENSIVE or AGGRESSIVE_SMALL_ACCOUNT.")],
    *,
    reason: ReasonOption,
    by: ByOption = None,
    expect_version: ExpectOption = None,
    state_dir: StateDirOption = None,
    json: JsonOption = False,
) -> None:
    """Switch to another mode."""
    from shared.policy.changes import PolicyChange

    wanted = PolicyChange(updated_by=_who(by), reason=reason, active_mode=_mode(mode))
    _change(state_dir, lambda store: store.change(wanted, expected_version=expect_version), json=json)


@policy_app.command("history")
def history(
    *,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many; the newest ones.")] = 20,
    state_dir: StateDirOption = None,
    json: JsonOption = False,
) -> None:
    """Show who changed what, when, and why; the newest first."""
    from infrastructure.cli.policy_view import show_history

    show_history(_with_store(state_dir, lambda store: store.history(limit=limit)), json=json)


@policy_app.command("rollback")
def rollback(
    version: Annotated[int, typer.Argument(min=1, help="A version of: quantum-trader policy history.")],
    *,
    reason: ReasonOption,
    by: ByOption = None,
    expect_version: ExpectOption = None,
    state_dir: StateDirOption = None,
    json: JsonOption = False,
) -> None:
    """Bring back mode and values of an earlier version, as a new one."""
    _change(
        state_dir,
        lambda store: store.rollback(version, updated_by=_who(by), reason=reason, expected_version=expect_version),
        json=json,
    )


@policy_app.command("defaults")
def restore_defaults(
    *,
    reason: ReasonOption,
    mode: Annotated[
        str | None, typer.Option("--mode", help="Only of this mode; else of every mode, and NORMAL becomes active.")
    ] = None,
    by: ByOption = None,
    expect_version: ExpectOption = None,
    state_dir: StateDirOption = None,
    json: JsonOption = False,
) -> None:
    """Bring back the values that came with the software."""
    from shared.policy.changes import defaults

    wanted = defaults(_mode(mode), updated_by=_who(by), reason=reason)
    _change(state_dir, lambda store: store.change(wanted, expected_version=expect_version), json=json)


def _change(
    state_dir: Path | None, change: Callable[[RedisPolicyStore], Awaitable[PolicyDocument]], *, json: bool
) -> None:
    from infrastructure.cli.policy_view import show_change

    async def carry_out(store: RedisPolicyStore) -> tuple[int, PolicyDocument]:
        before = store.document().version
        return before, await change(store)

    before, document = _with_store(state_dir, carry_out)
    show_change(document, is_new=document.version != before, json=json)


def _with_store(state_dir: Path | None, work: Callable[[RedisPolicyStore], Awaitable[T]]) -> T:
    async def run() -> T:
        async with _open_store(state_dir_from(state_dir)) as store:
            return await work(store)

    return asyncio.run(run())


@asynccontextmanager
async def _open_store(state_dir: Path) -> AsyncIterator[RedisPolicyStore]:
    from infrastructure.cli.quiet_logs import silence_logs
    from infrastructure.cli.redis_access import open_redis
    from shared.bus.redis_streams import RedisStreamsBus
    from shared.clock import SystemClock
    from shared.ids import RandomIds
    from shared.policy.redis_store import RedisPolicyStore

    silence_logs()
    clock = SystemClock()
    async with open_redis(state_dir, clock=clock) as redis:
        # It is never started: it only publishes what was changed.
        bus = RedisStreamsBus(
            redis, service=_SOURCE, instance=f"process-{os.getpid()}", clock=clock, ids=RandomIds(), market_clock=clock
        )
        store = RedisPolicyStore(redis, clock=clock, bus=bus)
        try:
            await store.start()
            yield store
        finally:
            await store.stop()
            await bus.stop()


def _require_fresh(store: RedisPolicyStore) -> None:
    from shared.errors import QuantumTraderError

    if store.why_stale is not None:
        advice = "quantum-trader policy history, then: quantum-trader policy rollback VERSION --reason TEXT"
        raise QuantumTraderError(f"{store.why_stale}; to bring back an earlier version see {advice}")


def _mode(name: str | None) -> RiskMode | None:
    from shared.errors import InvalidInputError
    from shared.policy.changes import mode_named

    try:
        return None if name is None else mode_named(name)
    except InvalidInputError as error:
        raise typer.BadParameter(str(error)) from error


def _who(by: str | None) -> str:
    if by is not None:
        return by
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container may run as a number that has no name
        return f"uid {os.getuid()}"
