"""The archive: every event once."""

from __future__ import annotations

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

STATEMENTS = (
    """
    CREATE TABLE analytics.events (
        event_id     text COLLATE "C" PRIMARY KEY,   -- sorts as in Python, whatever the server's language
        run_id       text NOT NULL,
        event_type   text NOT NULL,
        trace_id     text NOT NULL,
        causation_id text,
        timestamp    timestamptz NOT NULL,           -- wall time of the publish
        source       text NOT NULL,
        version      text NOT NULL,
        sequence     bigint NOT NULL,
        symbol       text,
        payload      jsonb NOT NULL,
        archived_at  timestamptz NOT NULL DEFAULT now()
    )
    """,
    # Each index ends in the order of pages, so that a page is read and not sorted.
    "CREATE INDEX events_by_time ON analytics.events (run_id, timestamp, sequence, event_id)",
    "CREATE INDEX events_by_type ON analytics.events (run_id, event_type, timestamp, sequence, event_id)",
    "CREATE INDEX events_by_symbol ON analytics.events (run_id, symbol, timestamp, sequence, event_id)"
    " WHERE symbol IS NOT NULL",
    "CREATE INDEX events_by_trace ON analytics.events (trace_id, timestamp, sequence, event_id)",
    "CREATE INDEX events_heartbeats ON analytics.events (run_id, (payload ->> 'service_name'), timestamp DESC)"
    " WHERE event_type = 'service.heartbeat'",
)


def upgrade() -> None:
    """Create the table."""
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    """Drop everything of the service."""
    op.execute("DROP TABLE analytics.events")
