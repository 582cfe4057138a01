"""Events that belong to no single service: policy, modes, heartbeats, and RPC."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from shared.events.envelope import EventPayload
from shared.events.fields import Count, FreeForm, NotNegative, Text, UtcTime

SystemMode = Literal["NORMAL", "DEFENSIVE", "EMERGENCY", "MAINTENANCE"]
HeartbeatStatus = Literal["HEALTHY", "DEGRADED", "CRITICAL"]
RpcStatus = Literal["SUCCESS", "ERROR", "TIMEOUT"]


class PolicyUpdatedPayload(EventPayload):
    """The risk policy changed."""

    previous_mode: Text = Field(description="Risk mode before.")
    new_mode: Text = Field(description="Risk mode now.")
    updated_by: Text = Field(description="Who changed it.")
    changed_fields: tuple[str, ...] = Field(description="Fields that changed.")
    effective_timestamp: UtcTime = Field(description="Since when it holds.")
    requires_restart: bool = Field(default=False, description="Whether services must restart.")
    requires_position_adjustment: bool = Field(default=False, description="Whether open positions break it.")
    version: Count | None = Field(default=None, description="Version of the stored policy.")


class SystemModeChangedPayload(EventPayload):
    """The whole system changed its mode."""

    previous_mode: SystemMode = Field(description="Mode before.")
    new_mode: SystemMode = Field(description="Mode now.")
    reason: Text = Field(description="Why.")
    changed_by: Text = Field(description="Person or rule that changed it.")
    allow_new_trades: bool = Field(description="Whether positions may be opened.")
    allow_position_expansion: bool = Field(description="Whether positions may grow.")
    force_close_positions: bool = Field(default=False, description="Whether all positions are closed.")


class ServiceHeartbeatPayload(EventPayload):
    """A service is alive; sent every 5 s."""

    service_name: Text = Field(description="Service that is alive.")
    status: HeartbeatStatus = Field(description="What it thinks of itself.")
    uptime_seconds: NotNegative = Field(description="Time since its start, seconds.")
    cpu_percent: NotNegative = Field(description="Processor use, percent of one core.")
    memory_percent: NotNegative = Field(description="Memory use, percent of the machine.")
    memory_used_mb: NotNegative = Field(description="Memory use, MiB.")
    active_tasks: Count | None = Field(default=None, description="Tasks at work.")
    pending_events: Count | None = Field(default=None, description="Events read and not yet settled.")
    processed_events_last_minute: Count | None = Field(default=None, description="Events settled in the last minute.")
    last_event_id: str | None = Field(default=None, description="Newest event that it settled.")
    market_data_age_seconds: NotNegative | None = Field(default=None, description="Age of its newest price, seconds.")


class RpcRequestPayload(EventPayload):
    """Ask a service to run one command."""

    service_target: Text = Field(description="Service that is asked.")
    command: Text = Field(description="Name of the command.")
    parameters: FreeForm = Field(default_factory=dict, description="Parameters by name.")
    timeout_seconds: float = Field(default=30.0, gt=0, le=86400, description="How long the caller waits, seconds.")
    require_response: bool = Field(default=True, description="Whether the caller waits for an answer.")


class RpcResponsePayload(EventPayload):
    """The answer to one request."""

    request_trace_id: Text = Field(description="Trace id of the request.")
    status: RpcStatus = Field(description="How it ended.")
    result: FreeForm | None = Field(default=None, description="Result by name, on SUCCESS.")
    error_message: str | None = Field(default=None, description="One line for a person.")
    error_code: str | None = Field(default=None, description="Upper-case code for a program.")
    processing_time_ms: NotNegative | None = Field(default=None, description="Time the handler took, ms.")
