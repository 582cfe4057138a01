"""Pace of an account (entries and closes of the last while) and the results of its closed trades."""

from __future__ import annotations

from alembic import op

revision = "0008_risk_pace"
down_revision = "0007_governor_alerts"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        "ALTER TABLE exec_risk.account"
        " ADD COLUMN pace jsonb NOT NULL DEFAULT '{}',"
        " ADD COLUMN record jsonb NOT NULL DEFAULT '{}'"
    )


def downgrade() -> None:
    op.execute("ALTER TABLE exec_risk.account DROP COLUMN pace, DROP COLUMN record")
