"""Epochs that replicas share, several replicas in one process: what a raise promises holds whatever the store loses, and whenever."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pytest
from tests.services.fault_proxy import FaultProxy
from tests.services.redis_sentinel import SentinelServers
from tests.services.redis_servers import ClusterServers

from inference_cache_contract.epochs import CACHE, Stamp, reachable, tag_epoch
from inference_cache_contract.keyspace import Keyspace, name_digest
from inference_cache_sidecar.breaker import Breaker, BreakerSettings
from inference_cache_sidecar.errors import StoreError
from inference_cache_sidecar.shared.address import parse_redis_url
from inference_cache_sidecar.shared.calls import Calls
from inference_cache_sidecar.shared.epochs import Agreement, SharedEpochs, new_replica_name
from inference_cache_sidecar.shared.hot import HotCalls
from inference_cache_sidecar.shared.link import Command
from inference_cache_sidecar.shared.raises import RAISES_KEPT
from inference_cache_sidecar.shared.servers import Servers
from inference_cache_toolkit.redis_server import RedisServer

pytestmark = pytest.mark.slow

KEYS = Keyspace("test")
TAG = tag_epoch("a")
OTHER = tag_epoch("b")
LEASE = 4.0
DEADLINE = 60.0
Begin = Callable[..., Awaitable["Peer"]]


class Postponing(HotCalls):
    """Answers to scripts are held back while `learned` is not set; values that are read, once `late` is set, until they have come."""

    def __init__(self, servers: Servers, deadline_seconds: float) -> None:
        super().__init__(servers, deadline_seconds)
        self.learned = asyncio.Event()
        self.learned.set()
        self.answered = asyncio.Event()
        self.late = False

    async def run(self, commands: Sequence[tuple[bytes, Command]], seconds: float | None = None) -> list[Any]:
        replies = await super().run(commands, seconds)
        if any("EVAL" in command for _, command in commands) and not self.learned.is_set():
            self.answered.set()
            await self.learned.wait()
        elif self.late:
            self.learned.set()
            await asyncio.sleep(0.05)
        return replies


@dataclass
class Peer:
    """One replica's epochs. Without `live` it confirms only when it is told to."""

    epochs: SharedEpochs
    servers: Servers
    hot: Postponing
    name: str
    task: asyncio.Task[None] | None = None
    reached: list[float] = field(default_factory=list)

    def live(self) -> None:
        self.task = asyncio.create_task(self.epochs.run())

    async def ready(self) -> None:
        async with asyncio.timeout(DEADLINE):
            while not self.epochs.confirmed:
                await asyncio.sleep(0.01)

    async def end(self) -> None:
        """As a process that is killed: it says nothing."""
        if self.task is not None:
            self.task.cancel()
            await asyncio.gather(self.task, return_exceptions=True)
        await self.hot.close()
        await self.servers.close()

    async def stamped(self, *names: str) -> tuple[Stamp, ...]:
        stamps = await self.epochs.stamps([CACHE, *(names or (TAG,))])
        assert stamps is not None
        return stamps

    def serves(self, stamps: tuple[Stamp, ...]) -> bool:
        return reachable(self.epochs, stamps)

    async def would_serve(self, stamps: tuple[Stamp, ...]) -> bool:
        """As the store asks: of names that are not held, too."""
        return await self.epochs.stamps([name for name, _ in stamps]) == stamps

    async def confirmed_again(self) -> None:
        async with asyncio.timeout(DEADLINE):
            while True:
                with suppress(StoreError):
                    await self.epochs.confirm()
                    if self.epochs.confirmed:
                        return
                await asyncio.sleep(0.01)


@pytest.fixture
async def begin() -> AsyncIterator[Begin]:
    """`await begin(url, live=True)`: a replica that has confirmed its epochs; ended with the test."""
    peers: list[Peer] = []

    async def start(url: str, *, live: bool = False, lease: float = LEASE, clock: Callable[[], float] = time.monotonic) -> Peer:
        servers, name = Servers(parse_redis_url(url)), new_replica_name()
        calls, hot = Calls(servers, Breaker(BreakerSettings(3, 0.5)), 10.0), Postponing(servers, 10.0)
        peer = Peer(SharedEpochs(calls, hot, Agreement(KEYS, name, lease, 60.0), clock), servers, hot, name)
        peers.append(peer)
        if live:
            peer.live()
            await peer.ready()
        else:
            await peer.confirmed_again()
        return peer

    yield start
    for peer in peers:
        await peer.end()


async def test_an_answer_of_the_store_that_a_raise_overtook_is_not_believed(begin: Begin, redis: RedisServer) -> None:
    flusher, other = await begin(redis.url), await begin(redis.url)
    old = await flusher.stamped()
    await other.epochs.stamps([CACHE])
    other.hot.learned.clear()
    learning = asyncio.create_task(other.epochs.stamps([CACHE, TAG]))
    await other.hot.answered.wait()
    flusher.epochs.raise_epoch(TAG)
    await flusher.epochs.confirm()

    other.hot.late = True
    await other.epochs.confirm()
    await learning
    assert not other.serves(old)
    assert not await other.would_serve(old)


async def test_a_raise_is_not_acknowledged_while_a_replica_may_not_have_heard_of_it(begin: Begin, redis: RedisServer) -> None:
    """The stream of raises vanishes before anybody has read the raise."""
    flusher, other = await begin(redis.url, live=True), await begin(redis.url, live=True)
    old = await other.stamped()
    stop = asyncio.Event()

    async def evicting() -> None:
        with redis.client() as client:
            while not stop.is_set():
                await asyncio.to_thread(client.delete, KEYS.raises())

    storm = asyncio.create_task(evicting())
    try:
        async with asyncio.timeout(2.5 * LEASE):
            await flusher.epochs.raise_everywhere(TAG)
    except (TimeoutError, StoreError):
        pass
    else:
        assert not other.serves(old)
    finally:
        stop.set()
        await storm
    await other.epochs.confirm()
    await flusher.epochs.confirm()
    await other.epochs.confirm()
    assert not other.serves(old)


async def test_the_loss_of_a_raise_that_nobody_has_read_yet_is_noticed_by_who_made_it(begin: Begin, redis: RedisServer) -> None:
    flusher, other = await begin(redis.url), await begin(redis.url)
    old = await other.stamped()
    flusher.epochs.raise_epoch(TAG)
    await flusher.epochs.confirm()
    with redis.client() as client:
        client.delete(KEYS.raises())
    await flusher.epochs.confirm()
    await other.epochs.confirm()
    assert not other.serves(old)


async def test_a_replica_that_was_away_reads_again_all_it_knew(
    begin: Begin, redis: RedisServer, start_fault_proxy: Callable[[int], Awaitable[FaultProxy]]
) -> None:
    """What it missed may no longer stand in the stream, and who knows of it may be gone."""
    proxy = await start_fault_proxy(redis.port)
    flusher, other = await begin(redis.url, live=True), await begin(proxy.url)
    await other.epochs.confirm()
    old = await other.stamped()
    await proxy.cut()
    await flusher.epochs.raise_everywhere(TAG)
    await flusher.end()
    with redis.client() as client:
        client.delete(KEYS.raises())
    await proxy.heal()
    await other.confirmed_again()
    assert not other.serves(old)


async def test_a_lost_raise_is_noticed_although_another_came_after_it(begin: Begin, redis: RedisServer) -> None:
    """An older snapshot is loaded, and a replica that knows nothing of the loss raises something before the others come back."""
    first, other = await begin(redis.url), await begin(redis.url)
    old = await other.stamped(TAG, OTHER)
    snapshot = redis.save()
    first.epochs.raise_epoch(TAG)
    await first.epochs.confirm()
    await other.epochs.confirm()
    assert not other.serves(old)
    await asyncio.to_thread(redis.restart, snapshot)
    fresh = SharedEpochs(Calls(first.servers, Breaker(BreakerSettings()), 1.0), first.hot, Agreement(KEYS, "fresh", LEASE, 60.0))
    fresh.raise_epoch(OTHER)
    async with asyncio.timeout(DEADLINE):
        while True:
            with suppress(StoreError):
                await fresh.confirm()
                break
    await other.confirmed_again()
    await fresh.confirm()
    async with asyncio.timeout(DEADLINE):
        while not fresh.confirmed:
            await fresh.confirm()
    cache_and_tag = [CACHE, TAG]
    assert await fresh.stamps(cache_and_tag) != old[:2]


async def test_a_replica_that_the_store_has_forgotten_is_waited_for(
    begin: Begin, redis: RedisServer, start_fault_proxy: Callable[[int], Awaitable[FaultProxy]]
) -> None:
    """The list of replicas is lost while one of them cannot hear: it may serve until its lease ends."""
    proxy = await start_fault_proxy(redis.port)
    flusher, other = await begin(redis.url, live=True), await begin(proxy.url, live=True)
    await asyncio.sleep(1.3 * LEASE)
    old = await other.stamped()
    await other.epochs.confirm()
    await proxy.cut()
    with redis.client() as client:
        client.delete(KEYS.replicas())
    await flusher.epochs.raise_everywhere(TAG)
    assert not other.serves(old)


async def test_a_leap_of_the_stores_clock_does_not_make_a_replica_count_as_gone(
    begin: Begin, redis: RedisServer, start_fault_proxy: Callable[[int], Awaitable[FaultProxy]]
) -> None:
    proxy = await start_fault_proxy(redis.port)
    flusher, other = await begin(redis.url, live=True), await begin(proxy.url, live=True)
    await asyncio.sleep(1.3 * LEASE)
    old = await other.stamped()
    await other.epochs.confirm()
    await proxy.cut()
    with redis.client() as client:
        at, _, rest = client.hget(KEYS.replicas().decode(), other.name).partition(" ")
        client.hset(KEYS.replicas().decode(), other.name, f"{int(at) - 30_000} {rest}")
    await flusher.epochs.raise_everywhere(TAG)
    assert not other.serves(old)


async def test_an_epoch_that_its_server_alone_has_lost_is_not_believed(begin: Begin, cluster: ClusterServers) -> None:
    """In a Cluster one node goes back in time, the one with the stream of raises does not."""
    flusher, other = await begin(cluster.url), await begin(cluster.url)
    old = await flusher.stamped()
    flusher.epochs.raise_epoch(TAG)
    await flusher.epochs.confirm()
    await other.epochs.confirm()
    with cluster.node_of(KEYS.epoch(TAG).decode()).client() as client:
        client.set(KEYS.epoch(TAG), dict(old)[TAG])
    assert not await other.would_serve(old)
    fresh = await begin(cluster.url)
    assert not await fresh.would_serve(old)


async def test_a_raise_during_a_failover_is_not_lost(begin: Begin, sentinel: SentinelServers) -> None:
    """The former master lives on, and the flusher is still connected to it."""
    flusher, other = await begin(sentinel.url, live=True), await begin(sentinel.url, live=True)
    old = await other.stamped()
    await flusher.stamped()
    await asyncio.to_thread(sentinel.failover)
    await flusher.epochs.raise_everywhere(TAG)
    assert not other.serves(old)
    fresh = await begin(sentinel.url)
    assert not await fresh.would_serve(old)


@pytest.mark.parametrize("early", [False, True], ids=["none-raised-before", "some-raised-before"])
async def test_more_raises_than_the_stream_keeps_are_not_missed(begin: Begin, redis: RedisServer, early: bool) -> None:
    peer, other = await begin(redis.url), await begin(redis.url)
    if early:
        other.epochs.raise_epoch(OTHER)
        await other.epochs.confirm()
        await peer.epochs.confirm()
    names = [tag_epoch(str(number)) for number in range(RAISES_KEPT + 1000)]
    old = await peer.stamped(*names)
    for name in names:
        other.epochs.raise_epoch(name)
    await other.epochs.confirm()
    await peer.confirmed_again()
    assert not any(peer.serves((stamp,)) for stamp in old[1:])
    assert peer.serves(old[:1])


async def test_a_name_raised_again_while_it_is_being_told_is_told_again(begin: Begin, redis: RedisServer) -> None:
    peer, other = await begin(redis.url), await begin(redis.url)
    await peer.stamped()
    peer.hot.learned.clear()
    peer.epochs.raise_epoch(TAG)
    telling = asyncio.create_task(peer.epochs.confirm())
    await peer.hot.answered.wait()
    between = peer.epochs.raise_epoch(TAG)
    peer.hot.learned.set()
    await telling
    await peer.epochs.confirm()
    stamps = await other.stamped()
    assert dict(stamps)[TAG] >= between
    assert await peer.would_serve(stamps)


async def test_a_confirmation_that_took_longer_than_a_lease_counts_for_nothing(begin: Begin, redis: RedisServer) -> None:
    now = [1000.0]
    peer = await begin(redis.url, clock=lambda: now[0])
    register = peer.epochs._roll.register

    async def slow(seen: bytes, server: bytes) -> None:
        await register(seen, server)
        now[0] += LEASE

    peer.epochs._roll.register = slow  # type: ignore[method-assign]
    await peer.epochs.confirm()
    assert not peer.epochs.confirmed


async def test_a_lease_ends_while_the_process_stands_still(begin: Begin, redis: RedisServer) -> None:
    now = [1000.0]
    peer = await begin(redis.url, clock=lambda: now[0])
    stamps = await peer.stamped()
    now[0] += LEASE - 0.001
    assert peer.serves(stamps)
    now[0] += 0.001
    assert not peer.serves(stamps)
    assert await peer.epochs.stamps([CACHE]) is None


HUGE = b"9" * 30


async def test_junk_in_the_store_is_raised_over(begin: Begin, redis: RedisServer) -> None:
    peer, other = await begin(redis.url), await begin(redis.url)
    old = await peer.stamped(TAG, OTHER)
    with redis.client() as client:
        client.set(KEYS.epoch(TAG), "junk")
        client.set(KEYS.epoch(OTHER), HUGE)
        client.set(KEYS.server(), "junk")
        client.hset(KEYS.replicas().decode(), mapping={"a": "junk", "b": "", "c": "1 2 3 4", "d": f"{HUGE.decode()} 5-x y"})
        client.xadd(KEYS.raises(), {"junk": "junk"})
        client.xadd(KEYS.raises(), {"n": "", "v": ""})
        client.xadd(KEYS.raises(), {"n": name_digest(CACHE), "v": HUGE})
    for each in (peer, other):
        await each.confirmed_again()
    third = await begin(redis.url, live=True)
    async with asyncio.timeout(DEADLINE):
        while (stamps := await third.epochs.stamps([CACHE, TAG, OTHER])) is None:
            await asyncio.sleep(0.01)
    assert all(value < 10**15 for _, value in stamps)
    for each in (peer, other):
        await each.confirmed_again()
        assert not await each.would_serve(old)
        assert await each.would_serve(stamps)
