"""How contestants are put on: a flow of events, a client and its server, or one process alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from infrastructure.bench.crew import Part, Worker, crew
from infrastructure.bench.figures import Measured
from infrastructure.bench.stage import MachineUse, Stage


class Play(Protocol):
    """What a contestant does in one round."""

    async def perform(self, stage: Stage, seconds: float) -> Measured:
        """Do it for about so long and return what came of it."""
        ...


@dataclass(frozen=True, slots=True)
class Solo:
    """One process.

    Attributes:
        runs: What it does, as in ``Part``.
        figure: Which of its figures counts.
        options: Told to it.
    """

    runs: str
    figure: str
    options: Mapping[str, Any] = field(default_factory=dict)

    async def perform(self, stage: Stage, seconds: float) -> Measured:
        """See ``Play``."""
        await stage.clear()
        part = Part("worker", self.runs, _options(stage, seconds, self.options))
        async with crew(part, profile_to=stage.profile_to) as (worker,):
            await worker.ready()
            use = MachineUse()
            redis_before = stage.redis_seconds()
            await worker.go()
            result = await worker.result()
        redis_seconds = stage.redis_seconds() - redis_before
        details = _figures(result) | _use(use, {"worker": _cpu(result), "redis": redis_seconds}, result["count"])
        return Measured(result[self.figure], details)


@dataclass(frozen=True, slots=True)
class Duet:
    """A server process and a client process; the server's facts (its port) are told to the client.

    Attributes:
        server: What the server does.
        client: What the client does.
        figure: Which of the client's figures counts.
        options: Told to both.
    """

    server: str
    client: str
    figure: str
    options: Mapping[str, Any] = field(default_factory=dict)

    async def perform(self, stage: Stage, seconds: float) -> Measured:
        """See ``Play``."""
        await stage.clear()
        options = _options(stage, seconds, self.options)
        async with crew(Part("server", self.server, options), profile_to=stage.profile_to) as (server,):
            facts = await server.ready()
            await server.go()
            part = Part("client", self.client, {**options, **facts})
            async with crew(part, profile_to=stage.profile_to) as (client,):
                await client.ready()
                use = MachineUse()
                redis_before = stage.redis_seconds()
                await client.go()
                result = await client.result()
            await server.expect(0)
            answered = await server.result()
        seconds_of = {
            "client": _cpu(result),
            "server": _cpu(answered),
            "redis": stage.redis_seconds() - redis_before,
        }
        return Measured(result[self.figure], _figures(result) | _use(use, seconds_of, result["count"]))


@dataclass(frozen=True, slots=True)
class Flow:
    """Producers and, where there is one, a consumer; the figure is events per second.

    With a consumer the time runs from the first publish to the last acknowledgement.

    Attributes:
        producer: What each producer does.
        consumer: What the consumer does; None measures the publishing alone.
        options: Told to all of them.
        producers: How many there are.
        stream: Redis stream on which every entry must be acknowledged in the end; None where there is no such thing.
        on_nats: Whether they need the NATS server.
    """

    producer: str
    consumer: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    producers: int = 1
    stream: str | None = None
    on_nats: bool = False

    async def perform(self, stage: Stage, seconds: float) -> Measured:
        """See ``Play``."""
        await stage.clear()
        wanted = {**self.options, "nats_url": await stage.nats_url()} if self.on_nats else self.options
        options = _options(stage, seconds, wanted)
        parts = [Part("consumer", self.consumer, options)] if self.consumer else []
        parts += [
            Part(f"producer-{number}", self.producer, {**options, "instance": f"bench-{number}"})
            for number in range(1, self.producers + 1)
        ]
        async with crew(*parts, profile_to=stage.profile_to) as workers:
            for worker in workers:
                await worker.ready()
            use = MachineUse()
            redis_before = stage.redis_seconds()
            for worker in workers:
                await worker.go()
            consumer = workers[0] if self.consumer else None
            published, consumed = await _collect(consumer, workers[1:] if consumer else workers)
        if self.stream is not None and consumed is not None:
            stage.require_all_acknowledged(self.stream)
        return _measured_flow(use, published, consumed, stage.redis_seconds() - redis_before)


async def _collect(
    consumer: Worker | None, producers: Sequence[Worker]
) -> tuple[list[dict[str, Any]], dict[str, Any] | None]:
    published = [await producer.result() for producer in producers]
    if consumer is None:
        return published, None
    await consumer.expect(sum(result["count"] for result in published))
    return published, await consumer.result()


def _measured_flow(
    use: MachineUse, published: Sequence[dict[str, Any]], consumed: dict[str, Any] | None, redis_seconds: float
) -> Measured:
    count = sum(result["count"] for result in published)
    began = min(result["began"] for result in published)
    published_per_s = count / (max(result["ended"] for result in published) - began)
    seconds_of = {"producer": sum(map(_cpu, published)), "redis": redis_seconds}
    if consumed is not None:
        seconds_of["consumer"] = _cpu(consumed)
    details = {"count": count, "published_per_s": round(published_per_s), **_use(use, seconds_of, count)}
    return Measured(published_per_s if consumed is None else count / (consumed["ended"] - began), details)


def _options(stage: Stage, seconds: float, options: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "redis_url": stage.redis.url,
        "folder": str(stage.files),
        "seconds": seconds,
        "instance": "bench-1",
        **options,
    }


def _use(use: MachineUse, seconds_of: Mapping[str, float], count: int) -> dict[str, Any]:
    """Return what the round cost: microseconds of processor per event or call by process, and how busy all was."""
    busy, foreign = use.shares(sum(seconds_of.values()))
    return {
        "cpu_us": {name: round(seconds / max(1, count) * 1e6, 2) for name, seconds in seconds_of.items()},
        "cpu_seconds": {name: round(seconds, 3) for name, seconds in seconds_of.items()},
        "machine_busy": round(busy, 3),
        "foreign_cpu": round(foreign, 3),
    }


def _figures(result: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: round(value, 3) if isinstance(value, float) else value
        for name, value in result.items()
        if not name.endswith("_seconds")
    }


def _cpu(result: Mapping[str, Any]) -> float:
    seconds: float = result["user_seconds"] + result["system_seconds"]
    return seconds
