"""Holds the account for this process: takes the lease, renews it, and tells by its own clock when it may not be sure.

Binance knows no fencing token, so the fence is here: entries stop when half of the lease has passed without a renewal.
What was signed before that is at most ``recvWindow`` old when it reaches the exchange, and refused when it is older;
both together are over before anybody else may take the lease.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from services.exec_risk_service.domain.lease import LeaseRecord, holder_of, may_be_taken
from services.exec_risk_service.ports import LeaseStore, taken_over
from shared.cancellation import end_task
from shared.clock import Clock
from shared.errors import ConnectionLostError

#: Pause between two looks at a lease that is not ours, and between two tries of a renewal that failed.
_LOOK_SECONDS = 0.5
#: Renewals per lease: three of them fit into the half after which entries stop.
_RENEWALS = 6

log = structlog.get_logger(__name__)


class AccountLease:
    """The lease of one account as this process sees it.

    Attributes:
        name: Component name.
        waits_for: Whom this process waits for, in words; None while it waits for nobody.
    """

    name = "account-lease"

    def __init__(
        self,
        store: LeaseStore,
        *,
        account: str,
        holder: str,
        is_proven_dead: Callable[[str], bool],
        clock: Clock,
        seconds: float,
        grace_seconds: float,
        on_lost: Callable[[], None],
    ) -> None:
        """Prepare, without asking anybody.

        Args:
            store: Where the lease is kept.
            account: Name of the account and its run.
            holder: Name of this process.
            is_proven_dead: Tells whether another holder has ended for certain.
            clock: Wall clock; only its monotonic side counts.
            seconds: A lease lasts this long without renewal.
            grace_seconds: How long to wait after the lease of a holder whose death is not proven.
            on_lost: Called once when the account was taken over: this process must end.
        """
        self._store = store
        self._account = account
        self._holder = holder
        self._is_proven_dead = is_proven_dead
        self._clock = clock
        self._seconds = seconds
        self._grace_seconds = grace_seconds
        self._on_lost = on_lost
        self._renewed_at: float | None = None
        self._is_lost = False
        self._renewal: asyncio.Task[None] | None = None
        self.epoch = 0
        self.waits_for: str | None = None

    async def start(self) -> None:
        """Return when the account is this process's; one held by another is waited for."""
        while not await self._taken():
            await self._clock.sleep(_LOOK_SECONDS)
        self.waits_for = None
        log.info("account_held", account=self._account, epoch=self.epoch)
        self._renewal = asyncio.create_task(self._keep(), name="lease-renewal")

    async def stop(self) -> None:
        """Stop renewing, and let the next process begin at once."""
        task, self._renewal = self._renewal, None
        if task is None:
            return
        await end_task(task)
        self._renewed_at = None
        try:
            await self._store.release(self._account, self._holder)
        except ConnectionLostError as error:
            log.warning("lease_not_released", account=self._account, error=str(error))

    def bar(self) -> str | None:
        """Tell, without asking anybody, why this process may send no entry now; None while it may."""
        if self._is_lost:
            return taken_over(self._account)
        if self._renewed_at is None:
            return f"account {self._account} is not held by this process"
        age = self._clock.monotonic() - self._renewed_at
        if age > self._seconds / 2:
            return f"the lease of account {self._account} was not renewed for {age:.1f} s; entries wait until it is"
        return None

    # -- taking --------------------------------------------------------------------------------------------------------

    async def _taken(self) -> bool:
        try:
            record = await self._store.read(self._account)
            if not self._may_take(record):
                self._tell_waiting(record)
                return False
            began = self._clock.monotonic()
            epoch = await self._store.take(
                self._account, self._holder, seen_version=record.version, seconds=self._seconds
            )
        except ConnectionLostError as error:
            log.warning("lease_store_unreachable", account=self._account, error=str(error))
            return False
        if epoch is None:
            return False
        self.epoch, self._renewed_at = epoch, began
        return True

    def _may_take(self, record: LeaseRecord) -> bool:
        return may_be_taken(
            record,
            holder=self._holder,
            is_proven_dead=self._is_proven_dead(record.holder),
            grace_seconds=self._grace_seconds,
        )

    def _tell_waiting(self, record: LeaseRecord) -> None:
        whom = str(holder_of(record.holder) or "another process")
        if self.waits_for != whom:
            self.waits_for = whom
            log.warning(
                "account_held_by_another",
                account=self._account,
                holder=whom,
                epoch=record.epoch,
                free_in_seconds=round(self._grace_seconds - record.overdue_seconds, 1),
                hint="it is taken over when its holder ends, or does not renew it in this time; stop one of the two",
            )

    # -- keeping -------------------------------------------------------------------------------------------------------

    async def _keep(self) -> None:
        is_late = False
        while True:
            await self._clock.sleep(_LOOK_SECONDS if is_late else self._seconds / _RENEWALS)
            began = self._clock.monotonic()
            try:
                is_ours = await self._store.renew(self._account, self._holder, seconds=self._seconds)
            except Exception as error:  # noqa: BLE001 - without this task entries would wait for ever
                if not is_late:
                    log.warning("lease_not_renewed", account=self._account, error=f"{type(error).__name__}: {error}")
                is_late = True
                continue
            if not is_ours:
                self._lose()
                return
            self._renewed_at, is_late = began, False

    def _lose(self) -> None:
        self._is_lost = True
        log.critical("account_taken_over", account=self._account, epoch=self.epoch)
        self._on_lost()
