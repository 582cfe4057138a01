"""The limit: events packed by hand, blocking sockets, pipelines, and nothing that makes a bus safe.

The consumer neither validates nor tries again; it only proves that what arrives is JSON.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

import hiredis
import orjson

from infrastructure.bench.cue import Cue, seconds_now
from infrastructure.bench.samples import EVENT_TYPE, SignalSamples, plain_metadata
from infrastructure.bench.statistics import percentile
from shared.clock import SystemClock
from shared.errors import ConnectionLostError
from shared.events.streams import event_stream
from shared.ids import RandomIds

STREAM = event_stream(EVENT_TYPE).encode()
GROUP = b"hand-packed"
_SOURCE = "ai-service"
_TICK_SECONDS = 0.001
_RECEIVE_BYTES = 1 << 20


class BlockingRedis:
    """A blocking socket to Redis."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._socket = socket.create_connection((parts.hostname or "127.0.0.1", parts.port or 6379))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reader = hiredis.Reader()
        if parts.password:
            self.ask(pack(b"AUTH", parts.password.encode()))

    def send(self, packed: bytes) -> None:
        """Send packed commands."""
        self._socket.sendall(packed)

    def receive(self, count: int) -> list[Any]:
        """Return the next ``count`` replies.

        Raises:
            ConnectionLostError: The server ended the connection, or refused a command.
        """
        replies: list[Any] = []
        while len(replies) < count:
            reply = self._reader.gets()
            if reply is False:
                self._reader.feed(self._received())
                continue
            if isinstance(reply, hiredis.ReplyError):
                raise ConnectionLostError(f"Redis refused a command: {reply}")
            replies.append(reply)
        return replies

    def ask(self, packed: bytes) -> Any:
        """Send one packed command and return its reply."""
        self.send(packed)
        return self.receive(1)[0]

    def close(self) -> None:
        """End the connection."""
        self._socket.close()

    def _received(self) -> bytes:
        data = self._socket.recv(_RECEIVE_BYTES)
        if not data:
            raise ConnectionLostError("Redis closed the connection")
        return data


def pack(*parts: bytes) -> bytes:
    """Return one command as it travels."""
    return b"".join((b"*%d\r\n" % len(parts), *(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts)))


class EventPacker:
    """Packs XADD commands of full events.

    Args:
        validated: Whether each payload is built as the model that the bus publishes, which refuses what is wrong with
            it; otherwise it is a dict that nobody looks at.
    """

    def __init__(self, *, validated: bool) -> None:
        self._clock = SystemClock()
        self._samples = SignalSamples(self._clock)
        self._next_payload = self._validated if validated else self._samples.plain
        self._ids = RandomIds()
        self._number = 0
        producer = b"ai-service:bench:0f8e6d5c-4b3a-4291-8f7e-6c1f5f0e3d0a"
        head = b"*9\r\n$4\r\nXADD\r\n$%d\r\n%b\r\n$1\r\n*\r\n$8\r\nproducer\r\n$%d\r\n%b\r\n$8\r\nmetadata\r\n"
        self._head = head % (len(STREAM), STREAM, len(producer), producer)

    def batch(self, count: int) -> bytes:
        """Return ``count`` commands, one after the other."""
        return b"".join([self._next() for _ in range(count)])

    def _validated(self) -> dict[str, Any]:
        return self._samples.payload().__dict__

    def _next(self) -> bytes:
        self._number += 1
        now: datetime = self._clock.now()
        metadata = orjson.dumps(plain_metadata(self._number, now, self._ids, source=_SOURCE))
        payload = orjson.dumps(self._next_payload())
        return b"%b$%d\r\n%b\r\n$7\r\npayload\r\n$%d\r\n%b\r\n" % (
            self._head,
            len(metadata),
            metadata,
            len(payload),
            payload,
        )


def produce(cue: Cue) -> dict[str, Any]:
    """Append batches, one batch ahead of the answers."""
    redis, size = BlockingRedis(cue.options["redis_url"]), cue.options["batch"]
    packer = EventPacker(validated=cue.options["validated"])
    cue.wait_for_start()
    began = seconds_now()
    deadline = began + cue.options["seconds"]
    redis.send(packer.batch(size))
    sent = size
    while seconds_now() < deadline:
        redis.send(packer.batch(size))
        sent += size
        redis.receive(size)
    redis.receive(size)
    return {"count": sent, "began": began, "ended": seconds_now()}


def consume(cue: Cue) -> dict[str, Any]:
    """Read, parse and acknowledge batches, the acknowledgement of one together with the request for the next."""
    redis = BlockingRedis(cue.options["redis_url"])
    redis.ask(pack(b"XGROUP", b"CREATE", STREAM, GROUP, b"0", b"MKSTREAM"))
    size = b"%d" % cue.options["batch"]
    read = pack(
        *(b"XREADGROUP", b"GROUP", GROUP, b"consumer", b"COUNT", size),
        *(b"BLOCK", b"50", b"STREAMS", STREAM, b">"),
    )
    cue.wait_for_start()
    handled, ended = 0, seconds_now()
    redis.send(read)
    while cue.expected is None or handled < cue.expected:
        (answer,) = redis.receive(1)
        ids = _parse(answer[0][1]) if answer else []
        redis.send((pack(b"XACK", STREAM, GROUP, *ids) if ids else b"") + read)
        if ids:
            redis.receive(1)
            handled += len(ids)
            ended = seconds_now()
    return {"count": handled, "ended": ended}


def _parse(rows: Sequence[Any]) -> list[bytes]:
    """Return the ids of the entries, after all their JSON was read."""
    ids = []
    for entry_id, fields in rows:
        by_name = dict(zip(fields[::2], fields[1::2], strict=True))
        orjson.loads(by_name[b"metadata"])
        orjson.loads(by_name[b"payload"])
        ids.append(entry_id)
    return ids


def publish_on_schedule(cue: Cue) -> dict[str, Any]:
    """Append at a fixed rate; latency counts from the moment at which an event was due."""
    redis, packer = BlockingRedis(cue.options["redis_url"]), EventPacker(validated=True)
    at_once = round(cue.options["rate"] * _TICK_SECONDS)
    latencies: list[float] = []
    cue.wait_for_start()
    began = seconds_now()
    for tick in range(round(cue.options["seconds"] / _TICK_SECONDS)):
        due = began + tick * _TICK_SECONDS
        cue.pause(due - seconds_now())
        redis.send(packer.batch(at_once))
        redis.receive(at_once)
        latencies += [seconds_now() - due] * at_once
    return {
        "count": len(latencies),
        "p50_ms": percentile(latencies, 0.50) * 1000,
        "p99_ms": percentile(latencies, 0.99) * 1000,
    }
