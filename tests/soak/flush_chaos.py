"""Flushes among faults drawn by lot, for as long as is wanted: no request that starts a second after the acknowledgement is given what
was flushed.

    python -m tests.soak.flush_chaos [--minutes 10] [--seed 1] [--store redis|sentinel]

Three sidecars in processes of their own are asked all the time. Round by round one of them flushes something, while replicas are cut
off, stopped or killed, and the store is stopped, rolled back, emptied or failed over. A line for each round; the last one is a JSON
object; exit status 1 if anything flushed was served.
"""

import argparse
import asyncio
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import uvloop
from tests.services.chaos import LEASE_SECONDS, REPLICAS, VERSION, Chaos, chaos
from tests.services.chaos_traffic import CATEGORY, TAGS, Flushed, Traffic
from tests.services.redis_sentinel import SentinelServers, sentinel_servers

from inference_cache_toolkit.redis_server import RedisServer, redis_server

TARGETS = ({"all": True}, {"version": VERSION}, {"category": CATEGORY}, *({"tag": tag} for tag in TAGS))
LONGEST_FAULT = 2 * LEASE_SECONDS
Fault = Callable[[], Awaitable[None]]


@dataclass
class Course:
    """What has become of the run so far."""

    flushes: list[Flushed] = field(default_factory=list)
    hits: list[float] = field(default_factory=list)
    """Of each round, before its faults."""
    refused: int = 0
    """Flushes that could not be acknowledged at once."""
    wrong: list[str] = field(default_factory=list)


@dataclass
class Faults:
    """Each breaks something, waits, and mends it. `chance` decides how long it waits."""

    three: Chaos
    chance: random.Random

    async def wait(self) -> None:
        await asyncio.sleep(self.chance.uniform(0.0, LONGEST_FAULT))

    async def cut(self, replica: int) -> None:
        await self.three.proxies[replica].cut()
        await self.wait()
        await self.three.proxies[replica].heal()

    async def hang(self, replica: int) -> None:
        self.three.proxies[replica].hang()
        await self.wait()
        await self.three.proxies[replica].heal()

    async def stand_still(self, replica: int) -> None:
        await asyncio.to_thread(self.three.replicas[replica].pause)
        await self.wait()
        self.three.replicas[replica].resume()

    async def kill(self, replica: int) -> None:
        await self.three.replicas[replica].kill()
        await self.wait()
        await self.three.replicas[replica].start()

    async def pause_server(self, server: RedisServer) -> None:
        await asyncio.to_thread(server.pause)
        await self.wait()
        server.resume()

    async def roll_back(self, server: RedisServer, snapshot: Path) -> None:
        await asyncio.to_thread(server.kill)
        await asyncio.sleep(self.chance.uniform(0.0, 0.5))
        await asyncio.to_thread(server.restart, snapshot)

    async def evict(self, server: RedisServer) -> None:
        with server.client() as client:
            keys = client.keys("inference-cache:*")
            gone = [key for key in keys if ":e1:" not in key and self.chance.random() < 0.5]
            if gone:
                client.delete(*gone)

    async def empty(self, server: RedisServer) -> None:
        await asyncio.to_thread(server.empty)

    async def fail_over(self, servers: SentinelServers) -> None:
        await asyncio.to_thread(servers.failover)

    async def lose_master(self, servers: SentinelServers, *, behind: bool) -> None:
        """`behind`: the one that is promoted has heard nothing for a while."""
        master, (other, *_) = servers.master(), servers.replicas()
        if behind:
            await asyncio.to_thread(other.pause)
            await self.wait()
        await asyncio.to_thread(master.kill)
        other.resume()
        await asyncio.to_thread(servers.promoted, master.port)

    async def pause_master(self, servers: SentinelServers) -> None:
        master = servers.master()
        await asyncio.to_thread(master.pause)
        await asyncio.to_thread(servers.promoted, master.port)
        await self.wait()
        master.resume()


@dataclass
class Standalone:
    """One server, each replica behind a proxy of its own."""

    server: RedisServer

    def drawn(self, faults: Faults) -> list[tuple[str, Fault]]:
        """What goes wrong in a round: something with a replica, something with the store, or both."""
        chance, server = faults.chance, self.server
        replica = chance.randrange(REPLICAS)
        of_replicas: list[tuple[str, Fault]] = [
            (f"{fault.__name__} {replica}", partial(fault, replica)) for fault in (faults.cut, faults.hang, faults.stand_still, faults.kill)
        ]
        of_store: list[tuple[str, Fault]] = [
            ("pause store", partial(faults.pause_server, server)),
            ("roll back", partial(faults.roll_back, server, server.save())),
            ("evict", partial(faults.evict, server)),
            ("empty", partial(faults.empty, server)),
        ]
        drawn = [chance.choice(of_replicas), chance.choice(of_store)]
        return drawn if chance.random() < 0.5 else [chance.choice(drawn)]

    async def whole(self) -> None:
        if self.server.is_up:
            self.server.resume()
        else:
            await asyncio.to_thread(self.server.start)
        for old in self.server.folder.glob("snapshot-*.rdb"):
            old.unlink()


@dataclass
class Watched:
    """A master, its replica and three sentinels."""

    servers: SentinelServers

    def drawn(self, faults: Faults) -> list[tuple[str, Fault]]:
        chance, servers = faults.chance, self.servers
        replica = chance.randrange(REPLICAS)
        of_replicas: list[tuple[str, Fault]] = [
            (f"{fault.__name__} {replica}", partial(fault, replica)) for fault in (faults.stand_still, faults.kill)
        ]
        of_store: list[tuple[str, Fault]] = [
            ("fail over", partial(faults.fail_over, servers)),
            ("lose master", partial(faults.lose_master, servers, behind=False)),
            ("lose master and writes", partial(faults.lose_master, servers, behind=True)),
            ("pause master", partial(faults.pause_master, servers)),
        ]
        drawn = [chance.choice(of_replicas), chance.choice(of_store)]
        return drawn if chance.random() < 0.5 else [chance.choice(drawn)]

    async def whole(self) -> None:
        await asyncio.to_thread(self.servers.whole)


async def rounds(three: Chaos, store: Standalone | Watched, chance: random.Random, seconds: float) -> Course:
    course, end = Course(), time.monotonic() + seconds
    faults = Faults(three, chance)
    while time.monotonic() < end:
        await store.whole()
        await three.whole()
        async with three.asked() as traffic:
            await one(three, store.drawn(faults), chance, traffic, course)
    return course


async def one(three: Chaos, drawn: list[tuple[str, Fault]], chance: random.Random, traffic: Traffic, course: Course) -> None:
    """A flush, before, within or after the faults."""
    course.hits.append(traffic.hits(time.monotonic() - 1.0))
    target, replica = chance.choice(TARGETS), chance.randrange(REPLICAS)
    going = [asyncio.create_task(_later(chance.uniform(0.0, 1.0), fault)) for _, fault in drawn]
    await asyncio.sleep(chance.uniform(0.0, 1.5))
    flushed, refused = await three.flush_until_acknowledged(replica, target)
    await asyncio.gather(*going)
    await traffic.outlasts(flushed)
    course.flushes.append(flushed)
    course.refused += refused
    course.wrong += traffic.forbidden(flushed)
    say(
        f"{', '.join(name for name, _ in drawn):<40} flush of {target} by {replica} in {flushed.seconds:6.3f} s; last served "
        f"{traffic.latest(flushed):+.3f} s; {len(traffic.heard)} requests, {len(course.wrong)} wrong in all"
    )


async def _later(seconds: float, fault: Fault) -> None:
    await asyncio.sleep(seconds)
    await fault()


@asynccontextmanager
async def started(kind: str, folder: Path) -> AsyncIterator[tuple[Chaos, Standalone | Watched]]:
    async with AsyncExitStack() as stack:
        if kind == "sentinel":
            servers = stack.enter_context(sentinel_servers(folder / "servers"))
            three = await stack.enter_async_context(chaos(folder, url=servers.url))
            yield three, Watched(servers)
        else:
            server = stack.enter_context(redis_server(folder / "server"))
            three = await stack.enter_async_context(chaos(folder, [server.port] * REPLICAS))
            yield three, Standalone(server)


@contextmanager
def working_folder(kept: Path | None) -> Iterator[Path]:
    if kept is not None:
        kept.mkdir(parents=True, exist_ok=True)
        yield kept
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def say(words: str) -> None:
    sys.stdout.write(words + "\n")
    sys.stdout.flush()


async def run(kind: str, seed: int, seconds: float, folder: Path) -> Course:
    async with started(kind, folder) as (three, store):
        return await rounds(three, store, random.Random(seed), seconds)


def main() -> int:
    parser = argparse.ArgumentParser(description="Flushes among faults drawn by lot.")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--store", choices=("redis", "sentinel"), default="redis")
    parser.add_argument("--logs", type=Path, help="keep the sidecars' logs in this folder")
    asked = parser.parse_args()
    with working_folder(asked.logs) as folder:
        course = uvloop.run(run(asked.store, asked.seed, asked.minutes * 60, folder))
    taken = sorted(flushed.seconds for flushed in course.flushes)
    report = {
        "store": asked.store,
        "seed": asked.seed,
        "flushes": len(taken),
        "not_acknowledged_at_first": course.refused,
        "acknowledged_seconds": {"median": round(statistics.median(taken), 3), "max": round(taken[-1], 3)},
        "hits_before": round(statistics.mean(course.hits), 3),
        "wrong": course.wrong[:10],
    }
    say(json.dumps(report))
    return 1 if course.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
