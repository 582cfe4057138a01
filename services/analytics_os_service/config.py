"""Settings of the analytics-os-service; every value can be set by the environment variable of the same name."""

from __future__ import annotations

from datetime import timedelta
from ipaddress import ip_address

from pydantic import AliasChoices, Field

from services.analytics_os_service.domain.heartbeats import HeartbeatRule
from shared.settings import ApiToken, PostgresUrl, ServiceSettings

SERVICE = "analytics-os-service"


class AnalyticsSettings(ServiceSettings):
    """What the analytics-os-service is told from outside.

    Attributes:
        postgres_url: Database of the archive; the service keeps its tables in the schema ``analytics``.
        heartbeat_timeout_seconds: Silence of a service, wall seconds, after which it is reported missing.
        heartbeat_check_interval_seconds: Wall time between two looks at the heartbeat table.
        heartbeat_grace_seconds: Wall time after our own start in which nobody is reported missing.
        qt_api_token: What callers of the control endpoints must show; None keeps them closed.
        qt_api_token_owner: Whose token it is, for the audit trail.
    """

    port: int = Field(default=8003, ge=1, le=65535, validation_alias=AliasChoices("qt_port", "port"))
    postgres_url: PostgresUrl
    heartbeat_timeout_seconds: float = Field(default=15.0, gt=0)
    heartbeat_check_interval_seconds: float = Field(default=1.0, gt=0)
    heartbeat_grace_seconds: float = Field(default=30.0, ge=0)
    qt_api_token: ApiToken | None = Field(default=None, repr=False)
    qt_api_token_owner: str = Field(default="operator", pattern=r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,31}$")

    @property
    def api_token(self) -> str | None:
        """The token itself."""
        return None if self.qt_api_token is None else self.qt_api_token.get_secret_value()

    @property
    def is_on_loopback(self) -> bool:
        """Whether only this machine can reach the port."""
        try:
            return self.host == "localhost" or ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def heartbeat_rule(self) -> HeartbeatRule:
        """When silence becomes an outage."""
        return HeartbeatRule(
            timeout=timedelta(seconds=self.heartbeat_timeout_seconds),
            grace=timedelta(seconds=self.heartbeat_grace_seconds),
        )
