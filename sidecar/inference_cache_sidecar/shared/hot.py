"""The calls that clients wait for most, by one pipelined connection to each server: values by key, got and set.

The store and the feature cache call. A server that fails is left alone (its breaker opens) until a ping in the background finds
it well; calls meanwhile fail at once.
"""

import asyncio
import ssl
from collections.abc import Iterable, Sequence
from typing import Any, Final

import hiredis
from redis.exceptions import RedisClusterException, RedisError

from inference_cache_sidecar.breaker import Breaker, BreakerSettings
from inference_cache_sidecar.errors import StoreError, StoreRefused, StoreUnavailable
from inference_cache_sidecar.shared.calls import CallCounts
from inference_cache_sidecar.shared.link import Command, Link, connect
from inference_cache_sidecar.shared.servers import CONNECT_SECONDS, Node, Servers
from inference_cache_sidecar.tasks import ended

FAILURES: Final = 1
"""One late call is enough, so that no request waits twice: if it was but a moment, the ping that follows at once says so."""
HEAL_SECONDS: Final = 0.25
OUTSTANDING: Final = 1024
"""Calls that may wait for one server at once."""
ELSEWHERE: Final = ("MOVED", "ASK", "READONLY", "LOADING", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN")
"""Replies of a server that is not, or not now, the one to ask."""


class _Place:
    """One server: its link, and whether it may be asked."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.breaker = Breaker(BreakerSettings(failures=FAILURES))
        self.link: Link | None = None
        self.connecting: asyncio.Task[Link] | None = None
        self.healing: asyncio.Task[None] | None = None


class HotCalls:
    """`deadline_seconds` bounds every call, connecting included."""

    def __init__(self, servers: Servers, deadline_seconds: float) -> None:
        self._servers = servers
        self._deadline_seconds = deadline_seconds
        self._tls = _tls(servers)
        self._places: dict[Node, _Place] = {}
        self._only: _Place | None = None
        """Where all keys are; None in a Cluster."""
        self.counts = CallCounts()
        self._closed = False

    @property
    def breaker_open(self) -> bool:
        return any(place.breaker.is_open for place in self._places.values())

    @property
    def linked(self) -> bool:
        """A first call would not have to wait for a connection."""
        return any(place.link is not None and not place.link.lost for place in self._places.values())

    async def begin(self) -> None:
        """Connect ahead of the first call, which would wait no longer for that than for an answer. A store that is down is none's harm."""
        try:
            await self._link(await self._place(b""))
        except StoreError:
            return

    async def get(self, key: bytes) -> bytes | None:
        """Raises StoreError."""
        reply = await self._call(key, (b"GET", key))
        return reply if isinstance(reply, bytes) else None

    async def set(self, key: bytes, value: bytes, ttl_seconds: float) -> None:
        """Raises StoreError."""
        await self._call(key, (b"SET", key, value, b"PX", max(1, int(ttl_seconds * 1000))))

    async def delete(self, key: bytes) -> bool:
        """Raises StoreError."""
        return bool(await self._call(key, (b"UNLINK", key)))

    async def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """In one round trip to each server. Raises StoreError."""
        replies = await self.run([(key, (b"GET", key)) for key in keys])
        return [reply if isinstance(reply, bytes) else None for reply in replies]

    async def set_many(self, values: Iterable[tuple[bytes, bytes, float]]) -> None:
        """(key, value, ttl in seconds), in one round trip to each server. Raises StoreError."""
        await self.run([(key, (b"SET", key, value, b"PX", max(1, int(ttl * 1000)))) for key, value, ttl in values])

    async def delete_many(self, keys: Sequence[bytes]) -> int:
        """How many there were. In one round trip to each server. Raises StoreError."""
        return sum(reply for reply in await self.run([(key, (b"UNLINK", key)) for key in keys]) if isinstance(reply, int))

    def reconnect(self) -> None:
        """The servers have changed: leave those there were, which may still answer."""
        for place in self._places.values():
            self._lose(place)

    async def close(self) -> None:
        self._closed = True
        for place in self._places.values():
            await ended(task for task in (place.connecting, place.healing) if task is not None)
            if place.link is not None:
                place.link.close()

    async def _call(self, key: bytes, command: Command) -> object:
        place = self._only or await self._place(key)
        link = place.link
        if link is None or link.lost or place.breaker.is_open:
            link = await self._link(place)
        self._check_room(link, 1)
        self.counts.made += 1
        try:
            reply = await link.send(command, self._deadline_seconds)
        except StoreUnavailable as error:
            self._failed(place, error)
            raise
        place.breaker.succeeded()
        if isinstance(reply, hiredis.ReplyError):
            self._refuse(place, reply)
        return reply

    async def run(self, commands: Sequence[tuple[bytes, Command]], seconds: float | None = None) -> list[Any]:
        """The replies to commands, each with the key that says where it goes. In one round trip to each server. Raises StoreError."""
        by_place: dict[int, tuple[_Place, list[int]]] = {}
        for number, (key, _) in enumerate(commands):
            place = self._only or await self._place(key)
            by_place.setdefault(id(place), (place, []))[1].append(number)
        replies: list[Any] = [None] * len(commands)
        seconds = self._deadline_seconds if seconds is None else seconds
        parts = [self._part(place, [commands[number][1] for number in numbers], seconds) for place, numbers in by_place.values()]
        for (_, numbers), part in zip(by_place.values(), await asyncio.gather(*parts), strict=True):
            for number, reply in zip(numbers, part, strict=True):
                replies[number] = reply
        return replies

    async def _part(self, place: _Place, commands: Sequence[Command], seconds: float) -> list[Any]:
        """One server's share: a deadline for all of it."""
        link = place.link
        if link is None or link.lost or place.breaker.is_open:
            link = await self._link(place)
        self._check_room(link, 1)
        self.counts.made += len(commands)
        try:
            replies = await link.send_all(commands, seconds)
        except StoreUnavailable as error:
            self._failed(place, error)
            raise
        place.breaker.succeeded()
        for reply in replies:
            if isinstance(reply, hiredis.ReplyError):
                self._refuse(place, reply)
        return replies

    def _check_room(self, link: Link, calls: int) -> None:
        if link.outstanding + calls > OUTSTANDING:
            self.counts.refused += calls
            raise StoreUnavailable("too many calls wait for the shared store")

    def _refuse(self, place: _Place, reply: Exception) -> None:
        kind = str(reply).partition(" ")[0]
        if kind in ELSEWHERE:
            self._lose(place)
            raise StoreUnavailable(f"the server is not the one to ask: {kind}")
        raise StoreRefused(f"the shared store refused: {kind}")

    def _failed(self, place: _Place, error: StoreUnavailable) -> None:
        self.counts.failed += 1
        self.counts.late += isinstance(error.__cause__, TimeoutError)
        place.breaker.failed()
        if place.breaker.is_open and place.healing is None:
            place.healing = asyncio.create_task(self._heal(place))

    def _lose(self, place: _Place) -> None:
        if place.link is not None:
            place.link.close()
            place.link = None
        if self._only is None:
            self._servers.forget_slots()

    async def _place(self, key: bytes) -> _Place:
        node = await self._asked(self._servers.node_of(key))
        place = self._places.get(node)
        if place is None:
            place = self._places[node] = _Place(node)
        if self._servers.address.kind != "cluster":
            self._only = place
        return place

    async def _link(self, place: _Place) -> Link:
        """The place's link, made if it is not there. Raises StoreUnavailable; callers share one attempt."""
        if place.breaker.is_open:
            self.counts.refused += 1
            raise StoreUnavailable("the shared store is given a rest")
        try:
            async with asyncio.timeout(self._deadline_seconds):
                return await asyncio.shield(self._attempt(place))
        except TimeoutError as cause:
            error = StoreUnavailable("the shared store does not take a connection in time")
            error.__cause__ = cause
            self._failed(place, error)
            raise error from cause

    def _attempt(self, place: _Place) -> "asyncio.Task[Link]":
        """The only one at a time: of two links, one would stay open and be nobody's."""
        if place.connecting is None:
            place.connecting = asyncio.create_task(self._connect(place))
            place.connecting.add_done_callback(lambda done: self._connected(place, done))
        return place.connecting

    def _connected(self, place: _Place, done: "asyncio.Task[Link]") -> None:
        place.connecting = None
        if done.cancelled():
            return
        failure = done.exception()
        if failure is None and self._closed:
            done.result().close()
        elif failure is None:
            place.link = done.result()
        elif isinstance(failure, StoreUnavailable):
            self._failed(place, failure)

    async def _connect(self, place: _Place) -> Link:
        if self._servers.address.kind == "sentinel":
            place.node = await self._asked(self._servers.node_of(b""))
        host, port = place.node
        return await connect(host, port, self._tls, _greeting(self._servers), CONNECT_SECONDS)

    async def _heal(self, place: _Place) -> None:
        """Until the server answers a ping."""
        try:
            while not await self._answers(place):  # noqa: ASYNC110  nothing here would set an event
                await asyncio.sleep(HEAL_SECONDS)
            place.breaker.succeeded()
        finally:
            place.healing = None

    async def _answers(self, place: _Place) -> bool:
        try:
            link = place.link
            if link is None or link.lost:
                link = await asyncio.shield(self._attempt(place))
            await link.send((b"PING",), HEAL_SECONDS)
        except StoreError:
            self._lose(place)
            return False
        return True

    async def _asked(self, asking: Any) -> Node:
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                node: Node = await asking
                return node
        except (OSError, TimeoutError, RedisError, RedisClusterException) as error:
            raise StoreUnavailable(f"the shared store's servers are not known: {type(error).__name__}") from error


def _greeting(servers: Servers) -> list[Command]:
    address = servers.address
    greeting: list[Command] = []
    if address.password is not None:
        greeting.append(("AUTH", *([address.username] if address.username else []), address.password))
    if address.database:
        greeting.append(("SELECT", address.database))
    return [*greeting, (b"PING",)]


def _tls(servers: Servers) -> ssl.SSLContext | None:
    if not servers.address.tls:
        return None
    options = servers.connection_options()
    context = ssl.create_default_context(cafile=options.get("ssl_ca_certs"))
    context.check_hostname = options["ssl_check_hostname"]
    if "ssl_certfile" in options:
        context.load_cert_chain(options["ssl_certfile"], options.get("ssl_keyfile"))
    return context
