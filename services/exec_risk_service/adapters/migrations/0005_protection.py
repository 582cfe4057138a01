"""What guards a position besides its orders: time without a stop, and how its exits move."""

from __future__ import annotations

from alembic import op

revision = "0005_protection"
down_revision = "0004_governor_trading_state"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; positions from before begin with an empty record."""
    op.execute("ALTER TABLE exec_risk.position ADD COLUMN protection jsonb NOT NULL DEFAULT '{}'")


def downgrade() -> None:
    """Drop the column."""
    op.execute("ALTER TABLE exec_risk.position DROP COLUMN protection")
