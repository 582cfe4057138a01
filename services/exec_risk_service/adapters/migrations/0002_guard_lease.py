"""The lease of an account: which process acts on it, and until when it may without being renewed."""

from __future__ import annotations

from alembic import op

revision = "0002_guard_lease"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        "ALTER TABLE exec_risk.account"
        " ADD COLUMN lease_holder text NOT NULL DEFAULT '',"  # empty: nobody
        " ADD COLUMN lease_version bigint NOT NULL DEFAULT 0,"  # one higher with each change, renewals included
        " ADD COLUMN lease_expires_at timestamptz NOT NULL DEFAULT 'epoch'"
    )


def downgrade() -> None:
    op.execute(
        "ALTER TABLE exec_risk.account"
        " DROP COLUMN lease_holder, DROP COLUMN lease_version, DROP COLUMN lease_expires_at"
    )
