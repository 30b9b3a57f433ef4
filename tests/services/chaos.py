"""Three sidecars in processes of their own that share a store, before one stand-in, under traffic: to be cut off, stopped and killed.

The tests of flushes and the soak start it by `chaos`; `chaos_traffic` asks and judges.
"""

import asyncio
import itertools
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import aiohttp
import psutil
import yaml
from tests.services.chaos_traffic import CATEGORY, Flushed, Generations, Traffic
from tests.services.fault_proxy import FaultProxy, fault_proxy

from inference_cache_toolkit.processes import Child, StartError, answers, free_port, start, stop, wait_for
from inference_cache_toolkit.standin.answers import Writer
from inference_cache_toolkit.standin.server import serving
from inference_cache_toolkit.standin.state import Pace, Standin

REPLICAS: Final = 3
LEASE_SECONDS: Final = 2.0
VERSION: Final = "v1"
SPEC: Final[dict[str, object]] = {
    "model": {"version": VERSION},
    "semantic": {"embedder": {"deadline": "5s"}, "categories": [{"name": CATEGORY}]},
    "trustedHeaders": {"from": ["127.0.0.0/8"]},
    "invalidation": {"lease": f"{LEASE_SECONDS:g}s"},
}
TOKEN: Final = "chaos-token"
START_SECONDS: Final = 150.0
FLUSH_SECONDS: Final = 150.0
RETRY_SECONDS: Final = 0.1
PACE: Final = Pace(first_token=0.01)


class NotFlushedError(Exception):
    """The admin API answered something else than 200, or nothing."""


@dataclass
class Replica:
    """One `inference-cache sidecar`, on the same ports whenever it runs. What waits, waits in a thread."""

    folder: Path
    upstream: str
    redis_url: str
    port: int = field(default_factory=free_port)
    admin_port: int = field(default_factory=free_port)
    child: Child | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def admin_url(self) -> str:
        return f"http://127.0.0.1:{self.admin_port}"

    @property
    def is_up(self) -> bool:
        return self.child is not None and self.child.process.poll() is None

    async def start(self) -> None:
        """Returns when it is ready. Raises StartError."""
        await asyncio.to_thread(self._start)

    def pause(self) -> None:
        self._signal(signal.SIGSTOP)
        process = psutil.Process(self._child().process.pid)
        while process.status() != psutil.STATUS_STOPPED:
            time.sleep(0.001)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    async def kill(self) -> None:
        self._signal(signal.SIGKILL)
        await asyncio.to_thread(self._child().process.wait)

    async def stop(self) -> None:
        if self.is_up:
            self.resume()
            await asyncio.to_thread(stop, self._child())

    async def whole(self) -> None:
        """Up, and not paused."""
        if self.is_up:
            self.resume()
        else:
            await self.start()

    def _start(self) -> None:
        program = Path(sys.executable).with_name("inference-cache")
        where = ["--listen", f"127.0.0.1:{self.port}", "--admin", f"127.0.0.1:{self.admin_port}", "--upstream", self.upstream]
        spec = self.folder / "spec.yaml"
        spec.write_text(yaml.safe_dump(SPEC))
        environment = {**os.environ, "INFERENCE_CACHE_ADMIN_TOKEN": TOKEN, "INFERENCE_CACHE_REDIS_URL": self.redis_url}
        log = self.folder / f"sidecar-{self.port}-{time.monotonic_ns()}.log"
        self.child = start("sidecar", [program, "sidecar", *where, "--spec", spec], log, environment)
        wait_for(self.child, lambda: answers(f"{self.admin_url}/readyz"), START_SECONDS)

    def _signal(self, number: signal.Signals) -> None:
        self._child().process.send_signal(number)

    def _child(self) -> Child:
        if self.child is None:
            raise StartError("this sidecar was never started")
        return self.child


@dataclass(frozen=True)
class Chaos:
    """What runs."""

    standin: Standin
    generations: Generations
    replicas: tuple[Replica, ...]
    proxies: tuple[FaultProxy, ...]
    """One between each replica and the store; none where the store tells its own addresses."""
    session: aiohttp.ClientSession

    async def flush(self, replica: int, target: Mapping[str, object]) -> Flushed:
        """By the admin API of one; upstream answers otherwise from right before. Raises NotFlushedError."""
        generation = self.generations.renew(self.standin)
        sent = time.monotonic()
        headers = {"Authorization": f"Bearer {TOKEN}"}
        limit = aiohttp.ClientTimeout(FLUSH_SECONDS)
        url = f"{self.replicas[replica].admin_url}/flush"
        try:
            async with self.session.post(url, json=target, headers=headers, timeout=limit) as response:
                acknowledged = time.monotonic()
                if response.status != 200:
                    raise NotFlushedError(f"{response.status}: {await response.text()}")
        except (aiohttp.ClientError, OSError) as error:
            raise NotFlushedError(f"no answer: {type(error).__name__}") from error
        return Flushed(target, generation, sent, acknowledged)

    async def flush_until_acknowledged(self, replica: int, target: Mapping[str, object]) -> tuple[Flushed, int]:
        """As somebody does who is told that it could not be acknowledged; and how often that was so. Raises TimeoutError."""
        async with asyncio.timeout(FLUSH_SECONDS):
            for refused in itertools.count():
                try:
                    return await self.flush(replica, target), refused
                except NotFlushedError:
                    await asyncio.sleep(RETRY_SECONDS)
        raise AssertionError

    async def flushed(self, replica: int, target: Mapping[str, object]) -> Flushed:
        """Where nothing stands in its way but a busy machine, on which the store may answer too late."""
        return (await self.flush_until_acknowledged(replica, target))[0]

    @asynccontextmanager
    async def asked(self) -> AsyncIterator[Traffic]:
        """All the time, from when most answers are hits."""
        async with Traffic(self.session, [replica.url for replica in self.replicas]).running() as traffic:
            await traffic.warm()
            yield traffic

    async def whole(self) -> None:
        """All replicas up, and none cut off."""
        for proxy in self.proxies:
            await proxy.heal()
        await asyncio.gather(*(replica.whole() for replica in self.replicas))


@asynccontextmanager
async def chaos(folder: Path, ports: Sequence[int] = (), url: str | None = None) -> AsyncIterator[Chaos]:
    """Started, and stopped in the end. The store is at `url`, or behind proxies at one port for each replica."""
    generations = Generations()
    standin = Standin(writer=Writer(known=generations), pace=PACE)
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(serving(standin))
        proxies = [await stack.enter_async_context(fault_proxy(port)) for port in ports]
        urls = [proxy.url for proxy in proxies] if url is None else [url] * REPLICAS
        replicas = tuple(Replica(folder, upstream, each) for each in urls)
        for replica in replicas:
            stack.push_async_callback(replica.stop)
        session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        await stack.enter_async_context(session)
        await asyncio.gather(*(replica.start() for replica in replicas))
        yield Chaos(standin, generations, replicas, tuple(proxies), session)


async def until(true: Callable[[], bool], seconds: float = START_SECONDS) -> None:
    async with asyncio.timeout(seconds):
        while not true():
            await asyncio.sleep(0.005)
