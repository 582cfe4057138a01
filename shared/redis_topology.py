"""What ``REDIS_URL`` says: one server, a master behind Sentinel, or a cluster. Nothing is connected here.

    redis://user:password@host:6379/0                                  one server; unix:///path?db=0 is one, too
    redis+sentinel://user:password@host:26379,host:26379/mymaster/0    the hosts are the sentinels
    redis+cluster://user:password@host:6379,host:6379                  some nodes of the cluster

``rediss`` instead of ``redis`` is TLS. Options stand in the query: ``ssl_ca_certs``, ``ssl_certfile``, ``ssl_keyfile``,
``ssl_cert_reqs`` (``required``, ``optional``, ``none``), ``ssl_check_hostname``, ``sentinel_username``,
``sentinel_password``, ``db``.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import TypeAlias
from urllib.parse import SplitResult, parse_qsl, quote, unquote, unquote_plus, urlencode, urlsplit

from shared.errors import InvalidInputError

_SERVER_PORT = 6379
_SENTINEL_PORT = 26379
_ONE_SERVER = ("redis", "rediss", "unix")
_SENTINEL = ("redis+sentinel", "rediss+sentinel")
_CLUSTER = ("redis+cluster", "rediss+cluster")
_TLS_OPTIONS = frozenset({"ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs", "ssl_check_hostname"})
_SENTINEL_OPTIONS = frozenset({"sentinel_username", "sentinel_password"})
_CERTIFICATE_CHECKS = {"required": ssl.CERT_REQUIRED, "optional": ssl.CERT_OPTIONAL, "none": ssl.CERT_NONE}


@dataclass(frozen=True, slots=True)
class TlsOptions:
    """How an encrypted connection is made.

    Attributes:
        ca_certs: File of the authorities that are trusted beside the system's.
        certfile: Our certificate, when the server wants one.
        keyfile: Its key, when it is not in the same file.
        cert_reqs: ``required``, ``optional`` or ``none``: whether the server's certificate is checked.
        check_hostname: Whether it must be made out to the host we connect to.
    """

    ca_certs: str | None = None
    certfile: str | None = None
    keyfile: str | None = None
    cert_reqs: str = "required"
    check_hostname: bool = True


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a server listens, and as whom to speak to it.

    Attributes:
        host: Name or address; without meaning when ``path`` is given.
        port: TCP port.
        path: Unix socket.
        username: ACL user; None is the default user.
        password: None when the server wants none.
        database: Number of the database.
        tls: How to encrypt; None for plain text.
    """

    host: str = "127.0.0.1"
    port: int = _SERVER_PORT
    path: str | None = None
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    database: int = 0
    tls: TlsOptions | None = None

    def __str__(self) -> str:
        return self.path or f"{self.host}:{self.port}"

    def at(self, host: str, port: int) -> Endpoint:
        """Return the endpoint of another server that is spoken to in the same way."""
        return replace(self, host=host, port=port)


@dataclass(frozen=True, slots=True)
class OneServer:
    """One Redis server."""

    endpoint: Endpoint


@dataclass(frozen=True, slots=True)
class SentinelGroup:
    """A master that sentinels know.

    Attributes:
        sentinels: Where to ask.
        master_name: What the sentinels call it.
        server: How to speak to the master; host and port come from a sentinel.
    """

    sentinels: tuple[Endpoint, ...]
    master_name: str
    server: Endpoint


@dataclass(frozen=True, slots=True)
class ClusterSeeds:
    """A cluster; the seeds tell which other nodes it has."""

    seeds: tuple[Endpoint, ...]


Topology: TypeAlias = OneServer | SentinelGroup | ClusterSeeds


def parse_redis_url(url: str) -> Topology:
    """Return what ``url`` describes.

    Raises:
        InvalidInputError: It cannot be used; one line that shows no password.
    """
    parts = _split(url)
    if parts.scheme not in (*_ONE_SERVER, *_SENTINEL, *_CLUSTER) or "://" not in url:
        raise InvalidInputError(
            "must be a URL such as redis://127.0.0.1:6379/0, redis+sentinel://host:26379,host:26379/mymaster/0 or "
            "redis+cluster://host:6379,host:6379"
        )
    options = _options(parts)
    server = Endpoint(
        username=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password) if parts.password else None,
        tls=_tls(options) if parts.scheme.startswith("rediss") else None,
    )
    if parts.scheme in _SENTINEL:
        return _sentinel_group(parts, server, options)
    if parts.scheme in _CLUSTER:
        return _cluster_seeds(parts, server, options)
    return _one_server(parts, server, options)


def address_of(url: str) -> str:
    """Return ``url`` without credentials and options.

    Raises:
        InvalidInputError: It is no URL.
    """
    parts = _split(url)
    return f"{parts.scheme}://{_hosts_of(parts)}{parts.path}"


def secrets_of(url: str) -> tuple[str, ...]:
    """Return the passwords in ``url``, as they are written there and as they are meant."""
    parts = urlsplit(url)
    written = [parts.password or ""]
    written += [part.partition("=")[2] for part in parts.query.split("&") if part.startswith("sentinel_password=")]
    return tuple(
        dict.fromkeys(secret for text in written for secret in (text, unquote(text), unquote_plus(text)) if secret)
    )


def sentinel_url(url: str, *, hosts: str, master_name: str, sentinel_password: str | None = None) -> str:
    """Return the URL of the master that the sentinels at ``hosts`` know.

    Args:
        url: ``redis://`` or ``rediss://``: credentials, database and options; its host does not matter.
        hosts: ``host:port,host:port``.
        master_name: What the sentinels call the master.
        sentinel_password: What the sentinels want.

    Raises:
        InvalidInputError: ``url`` names a Sentinel or a cluster itself.
    """
    parts = _split(url or "redis://")
    if parts.scheme not in {"redis", "rediss"}:
        raise InvalidInputError(
            f"REDIS_SENTINEL_HOSTS needs a REDIS_URL of redis:// or rediss://, not {parts.scheme}://"
        )
    who, at, _ = parts.netloc.rpartition("@")
    query = parts.query
    if sentinel_password:
        query += ("&" if query else "") + urlencode({"sentinel_password": sentinel_password})
    path = f"/{quote(master_name, safe='')}/{parts.path.strip('/') or 0}"
    return f"{parts.scheme}+sentinel://{who}{at}{hosts.replace(' ', '')}{path}" + (f"?{query}" if query else "")


@cache
def tls_context(options: TlsOptions) -> ssl.SSLContext:
    """Return the context for ``options``; made once, because reading the authorities takes milliseconds.

    Raises:
        OSError: A file cannot be read.
        ssl.SSLError: A file is no certificate or no key.
    """
    context = ssl.create_default_context()
    context.check_hostname = options.check_hostname and options.cert_reqs != "none"
    context.verify_mode = _CERTIFICATE_CHECKS[options.cert_reqs]
    if options.ca_certs:
        context.load_verify_locations(cafile=options.ca_certs)
    if options.certfile:
        context.load_cert_chain(options.certfile, options.keyfile)
    return context


# -- the three kinds --------------------------------------------------------------------------------------------------


def _one_server(parts: SplitResult, server: Endpoint, options: Mapping[str, str]) -> OneServer:
    if parts.scheme == "unix":
        if not parts.path:
            raise InvalidInputError("must name the socket, such as unix:///run/redis/redis.sock")
        return OneServer(replace(server, path=unquote(parts.path), database=_database(options.get("db", ""))))
    addresses = _addresses(parts, _SERVER_PORT)
    if len(addresses) != 1:
        raise InvalidInputError("names several hosts; that needs redis+sentinel:// or redis+cluster://")
    database = _database(options.get("db", parts.path.strip("/")))
    return OneServer(replace(server.at(*addresses[0]), database=database))


def _sentinel_group(parts: SplitResult, server: Endpoint, options: Mapping[str, str]) -> SentinelGroup:
    name, _, database = parts.path.strip("/").partition("/")
    if not name:
        raise InvalidInputError("must name the master, such as redis+sentinel://host:26379/mymaster/0")
    sentinel = Endpoint(
        username=options.get("sentinel_username"), password=options.get("sentinel_password"), tls=server.tls
    )
    return SentinelGroup(
        sentinels=tuple(sentinel.at(*address) for address in _addresses(parts, _SENTINEL_PORT)),
        master_name=unquote(name),
        server=replace(server, database=_database(options.get("db", database))),
    )


def _cluster_seeds(parts: SplitResult, server: Endpoint, options: Mapping[str, str]) -> ClusterSeeds:
    if _database(options.get("db", parts.path.strip("/"))) != 0:
        raise InvalidInputError("a cluster has only database 0")
    return ClusterSeeds(tuple(server.at(*address) for address in _addresses(parts, _SERVER_PORT)))


# -- parts of the URL -------------------------------------------------------------------------------------------------


def _split(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError as error:  # such as a bracket that is not closed; its text may hold the password
        raise InvalidInputError("is no URL: its host cannot be read") from error


def _hosts_of(parts: SplitResult) -> str:
    return parts.netloc.rpartition("@")[2]


def _addresses(parts: SplitResult, default_port: int) -> list[tuple[str, int]]:
    return [_address(text, default_port) for text in (_hosts_of(parts) or "127.0.0.1").split(",")]


def _address(text: str, default_port: int) -> tuple[str, int]:
    host, separator, port = text.rpartition(":")
    if not separator or text.endswith("]"):  # no port; the colons of an IPv6 address stand in brackets
        host, port = text, str(default_port)
    host = unquote(host.strip("[]"))
    if not host or not port.isascii() or not port.isdigit() or not 1 <= int(port) <= 65535:
        raise InvalidInputError(f"names the address {text!r}, which is not host:port")
    return host, int(port)


def _database(text: str) -> int:
    if not text:
        return 0
    if not text.isascii() or not text.isdigit():
        raise InvalidInputError(f"names the database {text!r}, which is no number")
    return int(text)


def _options(parts: SplitResult) -> dict[str, str]:
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    known = {"db"}
    if parts.scheme.startswith("rediss"):
        known |= _TLS_OPTIONS
    if parts.scheme in _SENTINEL:
        known |= _SENTINEL_OPTIONS
    if unknown := sorted(options.keys() - known):
        raise InvalidInputError(
            f"has the option {unknown[0]!r}, which {parts.scheme}:// does not know ({', '.join(sorted(known))})"
        )
    return options


def _tls(options: Mapping[str, str]) -> TlsOptions:
    cert_reqs = options.get("ssl_cert_reqs", "required")
    if cert_reqs not in _CERTIFICATE_CHECKS:
        raise InvalidInputError(f"has ssl_cert_reqs={cert_reqs}; it must be one of {', '.join(_CERTIFICATE_CHECKS)}")
    tls = TlsOptions(
        ca_certs=options.get("ssl_ca_certs"),
        certfile=options.get("ssl_certfile"),
        keyfile=options.get("ssl_keyfile"),
        cert_reqs=cert_reqs,
        check_hostname=options.get("ssl_check_hostname", "true").lower() not in {"false", "no", "0"},
    )
    try:
        tls_context(tls)
    except OSError as error:  # ssl.SSLError is one
        raise InvalidInputError(f"has TLS options that cannot be used: {error}") from error
    return tls
