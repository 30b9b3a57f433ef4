"""The parts of the shared bench that do something to a store while requests run. Called by `bench.shared`."""

import asyncio
import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median, quantiles
from typing import Any, Final
from urllib.request import Request, urlopen

import aiohttp

from bench import questions
from bench.servers import ADMIN_TOKEN, Server
from inference_cache_toolkit.redis_server import RedisServer

PER_SECOND: Final = 200
"""Requests, at even intervals whether or not the last one is answered."""
PATIENT_SECONDS: Final = 600.0
POLL_SECONDS: Final = 0.1


@dataclass
class Purge:
    """A flush by the admin API, in a thread."""

    server: Server
    version: str
    deleted: int = 0
    seconds: float = 0.0
    _thread: threading.Thread | None = field(default=None, repr=False)

    def begin(self) -> None:
        self._thread = threading.Thread(target=self._flush)
        self._thread.start()

    def running(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def end(self) -> None:
        if self._thread is not None:
            self._thread.join()

    def _flush(self) -> None:
        begun = time.monotonic()
        headers = {"Authorization": f"Bearer {ADMIN_TOKEN}", "Content-Type": "application/json"}
        body = json.dumps({"version": self.version}).encode()
        with urlopen(Request(f"{self.server.admin_url}/flush", body, headers), timeout=PATIENT_SECONDS) as answer:
            self.deleted = json.load(answer)["flushed"]
        self.seconds = time.monotonic() - begun


@contextmanager
def purging(server: Server, version: str) -> Iterator[Purge]:
    purge = Purge(server, version)
    purge.begin()
    try:
        yield purge
    finally:
        purge.end()


def ask_all(server: Server, bodies: Sequence[bytes]) -> None:
    """Each once, 32 at a time."""
    asyncio.run(_ask_all(server, bodies))


async def _ask_all(server: Server, bodies: Sequence[bytes]) -> None:
    left = iter(bodies)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def client() -> None:
            for body in left:
                async with session.post(server.url + questions.CHAT, data=body, headers=questions.HEADERS) as answer:
                    assert answer.status == 200
                    await answer.read()

        await asyncio.gather(*(client() for _ in range(32)))


def warmed(server: Server, seconds: float) -> dict[str, int]:
    """How far taking in the store's entries was when it was done. Raises TimeoutError."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with urlopen(f"{server.admin_url}/status", timeout=10) as answer:
            told: dict[str, Any] = json.load(answer)["sharedStore"]["warming"]
        if told["done"]:
            return told
        time.sleep(POLL_SECONDS)
    raise TimeoutError("the sidecar did not get warm")


def hang(server: Server, redis: RedisServer, seconds: float) -> list[str]:
    """Half of the requests repeat one question, half ask new ones."""
    return asyncio.run(_hang(server, redis, seconds))


async def _hang(server: Server, redis: RedisServer, seconds: float) -> list[str]:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        load = _Load(session, server)
        await load.window(1.0)
        lines = [_line("Redis well", await load.window(seconds))]
        redis.pause()
        lines.append(_line("stopped, first second", await load.window(1.0)))
        lines.append(_line("stopped, from then on", await load.window(seconds)))
        redis.resume()
        begun = time.monotonic()
        for _ in range(int(30 / POLL_SECONDS)):
            if await load.hits_again():
                break
            await asyncio.sleep(POLL_SECONDS)
        lines.append(f"hits again {time.monotonic() - begun:.1f} s after it went on")
        lines.append(_line("well again", await load.window(seconds)))
        return lines


@dataclass
class _Load:
    session: aiohttp.ClientSession
    server: Server
    asked: int = 0

    async def window(self, seconds: float) -> list[tuple[float, int, bool]]:
        """(seconds taken, status, hit) of every request."""
        begun = time.monotonic()
        asking = []
        for number in range(int(seconds * PER_SECOND)):
            await asyncio.sleep(max(0.0, begun + number / PER_SECOND - time.monotonic()))
            self.asked += 1
            body = questions.numbered(0 if number % 2 else 10_000_000 + self.asked)
            asking.append(asyncio.create_task(self._ask(body)))
        return await asyncio.gather(*asking)

    async def hits_again(self) -> bool:
        return (await self._ask(questions.numbered(0)))[2]

    async def _ask(self, body: bytes) -> tuple[float, int, bool]:
        begun = time.monotonic()
        async with self.session.post(self.server.url + questions.CHAT, data=body, headers=questions.HEADERS) as answer:
            await answer.read()
            return time.monotonic() - begun, answer.status, "hit" in answer.headers.get("Cache-Status", "")


def _line(name: str, seen: list[tuple[float, int, bool]]) -> str:
    misses = [seconds * 1000 for seconds, _, hit in seen if not hit]
    answered = sum(status == 200 for _, status, _ in seen) / len(seen)
    hits = sum(hit for _, _, hit in seen) / len(seen)
    p99 = quantiles(misses, n=100)[98]
    return f"{name:<23} {answered:>6.1%} answered {hits:>6.1%} hits; misses: {median(misses):>6.2f} ms p50 {p99:>7.2f} ms p99"
