"""Tables of the account: book, intents, fills, positions, inbox and outbox."""

from __future__ import annotations

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

STATEMENTS = (
    "CREATE SCHEMA IF NOT EXISTS exec_risk",
    """
    CREATE TABLE exec_risk.account (
        account          text PRIMARY KEY,
        epoch            bigint NOT NULL DEFAULT 0,   -- one higher with each process that takes the account over
        step             bigint NOT NULL DEFAULT 0,   -- number of the last applied input
        wallet           numeric,                     -- USDT; NULL until the exchange told it
        start_wallet     numeric NOT NULL DEFAULT 0,
        realized_pnl     numeric NOT NULL DEFAULT 0,
        commission       numeric NOT NULL DEFAULT 0,
        funding          numeric NOT NULL DEFAULT 0,
        adjustments      numeric NOT NULL DEFAULT 0,
        peak_equity      numeric NOT NULL DEFAULT 0,
        day              date,
        day_peak_equity  numeric NOT NULL DEFAULT 0,
        drawdown_alerted boolean NOT NULL DEFAULT false,
        payments         text[] NOT NULL DEFAULT '{}',
        paid_until       timestamptz,
        marks            jsonb NOT NULL DEFAULT '{}'
    )
    """,
    """
    CREATE TABLE exec_risk.inbox (
        account  text NOT NULL,
        event_id text NOT NULL,
        step     bigint NOT NULL,
        PRIMARY KEY (account, event_id)
    )
    """,
    """
    CREATE TABLE exec_risk.order_intent (
        account             text NOT NULL,
        client_order_id     text NOT NULL,
        cause_event_id      text NOT NULL,
        leg                 text NOT NULL,
        sequence            integer NOT NULL,
        symbol              text NOT NULL,
        side                text NOT NULL,
        order_type          text NOT NULL,
        quantity            numeric NOT NULL CHECK (quantity > 0),
        trigger_price       numeric,
        leverage            integer NOT NULL,
        arrival_price       numeric NOT NULL,
        position_id         text NOT NULL,
        trace_id            text NOT NULL,
        first_event_id      text NOT NULL,
        result_trace_id     text NOT NULL,
        result_causation_id text NOT NULL,
        created_step        bigint NOT NULL,
        created_at          timestamptz NOT NULL,
        plan                jsonb,
        status              text NOT NULL,
        reason              text NOT NULL,
        exchange_order_id   text NOT NULL,
        algo_id             text NOT NULL,
        filled_quantity     numeric NOT NULL,
        filled_value        numeric NOT NULL,
        commission          numeric NOT NULL,
        reported_filled     numeric NOT NULL,
        pending_status      text,
        sent_at             timestamptz,
        cancel_requested    boolean NOT NULL,
        settled             boolean NOT NULL,
        PRIMARY KEY (account, client_order_id),
        UNIQUE (account, cause_event_id, leg, sequence)
    )
    """,
    "CREATE INDEX order_intent_unfinished ON exec_risk.order_intent (account)"
    " WHERE NOT settled OR reported_filled > filled_quantity",
    "CREATE INDEX order_intent_newest ON exec_risk.order_intent (account, created_step DESC)",
    """
    CREATE TABLE exec_risk.fill (
        account           text NOT NULL,
        symbol            text NOT NULL,
        trade_id          bigint NOT NULL,   -- negative: booked by us to follow the exchange's position
        client_order_id   text NOT NULL,
        exchange_order_id text NOT NULL,
        side              text NOT NULL,
        price             numeric NOT NULL,
        quantity          numeric NOT NULL CHECK (quantity > 0),
        commission        numeric NOT NULL,
        realized_pnl      numeric NOT NULL,
        time              timestamptz NOT NULL,
        step              bigint NOT NULL,
        PRIMARY KEY (account, symbol, trade_id)
    )
    """,
    "CREATE INDEX fill_newest ON exec_risk.fill (account, symbol, step DESC)",
    """
    CREATE TABLE exec_risk.fill_cursor (
        account   text NOT NULL,
        symbol    text NOT NULL,
        base      bigint NOT NULL,   -- trades up to here were there before us
        confirmed bigint NOT NULL,   -- later ones up to here were read from the exchange's list
        PRIMARY KEY (account, symbol)
    )
    """,
    """
    CREATE TABLE exec_risk.position (
        account          text NOT NULL,
        position_id      text NOT NULL,
        symbol           text NOT NULL,
        origin           text NOT NULL,
        trace_id         text NOT NULL,
        cause_event_id   text NOT NULL,
        is_long          boolean NOT NULL,
        quantity         numeric NOT NULL,   -- signed; 0 when closed
        entry_price      numeric NOT NULL,   -- mean price of the open quantity
        leverage         integer NOT NULL,
        opened_at        timestamptz NOT NULL,
        opening_event_id text NOT NULL,
        opened_event_id  text NOT NULL,
        plan             jsonb,
        opened_quantity  numeric NOT NULL,
        opened_value     numeric NOT NULL,
        closed_quantity  numeric NOT NULL,
        closed_value     numeric NOT NULL,
        realized_pnl     numeric NOT NULL,
        commission       numeric NOT NULL,
        funding          numeric NOT NULL,
        stop_price       numeric,
        target_price     numeric,
        max_profit_pct   numeric NOT NULL,
        max_drawdown_pct numeric NOT NULL,
        exit             jsonb,
        stops_placed     integer NOT NULL,
        targets_placed   integer NOT NULL,
        exits_placed     integer NOT NULL,
        closed_at        timestamptz,
        closed_by        text,
        PRIMARY KEY (account, position_id)
    )
    """,
    "CREATE UNIQUE INDEX position_open ON exec_risk.position (account, symbol) WHERE closed_at IS NULL",
    """
    CREATE TABLE exec_risk.outbox (
        id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        account      text NOT NULL,
        step         bigint NOT NULL,
        event_id     text NOT NULL,
        event_type   text NOT NULL,
        trace_id     text NOT NULL,
        causation_id text,
        payload      jsonb NOT NULL
    )
    """,
    "CREATE INDEX outbox_waiting ON exec_risk.outbox (account, id)",
)


def upgrade() -> None:
    """Create the tables."""
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    """Drop everything of the service."""
    op.execute("DROP SCHEMA exec_risk CASCADE")
