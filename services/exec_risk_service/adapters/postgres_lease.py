"""Leases in PostgreSQL: in the row of the account, so that a takeover fences the journal in the same moment."""

from __future__ import annotations

from services.exec_risk_service.domain.lease import NOBODY, LeaseRecord
from shared.postgres.pool import PostgresPool, postgres_errors


class PostgresLeases:
    """``LeaseStore`` over ``exec_risk.account``; all times are the server's."""

    def __init__(self, pool: PostgresPool) -> None:
        self._pool = pool

    async def read(self, account: str) -> LeaseRecord:
        with postgres_errors():
            pool = self._pool.pool
            await pool.execute("INSERT INTO exec_risk.account (account) VALUES ($1) ON CONFLICT DO NOTHING", account)
            row = await pool.fetchrow(
                "SELECT epoch, lease_holder, lease_version,"
                " extract(epoch FROM clock_timestamp() - lease_expires_at)::float8 AS overdue"
                " FROM exec_risk.account WHERE account = $1",
                account,
            )
        return LeaseRecord(row["epoch"], row["lease_holder"], row["lease_version"], row["overdue"])

    async def take(self, account: str, holder: str, *, seen_version: int, seconds: float) -> int | None:
        with postgres_errors():
            epoch: int | None = await self._pool.pool.fetchval(
                "UPDATE exec_risk.account SET epoch = epoch + 1, lease_holder = $2, lease_version = lease_version + 1,"
                " lease_expires_at = clock_timestamp() + make_interval(secs => $4)"
                " WHERE account = $1 AND lease_version = $3 RETURNING epoch",
                account,
                holder,
                seen_version,
                seconds,
            )
        return epoch

    async def renew(self, account: str, holder: str, *, seconds: float) -> bool:
        with postgres_errors():
            status = await self._pool.pool.execute(
                "UPDATE exec_risk.account SET lease_version = lease_version + 1,"
                " lease_expires_at = clock_timestamp() + make_interval(secs => $3)"
                " WHERE account = $1 AND lease_holder = $2",
                account,
                holder,
                seconds,
            )
        return bool(status == "UPDATE 1")

    async def release(self, account: str, holder: str) -> None:
        with postgres_errors():
            await self._pool.pool.execute(
                "UPDATE exec_risk.account SET lease_holder = $3, lease_version = lease_version + 1,"
                " lease_expires_at = clock_timestamp() WHERE account = $1 AND lease_holder = $2",
                account,
                holder,
                NOBODY,
            )
