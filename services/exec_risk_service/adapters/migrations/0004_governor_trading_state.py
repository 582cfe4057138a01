"""The trading state of an account: stored with every step, so that a halt outlives the process."""

from __future__ import annotations

from alembic import op

revision = "0004_governor_trading_state"
down_revision = "0003_risk_price_history"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE exec_risk.account ADD COLUMN trading jsonb")  # null: nothing ever changed it


def downgrade() -> None:
    op.execute("ALTER TABLE exec_risk.account DROP COLUMN trading")
