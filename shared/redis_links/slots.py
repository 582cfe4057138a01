"""Which slot of a cluster a command belongs to, and which master has the slot."""

from __future__ import annotations

from binascii import crc_hqx
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import TypeAlias

from shared.errors import InvalidInputError
from shared.redis_wire import Command, Part, Reply

SLOTS = 16384

#: ``(host, port)`` of a node.
Address: TypeAlias = tuple[str, int]

#: Commands that any node answers alike.
_WITHOUT_KEY = frozenset({"PING", "ECHO", "TIME", "PUBLISH"})
#: Commands whose key stands second, after a subcommand.
_KEY_SECOND = frozenset({"XGROUP", "XINFO", "OBJECT"})
#: Commands with the key, or the first of several, right behind the name.
# fmt: off
_KEY_FIRST = frozenset({
    "DEL", "EXISTS", "EXPIRE", "EXPIREAT", "PERSIST", "PEXPIRE", "PEXPIREAT", "PTTL", "TTL", "TYPE", "UNLINK",
    "GET", "GETDEL", "GETEX", "GETSET", "INCR", "INCRBY", "DECR", "DECRBY", "PSETEX", "SET", "SETEX", "SETNX",
    "STRLEN", "HDEL", "HEXISTS", "HGET", "HGETALL", "HINCRBY", "HKEYS", "HLEN", "HMGET", "HSET", "HSETNX",
    "HVALS", "BLPOP", "BRPOP", "LINDEX", "LLEN", "LPOP", "LPUSH", "LRANGE", "LREM", "LSET", "LTRIM", "RPOP",
    "RPUSH", "SADD", "SCARD", "SISMEMBER", "SMEMBERS", "SREM", "ZADD", "ZCARD", "ZCOUNT", "ZRANGE",
    "ZRANGEBYSCORE", "ZRANK", "ZREM", "ZREMRANGEBYRANK", "ZREMRANGEBYSCORE", "ZREVRANGE", "ZSCORE", "XACK",
    "XADD", "XAUTOCLAIM", "XCLAIM", "XDEL", "XLEN", "XPENDING", "XRANGE", "XREVRANGE", "XTRIM",
})
# fmt: on


def slot_of_command(command: Command) -> int | None:
    """Return the slot of the command's (first) key; None when any node will do.

    Raises:
        InvalidInputError: It is not known where this command has its key.
    """
    name = _text(command[0]).upper()
    if name in _WITHOUT_KEY:
        return None
    try:
        return slot_of(command[_key_index(name, command)])
    except (IndexError, StopIteration):
        raise InvalidInputError(f"the Redis command {name} has no key") from None


def _key_index(name: str, command: Command) -> int:
    if name in _KEY_FIRST:
        return 1
    if name in _KEY_SECOND:
        return 2
    if name in {"XREAD", "XREADGROUP"}:
        # A group or a consumer may be called like the word that the keys follow.
        begin = 4 if name == "XREADGROUP" else 1
        return 1 + next(index for index in range(begin, len(command)) if _text(command[index]).upper() == "STREAMS")
    raise InvalidInputError(
        f"the Redis command {name} cannot be routed in a cluster: where its key stands is not known"
    )


def _text(part: Part) -> str:
    return part.decode("latin-1") if isinstance(part, bytes) else str(part)


@lru_cache(maxsize=8192)
def slot_of(key: Part) -> int:
    """Return the slot of ``key``: of what stands in its first braces, else of all of it."""
    data = key if isinstance(key, bytes) else str(key).encode()
    begin = data.find(b"{")
    if begin >= 0:
        end = data.find(b"}", begin)
        if end > begin + 1:
            data = data[begin + 1 : end]
    return crc_hqx(data, 0) % SLOTS  # the CRC16 of the XMODEM protocol, as Redis Cluster takes it


class SlotMap:
    """Which master has which slot.

    Attributes:
        masters: Every master that has slots, in the order of the slots.
        nodes: Masters and replicas.
    """

    def __init__(self, rows: Iterable[Reply] = (), *, asked: Address | None = None) -> None:
        """Read an answer to CLUSTER SLOTS.

        Args:
            rows: The answer.
            asked: Who gave it; stands for a node that does not know its own host.
        """
        self._owners: list[Address | None] = [None] * SLOTS
        nodes: dict[Address, None] = {}
        for first, last, *servers in rows:
            addresses = [_address(server, asked) for server in servers]
            self._owners[first : last + 1] = [addresses[0]] * (last + 1 - first)
            nodes.update(dict.fromkeys(addresses))
        self.nodes = tuple(nodes)
        self.masters = self._all_owners()

    def owner(self, slot: int) -> Address | None:
        """Return the master of ``slot``; None when nobody has it."""
        return self._owners[slot]

    def assign(self, slot: int, owner: Address) -> None:
        """Take note that ``slot`` went to ``owner``."""
        self._owners[slot] = owner
        if owner not in self.masters:
            self.masters = self._all_owners()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SlotMap) and self._owners == other._owners

    __hash__ = None  # type: ignore[assignment]  # it changes

    def _all_owners(self) -> tuple[Address, ...]:
        return tuple(dict.fromkeys(owner for owner in self._owners if owner is not None))


def _address(server: Sequence[Reply], asked: Address | None) -> Address:
    host, port = server[0], server[1]
    if not host or host == b"?":
        assert asked is not None
        return asked[0], int(port)
    return host.decode(), int(port)


def redirection_of(reply: Exception) -> tuple[str, int, Address] | None:
    """Return ``("MOVED" | "ASK", slot, address)`` when an error reply sends its reader elsewhere."""
    kind, _, rest = str(reply).partition(" ")
    if kind not in {"MOVED", "ASK"}:
        return None
    slot, _, address = rest.partition(" ")
    host, _, port = address.rpartition(":")
    return kind, int(slot), (host, int(port))
