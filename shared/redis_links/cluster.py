"""A Redis Cluster: commands go to the master that has their key, and follow the key when it moves."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import structlog

from shared.errors import ConnectionLostError, InvalidInputError
from shared.redis_links.link import PROBING, USUAL, Patience, SharedAttempt, quick_answer
from shared.redis_links.slots import Address, SlotMap, redirection_of, slot_of_command
from shared.redis_topology import ClusterSeeds, Endpoint
from shared.redis_wire import Command, ErrorReply, RedisWire, Reply

log = structlog.get_logger(__name__)

#: More in a row than any state of a cluster explains.
_MOST_REDIRECTIONS = 8
#: When a node does not tell the map within this, the next one is asked as well.
_NEXT_NODE_AFTER_SECONDS = 0.1
_HOW_IS_IT = ("CLUSTER", "INFO")


@dataclass(frozen=True, slots=True)
class _Errand:
    """A command on its way, and where to."""

    index: int
    command: Command
    node: Address
    asking: bool = False


class ClusterLink:
    """``Link`` to a cluster, over one shared connection per master."""

    def __init__(
        self, seeds: ClusterSeeds, *, on_late: Callable[[], None], on_reconnect: Callable[[bool], None]
    ) -> None:
        """Prepare, without connecting.

        Args:
            seeds: Some nodes.
            on_late: Called when an answer is late.
            on_reconnect: Called, with False, after every connection that is not among the first ones to all masters.
        """
        self._server = seeds.seeds[0]
        self._seeds = [(seed.host, seed.port) for seed in seeds.seeds]
        self._on_late = on_late
        self._on_reconnect = on_reconnect
        self._was_connected = False
        self._slots = SlotMap()
        self._outdated = True
        self._mapping = SharedAttempt(self._read_map)
        self._turn = 0
        self._wires: dict[Address, RedisWire] = {}
        self._connecting: dict[Address, SharedAttempt] = {}
        self._generation = 0

    @property
    def generation(self) -> int:
        return self._generation

    @property
    def connected(self) -> bool:
        return not self._outdated and all(map(self._is_connected_to, self._slots.masters))

    @property
    def open_wires(self) -> int:
        return sum(wire.is_open for wire in self._wires.values())

    async def connect(self) -> None:
        while not self.connected:
            await self._refresh()
            await asyncio.gather(*map(self._wire_to, self._slots.masters))

    async def execute(self, commands: Sequence[Command]) -> list[Reply]:
        if self._outdated:
            await self._refresh()
        replies: list[Reply] = [None] * len(commands)
        errands = [_Errand(index, command, self._node_of(command)) for index, command in enumerate(commands)]
        for _ in range(_MOST_REDIRECTIONS):
            errands = list(self._followed(errands, await self._send(errands), replies))
            if not errands:
                return replies
        raise ConnectionLostError(f"the Redis cluster sends {commands[0][0]!s} from one node to the next")

    async def execute_atomically(self, commands: Sequence[Command]) -> list[Reply]:
        slots = {slot_of_command(command) for command in commands}
        if len(slots) != 1 or None in slots:
            raise InvalidInputError(f"a transaction's keys must lie in one slot of the cluster, not in {len(slots)}")
        transaction: list[Command] = [("MULTI",), *commands, ("EXEC",)]
        for _ in range(_MOST_REDIRECTIONS):
            if self._outdated:
                await self._refresh()
            wire = await self._wire_to(self._node_of(commands[0]))
            replies = await wire.send(transaction, answer_seconds=USUAL.answer_seconds)
            # Redis runs none of them when it has turned one away.
            if not any(isinstance(reply, ErrorReply) and self.moved(reply) for reply in replies[1:]):
                return replies
        raise ConnectionLostError(f"the Redis cluster sends {commands[0][0]!s} from one node to the next")

    async def broadcast(self, command: Command) -> list[Reply]:
        await self.connect()
        wires = await asyncio.gather(*map(self._wire_to, self._slots.masters))
        answers = [wire.send([command], answer_seconds=USUAL.answer_seconds) for wire in wires]
        return [(await answer)[0] for answer in answers]

    async def open_wire(self, command: Command | None) -> RedisWire:
        if self._outdated:
            await self._refresh()
        node = self._slots.masters[0] if command is None else self._node_of(command)
        try:
            return await self._open(node, USUAL)
        except ConnectionLostError:
            self._outdated = True
            raise

    def serves(self, wire: RedisWire, command: Command) -> bool:
        slot = slot_of_command(command)
        return slot is None or self._slots.owner(slot) == (wire.endpoint.host, wire.endpoint.port)

    def moved(self, reply: ErrorReply) -> bool:
        redirection = redirection_of(reply)
        if redirection is None or redirection[0] != "MOVED":
            return False
        _, slot, (host, port) = redirection
        owner = (host or self._server.host, port)
        if self._slots.owner(slot) != owner:
            self._slots.assign(slot, owner)
            self._generation += 1
        self._outdated = True
        return True

    def distrust(self, command: Command, why: str) -> None:
        self._outdated = True
        slot = slot_of_command(command)
        node = None if slot is None else self._slots.owner(slot)
        if node is not None and (wire := self._wires.get(node)):
            wire.close(why)

    async def probe(self) -> None:
        await self._refresh()
        await asyncio.gather(*map(self._probe_node, self._slots.masters))

    def drop(self, why: str) -> None:
        self._outdated = True
        for attempt in (self._mapping, *self._connecting.values()):
            attempt.abandon(why)
        for wire in self._wires.values():
            wire.close(why)

    async def close(self) -> None:
        self.drop("the connection was closed")

    # -- commands -----------------------------------------------------------------------------------------------------

    def _node_of(self, command: Command) -> Address:
        slot = slot_of_command(command)
        if slot is None:
            return self._slots.masters[0]
        node = self._slots.owner(slot)
        if node is None:
            self._outdated = True
            raise ConnectionLostError(f"no node of the Redis cluster has slot {slot}, which {command[0]!s} needs")
        return node

    async def _send(self, errands: Sequence[_Errand]) -> list[Reply]:
        """Return the replies in the order of ``errands``; nothing is sent before every node is connected."""
        by_node: dict[Address, list[_Errand]] = {}
        for errand in errands:
            by_node.setdefault(errand.node, []).append(errand)
        wires = {node: await self._wire_to(node) for node in by_node}
        answers = {
            node: wires[node].send(_with_asking(group), answer_seconds=USUAL.answer_seconds)
            for node, group in by_node.items()
        }
        found: dict[int, Reply] = {}
        for node, group in by_node.items():
            replies = iter(await answers[node])
            for errand in group:
                if errand.asking:
                    next(replies)
                found[errand.index] = next(replies)
        return [found[errand.index] for errand in errands]

    def _followed(
        self, errands: Sequence[_Errand], answers: Sequence[Reply], replies: list[Reply]
    ) -> Iterator[_Errand]:
        """Put ``answers`` into ``replies``; yield what a node has sent elsewhere, which it has not run."""
        for errand, answer in zip(errands, answers, strict=True):
            redirection = redirection_of(answer) if isinstance(answer, ErrorReply) else None
            if redirection is None:
                replies[errand.index] = answer
                continue
            kind, _, (host, port) = redirection
            self.moved(answer)
            yield _Errand(errand.index, errand.command, (host or errand.node[0], port), asking=kind == "ASK")

    # -- nodes --------------------------------------------------------------------------------------------------------

    def _is_connected_to(self, node: Address) -> bool:
        wire = self._wires.get(node)
        return wire is not None and wire.is_open

    async def _wire_to(self, node: Address) -> RedisWire:
        while not self._is_connected_to(node):
            attempt = self._connecting.setdefault(node, SharedAttempt(lambda: self._connect(node)))
            try:
                await attempt.join()
            except ConnectionLostError:
                self._outdated = True  # its replica may have taken over
                raise
        return self._wires[node]

    async def _connect(self, node: Address) -> None:
        before = self._wires.get(node)
        self._adopt(node, await self._open(node, USUAL), instead_of=before)

    async def _open(self, node: Address, patience: Patience) -> RedisWire:
        return await RedisWire.open(
            self._endpoint(node),
            connect_seconds=patience.connect_seconds,
            answer_seconds=patience.answer_seconds,
            on_late=self._on_late,
        )

    def _endpoint(self, node: Address) -> Endpoint:
        return self._server.at(*node)

    def _adopt(self, node: Address, wire: RedisWire, *, instead_of: RedisWire | None) -> None:
        if self._wires.get(node) is not instead_of:
            wire.close()
            return
        if instead_of is not None:
            instead_of.close("it stopped answering")
        self._wires[node] = wire
        self._generation += 1
        if self._was_connected:
            self._on_reconnect(False)
        self._was_connected = self._was_connected or self.connected

    async def _probe_node(self, node: Address) -> None:
        wire = self._wires.get(node)
        if wire is not None and (reply := await quick_answer(wire, _HOW_IS_IT)) is not None:
            _require_healthy(node, reply)
            return
        fresh = await self._open(node, PROBING)
        try:
            (reply,) = await fresh.send([_HOW_IS_IT], answer_seconds=PROBING.answer_seconds)
            _require_healthy(node, reply)
        except BaseException:
            fresh.close()
            raise
        # The old connection may be dead alone: a firewall may have forgotten it. Or it was only slow.
        if wire is not None and await quick_answer(wire, _HOW_IS_IT) is not None:
            fresh.close()
        else:
            self._adopt(node, fresh, instead_of=wire)

    # -- the map ------------------------------------------------------------------------------------------------------

    async def _refresh(self) -> None:
        await self._mapping.join()

    async def _read_map(self) -> None:
        slots = await self._first_map()
        if slots != self._slots:
            self._generation += 1
            log.info("redis_cluster_map", masters=[f"{host}:{port}" for host, port in slots.masters])
        self._slots, self._outdated = slots, False
        self._forget_others()

    async def _first_map(self) -> SlotMap:
        """Ask one node after the other without waiting long for any; the first that answers is right.

        Another one is asked first each time: a node can be cut off from the others without knowing it.
        """
        nodes = list(dict.fromkeys((*self._slots.nodes, *self._seeds)))
        self._turn = (self._turn + 1) % len(nodes)
        problem = ConnectionLostError("it has no nodes")
        asked: set[asyncio.Task[SlotMap]] = set()
        waiting = deque(nodes[self._turn :] + nodes[: self._turn])
        try:
            while waiting or asked:
                if waiting:
                    asked.add(asyncio.create_task(self._ask_for_map(waiting.popleft())))
                patience = _NEXT_NODE_AFTER_SECONDS if waiting else None
                done, asked = await asyncio.wait(asked, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    error = task.exception()
                    if error is None:
                        return task.result()
                    if not isinstance(error, ConnectionLostError):
                        raise error
                    problem = error
        finally:
            for task in asked:
                task.cancel()
        raise ConnectionLostError(f"no node of the Redis cluster answers: {problem}") from problem

    async def _ask_for_map(self, node: Address) -> SlotMap:
        wire = await self._open(node, PROBING)
        try:
            (reply,) = await wire.send([("CLUSTER", "SLOTS")], answer_seconds=PROBING.answer_seconds)
        finally:
            wire.close()
        if isinstance(reply, ErrorReply):
            raise ConnectionLostError(f"Redis at {node[0]}:{node[1]} tells nothing of its cluster: {reply}") from reply
        if not reply:
            raise ConnectionLostError(f"Redis at {node[0]}:{node[1]} knows of no slots")
        return SlotMap(reply, asked=node)

    def _forget_others(self) -> None:
        for node in self._wires.keys() - set(self._slots.masters):
            if self._wires[node].is_idle:
                self._wires.pop(node).close("it has no slots any more")
                self._connecting.pop(node, None)


def _with_asking(group: Sequence[_Errand]) -> list[Command]:
    commands: list[Command] = []
    for errand in group:
        if errand.asking:
            commands.append(("ASKING",))
        commands.append(errand.command)
    return commands


def _require_healthy(node: Address, reply: Reply) -> None:
    where = f"Redis at {node[0]}:{node[1]}"
    if isinstance(reply, ErrorReply):
        if not str(reply).startswith("NOPERM"):  # an ACL may hide it
            raise ConnectionLostError(f"{where} cannot be used: {reply}") from reply
    elif b"cluster_state:ok" not in reply:
        raise ConnectionLostError(f"{where} says that its cluster is down")
