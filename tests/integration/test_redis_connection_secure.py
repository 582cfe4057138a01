"""Ways in: users of the server's access list, TLS with and without our own certificate, a Unix socket."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import quote, urlencode, urlsplit

import pytest

from infrastructure.embedded.redis_server import EmbeddedRedis
from shared.backoff import Backoff
from shared.clock import SystemClock
from shared.errors import ConfigurationError, ConnectionLostError, TransientError
from shared.redis_connection import RedisConnection
from tests.support.redis_cluster import client_of
from tests.support.tls_proxy import Certificate, TlsProxy, make_certificate

QUICK = Backoff(base_seconds=0.01, cap_seconds=0.05)


@asynccontextmanager
async def connection_to(url: str) -> AsyncIterator[RedisConnection]:
    connection = RedisConnection(url, clock=SystemClock(), backoff=QUICK, max_retries=0)
    try:
        yield connection
    finally:
        await connection.stop()


# -- users ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def desk_url(redis_server: EmbeddedRedis) -> Iterator[str]:
    """URL of a user who may do no more than a service needs, INFO and PING not among it."""
    allowed = ("~quantum:*", "-@all", "+@read", "+@write", "+@stream", "+multi", "+exec", "+select", "-info")
    with client_of(redis_server) as client:
        client.execute_command("ACL", "SETUSER", "desk", "reset", "on", ">p@ss/word", *allowed)
        yield f"redis://desk:{quote('p@ss/word', safe='')}@127.0.0.1:{urlsplit(redis_server.url).port}/0"
        client.execute_command("ACL", "DELUSER", "desk")


async def test_a_user_of_the_access_list_gets_what_the_list_gives(desk_url: str) -> None:
    async with connection_to(desk_url) as connection:
        await connection.start()

        assert await connection.execute(("SET", "quantum:acl", 1), ("GET", "quantum:acl")) == [b"OK", b"1"]
        assert await connection.client.get("quantum:acl") == b"1"
        with pytest.raises(TransientError, match="NOPERM"):
            await connection.execute(("SET", "foreign", 1))
        health = await connection.health()
        assert (health.version, health.masters) == ("", 1)


async def test_a_wrong_password_of_a_user_stops_the_start(desk_url: str) -> None:
    async with connection_to(desk_url.replace("%2Fword", "")) as connection:
        with pytest.raises(ConfigurationError, match="WRONGPASS"):
            await connection.start()


async def test_a_user_who_is_switched_off_is_a_lost_connection(redis_server: EmbeddedRedis, desk_url: str) -> None:
    async with connection_to(desk_url) as connection:
        await connection.start()
        with client_of(redis_server) as client:
            client.execute_command("ACL", "SETUSER", "desk", "off")
            client.execute_command("CLIENT", "KILL", "USER", "desk")

        with pytest.raises(ConnectionLostError):
            await connection.execute(("GET", "quantum:acl"))
        with pytest.raises(ConnectionLostError, match="WRONGPASS"):
            await connection.execute(("GET", "quantum:acl"))


# -- TLS --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("tls"), "server")


@asynccontextmanager
async def proxy_of(
    server: EmbeddedRedis, certificate: Certificate, client: Certificate | None = None
) -> AsyncIterator[TlsProxy]:
    proxy = await TlsProxy("127.0.0.1", urlsplit(server.url).port or 0, certificate, client=client).start()
    try:
        yield proxy
    finally:
        await proxy.stop()


def tls_url(server: EmbeddedRedis, proxy: TlsProxy, **options: object) -> str:
    return f"rediss://:{urlsplit(server.url).password}@127.0.0.1:{proxy.port}/0?{urlencode(options)}"


async def test_commands_readers_and_client_go_through_tls(
    redis_server: EmbeddedRedis, certificate: Certificate
) -> None:
    async with (
        proxy_of(redis_server, certificate) as proxy,
        connection_to(tls_url(redis_server, proxy, ssl_ca_certs=certificate.certfile)) as connection,
    ):
        await connection.start()

        assert await connection.execute(("ECHO", "quiet")) == [b"quiet"]
        assert await connection.new_reader().execute(("ECHO", "reader")) == b"reader"
        assert await connection.client.echo("client") == b"client"
        assert proxy.connections == 3


async def test_a_certificate_that_nobody_vouches_for_is_refused(
    redis_server: EmbeddedRedis, certificate: Certificate
) -> None:
    async with (
        proxy_of(redis_server, certificate) as proxy,
        connection_to(tls_url(redis_server, proxy)) as connection,
    ):
        with pytest.raises(ConnectionLostError, match="CERTIFICATE_VERIFY_FAILED"):
            await connection.start()


async def test_a_certificate_for_another_host_is_refused_unless_told_otherwise(
    redis_server: EmbeddedRedis, tmp_path: Path
) -> None:
    other = make_certificate(tmp_path, "other", address="10.9.8.7")
    async with proxy_of(redis_server, other) as proxy:
        async with connection_to(tls_url(redis_server, proxy, ssl_ca_certs=other.certfile)) as connection:
            with pytest.raises(ConnectionLostError, match="IP address mismatch"):
                await connection.start()

        lenient = tls_url(redis_server, proxy, ssl_ca_certs=other.certfile, ssl_check_hostname="false")
        async with connection_to(lenient) as connection:
            await connection.start()


async def test_a_check_that_is_switched_off_takes_any_certificate(
    redis_server: EmbeddedRedis, certificate: Certificate
) -> None:
    async with (
        proxy_of(redis_server, certificate) as proxy,
        connection_to(tls_url(redis_server, proxy, ssl_cert_reqs="none")) as connection,
    ):
        await connection.start()


async def test_our_own_certificate_is_shown_to_a_server_that_wants_one(
    redis_server: EmbeddedRedis, certificate: Certificate, tmp_path: Path
) -> None:
    ours = make_certificate(tmp_path, "ours")
    with_ours = {"ssl_ca_certs": certificate.certfile, "ssl_certfile": ours.certfile, "ssl_keyfile": ours.keyfile}
    async with proxy_of(redis_server, certificate, client=ours) as proxy:
        async with connection_to(tls_url(redis_server, proxy, **with_ours)) as connection:
            await connection.start()
            assert await connection.client.ping()

        async with connection_to(tls_url(redis_server, proxy, ssl_ca_certs=certificate.certfile)) as connection:
            with pytest.raises(ConnectionLostError):
                await connection.start()


# -- Unix socket ------------------------------------------------------------------------------------------------------


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that the server's user can write to, with a short name: a socket's path has about 100 characters."""
    folder = Path(tempfile.mkdtemp(prefix="qt-"))
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder)


async def test_a_unix_socket_is_a_way_in(server_folder: Path, open_folder: Path, tmp_path: Path) -> None:
    socket = open_folder / "redis.sock"
    server = EmbeddedRedis(server_folder / tmp_path.name, directives={"unixsocket": str(socket)})
    password = urlsplit(await server.start()).password

    async with connection_to(f"unix://:{password}@{socket}?db=1") as connection:
        await connection.start()
        await connection.execute(("SET", "key", "value"))
        assert await connection.client.get("key") == b"value"

    await server.stop()
