"""A whole sidecar in this process, in front of the stand-in, on free ports."""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
from multidict import CIMultiDictProxy

from inference_cache_contract.spec import parse_spec
from inference_cache_sidecar.app import EmbedderLoader, Running, running
from inference_cache_sidecar.embedder.loading import load_embedder
from inference_cache_sidecar.embedder.protocol import Embedder
from inference_cache_sidecar.settings import Address, Secrets, Settings
from inference_cache_sidecar.shared.address import parse_redis_url

CHAT = "/v1/chat/completions"
ADMIN_TOKEN = "sidecar-test-token"
_NO_SECRETS = Secrets()


@cache
def _embedder_once(name: str, folder: Path | None) -> Embedder:
    """Loading takes longer than most tests; they run one after the other, each with a thread of its own around it."""
    return load_embedder(name, folder)


@dataclass(frozen=True)
class Answer:
    status: int
    body: bytes
    headers: CIMultiDictProxy[str]

    @property
    def cache_status(self) -> str:
        return self.headers.get("Cache-Status", "")

    @property
    def kind(self) -> str:
        """exact or semantic for a hit, else the reason it was forwarded for."""
        hit = re.search(r'hit; .*detail="(\w+)', self.cache_status)
        forwarded = re.search(r"fwd=([\w-]+)", self.cache_status)
        return hit.group(1) if hit else forwarded.group(1) if forwarded else self.cache_status

    def json(self) -> Any:
        return orjson.loads(self.body)

    @property
    def text(self) -> str:
        return self.json()["choices"][0]["message"]["content"]


@dataclass
class Client:
    """Talks to one sidecar; every answer is read whole."""

    session: aiohttp.ClientSession
    url: str
    admin_url: str
    running: Running

    async def post(self, path: str, body: object, headers: dict[str, str] | None = None) -> Answer:
        data = body if isinstance(body, bytes) else orjson.dumps(body)
        sent = {"Content-Type": "application/json", **(headers or {})}
        async with self.session.post(self.url + path, data=data, headers=sent) as response:
            return Answer(response.status, await response.read(), response.headers)

    async def get(self, path: str, headers: dict[str, str] | None = None) -> Answer:
        async with self.session.get(self.url + path, headers=headers) as response:
            return Answer(response.status, await response.read(), response.headers)

    async def chat(self, prompt: str, headers: dict[str, str] | None = None, **fields: object) -> Answer:
        return await self.post(CHAT, {"model": "tiny", "messages": [{"role": "user", "content": prompt}], **fields}, headers)

    async def administer(self, path: str, body: object) -> Answer:
        headers = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
        async with self.session.post(self.admin_url + path, json=body, headers=headers) as response:
            return Answer(response.status, await response.read(), response.headers)

    async def metrics(self) -> dict[str, float]:
        async with self.session.get(self.admin_url + "/metrics") as response:
            lines = (await response.text()).splitlines()
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if not line.startswith("#"))}


@pytest.fixture
async def start_sidecar(standin_url: str) -> AsyncIterator[Callable[..., Awaitable[Client]]]:
    """`await start_sidecar(spec, upstream=…)`: a sidecar that is ready, closed with the test."""
    async with AsyncExitStack() as stack:

        async def start(
            spec: dict[str, Any] | None = None,
            upstream: str = standin_url,
            *,
            ready: bool = True,
            load: EmbedderLoader = _embedder_once,
            clock: Callable[[], float] = time.time,
            redis_url: str | None = None,
            secrets: Secrets = _NO_SECRETS,
        ) -> Client:
            free = Address("127.0.0.1", 0)
            # A busy machine must not turn similar questions into misses: the deadline has tests of its own.
            spec = {**(spec or {})}
            semantic = {"embedder": {"deadline": "10s"}, **spec.get("semantic", {})}
            settings = Settings(free, upstream, free, parse_spec({**spec, "semantic": semantic}), "test", "info", ADMIN_TOKEN)
            settings = replace(settings, redis=parse_redis_url(redis_url) if redis_url else None, secrets=secrets, features=free)
            sidecar = await stack.enter_async_context(running(settings, load, clock))
            session = await stack.enter_async_context(aiohttp.ClientSession(auto_decompress=False))
            client = Client(session, f"http://{sidecar.listen}", f"http://{sidecar.admin}", sidecar)
            if ready:
                await until_ready(client)
            return client

        yield start


async def until_ready(client: Client) -> None:
    async with asyncio.timeout(30):
        while True:
            async with client.session.get(client.admin_url + "/readyz") as response:
                if response.status == 200:
                    return
            await asyncio.sleep(0.01)


@pytest.fixture
async def sidecar(start_sidecar: Callable[..., Awaitable[Client]]) -> Client:
    """With the defaults."""
    return await start_sidecar()
