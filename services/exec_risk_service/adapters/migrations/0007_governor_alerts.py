"""The trading state knows whether the day's drawdown was told; the account's own mark of it goes."""

from __future__ import annotations

from alembic import op

revision = "0007_governor_alerts"
down_revision = "0006_executions"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE exec_risk.account DROP COLUMN drawdown_alerted")


def downgrade() -> None:
    op.execute("ALTER TABLE exec_risk.account ADD COLUMN drawdown_alerted boolean NOT NULL DEFAULT false")
