"""The floor under RPC over streams: two raw hops, blocking sockets, nothing but the bytes of a request and a reply."""

from __future__ import annotations

from typing import Any

import orjson

from infrastructure.bench.cue import Cue, seconds_now
from infrastructure.bench.ours.rpc import PARAMETERS, latency_figures
from infrastructure.bench.rivals.hand_packed import BlockingRedis, pack
from infrastructure.bench.rivals.rpc_bodies import RpcBodies

_REQUESTS = b"bench:hops:request"
_REPLIES = b"bench:hops:reply"
_GROUP = b"hops"
_WARM_UP = 50


def serve(cue: Cue) -> dict[str, Any]:
    """Send every body back until the client is done."""
    redis = BlockingRedis(cue.options["redis_url"])
    redis.ask(pack(b"XGROUP", b"CREATE", _REQUESTS, _GROUP, b"0", b"MKSTREAM"))
    head = (b"XREADGROUP", b"GROUP", _GROUP, b"bench", b"BLOCK", b"50")
    read = pack(*head, b"STREAMS", _REQUESTS, b">")
    cue.wait_for_start()
    while cue.expected is None:
        answer = redis.ask(read)
        for _, (_, body) in answer[0][1] if answer else ():
            redis.ask(pack(b"XADD", _REPLIES, b"*", b"b", body))
    return {}


def call(cue: Cue) -> dict[str, Any]:
    """Call, one at a time, and measure each call."""
    redis = BlockingRedis(cue.options["redis_url"])
    body = orjson.dumps(RpcBodies().request(PARAMETERS))
    cursor = b"0"

    def call_once() -> None:
        nonlocal cursor
        # Both at once: the read blocks until the reply is there.
        read = pack(b"XREAD", b"BLOCK", b"5000", b"STREAMS", _REPLIES, cursor)
        redis.send(pack(b"XADD", _REQUESTS, b"*", b"b", body) + read)
        cursor = redis.receive(2)[1][0][1][-1][0]

    cue.wait_for_start()
    for _ in range(_WARM_UP):
        call_once()
    began = seconds_now()
    times: list[float] = []
    while (start := seconds_now()) < began + cue.options["seconds"]:
        call_once()
        times.append(seconds_now() - start)
    return latency_figures(times, seconds_now() - began)
