"""Closed candles that decisions look back on."""

from __future__ import annotations

from alembic import op

revision = "0003_risk_price_history"
down_revision = "0002_guard_lease"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table."""
    op.execute(
        """
        CREATE TABLE exec_risk.candle (
            account   text NOT NULL,
            symbol    text NOT NULL,
            open_time timestamptz NOT NULL,
            timeframe text NOT NULL,
            open      double precision NOT NULL,   -- USDT; floats, as statistics are
            high      double precision NOT NULL,
            low       double precision NOT NULL,
            close     double precision NOT NULL,
            volume    double precision NOT NULL,
            PRIMARY KEY (account, symbol, open_time)
        )
        """
    )


def downgrade() -> None:
    """Drop the table."""
    op.execute("DROP TABLE exec_risk.candle")
