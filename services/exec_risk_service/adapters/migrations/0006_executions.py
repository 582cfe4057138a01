"""Executions: one decision to trade, carried out by one or many orders."""

from __future__ import annotations

from alembic import op

revision = "0006_executions"
down_revision = "0005_protection"
branch_labels = None
depends_on = None

STATEMENTS = (
    """
    CREATE TABLE exec_risk.execution (
        account         text NOT NULL,
        execution_id    text NOT NULL,
        symbol          text NOT NULL,
        side            text NOT NULL,
        leg             text NOT NULL,
        strategy        text NOT NULL,
        quantity        numeric NOT NULL CHECK (quantity > 0),
        filled_quantity numeric NOT NULL,
        started_at      timestamptz NOT NULL,
        created_step    bigint NOT NULL,
        done            boolean NOT NULL,
        body            jsonb NOT NULL,   -- all of it; the columns before are for people who search
        PRIMARY KEY (account, execution_id)
    )
    """,
    """
    CREATE TABLE exec_risk.slippage (
        account   text NOT NULL,
        symbol    text NOT NULL,
        total_pct numeric NOT NULL,   -- measured minus expected slippage, decayed to "at"
        weight    numeric NOT NULL,   -- number of measurements, decayed likewise
        at        timestamptz NOT NULL,
        PRIMARY KEY (account, symbol)
    )
    """,
    "CREATE INDEX execution_working ON exec_risk.execution (account) WHERE NOT done",
    "ALTER TABLE exec_risk.order_intent"
    " ADD COLUMN price numeric,"
    " ADD COLUMN time_in_force text,"
    " ADD COLUMN execution_id text NOT NULL DEFAULT ''",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    op.execute(
        "ALTER TABLE exec_risk.order_intent DROP COLUMN price, DROP COLUMN time_in_force, DROP COLUMN execution_id"
    )
    op.execute("DROP TABLE exec_risk.slippage")
    op.execute("DROP TABLE exec_risk.execution")
