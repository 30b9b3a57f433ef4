"""A whole sidecar in this process, in front of the stand-in, on free ports."""

import asyncio
import math
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
from aiohttp import web
from multidict import CIMultiDictProxy

from inference_cache_contract.spec import parse_spec
from inference_cache_sidecar.app import EmbedderLoader, Running, running
from inference_cache_sidecar.embedder.loading import load_embedder
from inference_cache_sidecar.embedder.protocol import Embedder
from inference_cache_sidecar.errors import StoreError
from inference_cache_sidecar.settings import Address, Secrets, Settings
from inference_cache_sidecar.shared.address import parse_redis_url
from inference_cache_sidecar.shared.sealing import Unsealable
from inference_cache_sidecar.shared.tier import SharedTier
from inference_cache_toolkit.standin import server as standin_server
from inference_cache_toolkit.standin.state import Standin

CHAT = "/v1/chat/completions"
ADMIN_TOKEN = "sidecar-test-token"
_NO_SECRETS = Secrets()
PATIENCE = 60.0
"""Seconds for what takes one at most, where the machine has nothing else to do."""
PLAIN = 1e9
"""More events than any stream has."""


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
    """`await start_sidecar(spec, upstream=…)`: a sidecar that is ready, and shares what it is to share; closed with the test."""
    async with AsyncExitStack() as stack:

        async def start(
            spec: dict[str, Any] | None = None,
            upstream: str = standin_url,
            *,
            ready: bool = True,
            sharing: bool = True,
            load: EmbedderLoader = _embedder_once,
            clock: Callable[[], float] = time.time,
            redis_url: str | None = None,
            secrets: Secrets = _NO_SECRETS,
        ) -> Client:
            free = Address("127.0.0.1", 0)
            settings = Settings(free, upstream, free, parse_spec(patient(spec or {})), "test", "info", ADMIN_TOKEN)
            settings = replace(settings, redis=parse_redis_url(redis_url) if redis_url else None, secrets=secrets, features=free)
            sidecar = await stack.enter_async_context(running(settings, load, clock))
            session = await stack.enter_async_context(aiohttp.ClientSession(auto_decompress=False))
            client = Client(session, f"http://{sidecar.listen}", f"http://{sidecar.admin}", sidecar)
            if ready:
                await until_ready(client)
            if ready and sharing:
                await until_sharing(client)
            return client

        yield start


def patient(spec: Mapping[str, Any]) -> dict[str, Any]:
    """A busy machine must turn neither similar questions nor what is shared into misses: deadlines and leases have tests of their own."""
    store, semantic = spec.get("store", {}), {"embedder": {"deadline": "10s"}, **spec.get("semantic", {})}
    redis = {"deadline": "10s", **store.get("redis", {})}
    invalidation = {"lease": "6s", **spec.get("invalidation", {})}
    return {**spec, "semantic": semantic, "store": {**store, "redis": redis}, "invalidation": invalidation}


async def until(holds: Callable[[], object]) -> None:
    """Raises TimeoutError if it never does."""
    async with asyncio.timeout(PATIENCE):
        while not holds():
            await asyncio.sleep(0.005)


async def until_asked(standin: Standin, count: int = 1) -> None:
    """Until so many calls have come to the model."""
    await until(lambda: standin.inferences >= count)


def waiting(client: Client) -> int:
    """How many wait there for what is in flight."""
    return sum(len(flight.readers) for flight in client.running.parts.flights._tasks)


async def until_ready(client: Client) -> None:
    async with asyncio.timeout(PATIENCE):
        while True:
            async with client.session.get(client.admin_url + "/readyz") as response:
                if response.status == 200:
                    return
            await asyncio.sleep(0.01)


async def until_sharing(client: Client) -> None:
    """A sidecar waits only a moment for its store when it starts; where none is shared, there is nothing to wait for."""
    shared = client.running.shared
    if shared is not None:
        async with asyncio.timeout(PATIENCE):
            while not (shared.epochs.confirmed and shared.hot.linked and await _agreed(client, shared)):
                await asyncio.sleep(0.01)


async def _agreed(client: Client, shared: SharedTier) -> bool:
    """Tenants are told apart by the key that the store holds, sealed as it is to be from now on."""
    place = shared.keys.tenancy_key()
    try:
        stored = await shared.calls(lambda redis: redis.get(place))
        if not isinstance(stored, bytes) or not shared.sealer.is_current(stored):
            return False
        return shared.sealer.unseal(place, stored) == client.running.live._key
    except (StoreError, Unsealable):
        return False


@pytest.fixture
async def sidecar(start_sidecar: Callable[..., Awaitable[Client]]) -> Client:
    """With the defaults."""
    return await start_sidecar()


@dataclass
class Gate:
    """How many events of a stream the stand-in may send; its end and a plain answer come once there is no limit, a fault with the first."""

    events: float = 0
    calls: float = math.inf
    """How many calls, in the order in which they came, are answered at all."""
    held: set[int] = field(default_factory=set)
    """Numbers of calls that are not answered, from 0 in the same order."""
    came: int = 0

    def open(self) -> None:
        self.events = math.inf

    async def passed(self, number: float) -> None:
        while self.events <= number:
            await asyncio.sleep(0.005)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    """Holds every answer of the stand-in, so that it is still on its way for as long as a test needs."""
    gate, infer = Gate(), standin_server._infer

    async def held(standin: Standin, request: web.BaseRequest, path: str, body: bytes) -> web.StreamResponse:
        number, gate.came = gate.came, gate.came + 1
        while gate.calls <= number or number in gate.held:
            await asyncio.sleep(0.005)
        prepared, streams = standin_server._prepare(standin, path, body)
        await gate.passed(0 if streams or standin.fault is not None else PLAIN)
        if standin.fault is not None:
            return await infer(standin, request, path, body)
        answer_id = f"{prepared.id_prefix}{number}"
        if streams:
            return await send(request, prepared.stream(answer_id))
        return web.Response(body=prepared.body(answer_id), content_type="application/json")

    async def send(request: web.BaseRequest, events: list[bytes]) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        await response.prepare(request)
        for number, event in enumerate(events):
            await gate.passed(number)
            await response.write(event)
        await gate.passed(len(events))
        await response.write_eof()
        return response

    monkeypatch.setattr(standin_server, "_infer", held)
    return gate
