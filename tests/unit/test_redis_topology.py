"""What REDIS_URL may say, and what becomes of it in the settings."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from shared.errors import ConfigurationError, InvalidInputError
from shared.redis_topology import (
    ClusterSeeds,
    Endpoint,
    OneServer,
    SentinelGroup,
    TlsOptions,
    address_of,
    parse_redis_url,
    secrets_of,
    sentinel_url,
    tls_context,
)
from shared.settings import ServiceSettings, load_settings


@pytest.mark.parametrize(
    ("url", "endpoint"),
    [
        ("redis://", Endpoint("127.0.0.1", 6379)),
        ("redis://cache", Endpoint("cache", 6379)),
        ("redis://cache:7000/5", Endpoint("cache", 7000, database=5)),
        ("redis://cache/?db=5", Endpoint("cache", 6379, database=5)),
        ("redis://:p%40ss@cache", Endpoint("cache", password="p@ss")),
        ("redis://desk:word@cache:7000/0", Endpoint("cache", 7000, username="desk", password="word")),
        ("redis://[::1]:7000/1", Endpoint("::1", 7000, database=1)),
        ("redis://[::1]", Endpoint("::1", 6379)),
        ("unix:///run/redis.sock?db=2", Endpoint(path="/run/redis.sock", database=2)),
        ("rediss://cache", Endpoint("cache", tls=TlsOptions())),
        (
            "rediss://cache?ssl_cert_reqs=none&ssl_check_hostname=false",
            Endpoint("cache", tls=TlsOptions(cert_reqs="none", check_hostname=False)),
        ),
    ],
)
def test_one_server(url: str, endpoint: Endpoint) -> None:
    assert parse_redis_url(url) == OneServer(endpoint)


def test_a_master_behind_sentinels() -> None:
    url = "redis+sentinel://desk:word@a:26380,b,[::1]:26381/quantum/3?sentinel_username=watch&sentinel_password=dog%21"

    assert parse_redis_url(url) == SentinelGroup(
        sentinels=tuple(
            Endpoint(host, port, username="watch", password="dog!")
            for host, port in (("a", 26380), ("b", 26379), ("::1", 26381))
        ),
        master_name="quantum",
        server=Endpoint(username="desk", password="word", database=3),
    )


def test_sentinels_without_database_and_credentials() -> None:
    assert parse_redis_url("redis+sentinel://a/mymaster") == SentinelGroup(
        sentinels=(Endpoint("a", 26379),), master_name="mymaster", server=Endpoint()
    )


def test_a_cluster() -> None:
    assert parse_redis_url("redis+cluster://desk:word@a:7000,b:7001") == ClusterSeeds(
        (Endpoint("a", 7000, username="desk", password="word"), Endpoint("b", 7001, username="desk", password="word"))
    )


def test_tls_reaches_sentinels_and_nodes() -> None:
    group = parse_redis_url("rediss+sentinel://a/mymaster?ssl_cert_reqs=none")
    cluster = parse_redis_url("rediss+cluster://a,b?ssl_cert_reqs=none")

    assert isinstance(group, SentinelGroup)
    assert isinstance(cluster, ClusterSeeds)
    for endpoint in (group.server, *group.sentinels, *cluster.seeds):
        assert endpoint.tls == TlsOptions(cert_reqs="none")


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("", "must be a URL"),
        ("cache:6379", "must be a URL"),
        ("http://:canary@cache", "must be a URL"),
        ("redis://:canary@a,b", "several hosts"),
        ("redis://:canary@cache:70000", "'cache:70000', which is not host:port"),
        ("redis://:canary@cache:port", "not host:port"),
        ("redis://:canary@[::1", "is no URL"),
        ("redis+sentinel://:canary@a,,b/mymaster", "'', which is not host:port"),
        ("redis+sentinel://:canary@a", "must name the master"),
        ("redis+sentinel://:canary@a/mymaster/one", "'one', which is no number"),
        ("redis://:canary@cache/first", "'first', which is no number"),
        ("redis+cluster://:canary@a/1", "only database 0"),
        ("redis://:canary@cache?decode_responses=1", "'decode_responses'"),
        ("redis://:canary@cache?ssl_cert_reqs=none", "'ssl_cert_reqs'"),
        ("redis://:canary@cache?sentinel_password=canary", "'sentinel_password'"),
        ("rediss://:canary@cache?ssl_cert_reqs=maybe", "must be one of required, optional, none"),
        ("rediss://:canary@cache?ssl_ca_certs=/nowhere/ca.pem", "cannot be used"),
        ("unix://", "must name the socket"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line_without_its_password(url: str, why: str) -> None:
    with pytest.raises(InvalidInputError) as raised:
        parse_redis_url(url)

    assert why in str(raised.value)
    assert "\n" not in str(raised.value)
    assert "canary" not in str(raised.value)


def test_a_certificate_is_checked_unless_told_otherwise() -> None:
    usual = tls_context(TlsOptions())
    lenient = tls_context(TlsOptions(cert_reqs="none"))

    assert (usual.verify_mode, usual.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert (lenient.verify_mode, lenient.check_hostname) == (ssl.CERT_NONE, False)


def test_the_address_shows_neither_credentials_nor_options() -> None:
    url = "redis+sentinel://desk:canary@a:1,b:2/mymaster/0?sentinel_password=canary"

    assert address_of(url) == "redis+sentinel://a:1,b:2/mymaster/0"


def test_secrets_are_found_as_written_and_as_meant() -> None:
    url = "redis+sentinel://desk:one%2Ftwo@a:1,b:2/mymaster/0?sentinel_password=three%20four"

    assert set(secrets_of(url)) == {"one%2Ftwo", "one/two", "three%20four", "three four"}
    assert secrets_of("redis+cluster://a:1,b:2") == ()


# -- settings ---------------------------------------------------------------------------------------------------------


class DeskSettings(ServiceSettings):
    port: int = 8009


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    for field_name in DeskSettings.model_fields:
        monkeypatch.delenv(field_name.upper(), raising=False)
    monkeypatch.chdir(tmp_path)
    return monkeypatch


@pytest.mark.parametrize(
    "url", ["redis+sentinel://:x@a:26379,b:26379/mymaster/0", "redis+cluster://:x@a:7000,b:7000", "unix:///run/r.sock"]
)
def test_settings_take_every_kind_of_url(environment: pytest.MonkeyPatch, url: str) -> None:
    environment.setenv("REDIS_URL", url)

    assert load_settings(DeskSettings).redis_url == url


def test_settings_say_what_is_wrong_with_a_url_and_show_no_password(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("REDIS_URL", "redis+sentinel://:canary@a:26379")

    with pytest.raises(ConfigurationError, match="REDIS_URL is wrong: must name the master") as raised:
        load_settings(DeskSettings)

    assert "canary" not in str(raised.value)


def test_sentinel_settings_turn_the_url_into_one_of_sentinels(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("REDIS_URL", "redis://desk:canary-1@ignored:6379/2")
    environment.setenv("REDIS_SENTINEL_HOSTS", "a:26379, b:26380")
    environment.setenv("REDIS_SENTINEL_MASTER", "quantum")
    environment.setenv("REDIS_SENTINEL_PASSWORD", "canary&2")

    settings = load_settings(DeskSettings)

    assert parse_redis_url(settings.redis_url) == SentinelGroup(
        sentinels=(Endpoint("a", 26379, password="canary&2"), Endpoint("b", 26380, password="canary&2")),
        master_name="quantum",
        server=Endpoint(username="desk", password="canary-1", database=2),
    )
    assert {"canary-1", "canary&2", "canary%262"} <= set(settings.secret_values())
    assert "canary" not in repr(settings)


def test_sentinel_hosts_alone_are_enough(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("REDIS_SENTINEL_HOSTS", "a:26379")

    assert load_settings(DeskSettings).redis_url == "redis+sentinel://a:26379/mymaster/0"


@pytest.mark.parametrize(
    ("url", "hosts", "why"),
    [
        ("redis+cluster://:canary@a", "b:26379", "REDIS_SENTINEL_HOSTS needs a REDIS_URL of redis:// or rediss://"),
        ("redis://:canary@a", "b:port", "'b:port', which is not host:port"),
    ],
)
def test_sentinel_settings_that_fit_nothing_are_refused(
    environment: pytest.MonkeyPatch, url: str, hosts: str, why: str
) -> None:
    environment.setenv("REDIS_URL", url)
    environment.setenv("REDIS_SENTINEL_HOSTS", hosts)

    with pytest.raises(ConfigurationError) as raised:
        load_settings(DeskSettings)

    assert why in str(raised.value)
    assert "canary" not in str(raised.value)


def test_a_url_of_sentinels_keeps_tls_and_its_options() -> None:
    url = sentinel_url("rediss://:word@a/1?ssl_cert_reqs=none", hosts="b", master_name="my/master")

    group = parse_redis_url(url)

    assert isinstance(group, SentinelGroup)
    assert (group.master_name, group.server.database) == ("my/master", 1)
    assert group.server.tls == TlsOptions(cert_reqs="none")


def test_retries_have_the_documented_defaults_and_bounds(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("REDIS_URL", "redis://a")
    settings = load_settings(DeskSettings)
    assert (settings.redis_max_retries, settings.redis_retry_base_seconds, settings.redis_retry_cap_seconds) == (
        10,
        1.0,
        30.0,
    )

    environment.setenv("REDIS_MAX_RETRIES", "-1")
    with pytest.raises(ConfigurationError, match="REDIS_MAX_RETRIES=-1 is wrong"):
        load_settings(DeskSettings)
