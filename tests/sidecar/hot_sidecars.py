"""Sidecars with a hot configuration, as a pod has it: a file behind a link that is replaced, and variables. For the tests of both."""

import asyncio
import itertools
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import aiohttp
import orjson
from tests.sidecar.conftest import PATIENCE, Client, _embedder_once, patient, until_ready, until_sharing

from inference_cache_contract.configuration import Configuration, FlushOrder, digest
from inference_cache_contract.endpoints import DRAIN_TOKEN_VARIABLE, REDIS_URL_VARIABLE
from inference_cache_sidecar.app import Beside, running
from inference_cache_sidecar.command import build_settings, read_layers
from inference_cache_sidecar.configuration.orders import OrderTerms
from inference_cache_sidecar.embedder.protocol import Embedder
from inference_cache_sidecar.settings import DrainSettings

DRAIN_TOKEN: Final = "drain-token"
TERMS: Final = OrderTerms(lease=30.0, look=0.05, first_retry=0.1, longest_retry=0.5)
ALONE: Final = Beside()


class Volume:
    """A downward-API volume: every write is another folder, and the link to it is replaced in one step."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = itertools.count()
        self.path = folder / "configuration.json"
        self.path.symlink_to(Path("..data") / "configuration.json")

    def write(self, text: str) -> None:
        inner = self._folder / f"..{next(self._numbers)}"
        inner.mkdir()
        (inner / "configuration.json").write_text(text)
        link = self._folder / "..new"
        link.symlink_to(inner.name)
        os.replace(link, self._folder / "..data")  # noqa: PTH105  as kubelet does it

    def configure(self, spec: Mapping[str, Any] | None = None, orders: Sequence[FlushOrder] = ()) -> str:
        """Its digest."""
        text = Configuration(spec or {}, tuple(orders)).text()
        self.write(text)
        return digest(text)


@dataclass
class Start:
    """What a sidecar is started with, beside its volume."""

    upstream: str
    redis_url: str | None = None
    variables: dict[str, str] = field(default_factory=dict)
    flags: tuple[str, ...] = ()
    spec: dict[str, Any] = field(default_factory=dict)
    """In the file of `--spec`."""
    least_drain_seconds: float = 0.2
    terms: OrderTerms = TERMS
    beside: Beside = ALONE
    load: Callable[[str, Path | None], Embedder] = _embedder_once
    configured: bool = True
    """There is a configuration from the start, if only an empty one: the webhook writes it with the pod."""


class Hot(Client):
    """A client with what the admin port says."""

    volume: Volume

    async def status(self) -> dict[str, Any]:
        async with self.session.get(self.admin_url + "/status") as response:
            told: dict[str, Any] = orjson.loads(await response.read())
            return told

    async def until(self, holds: Callable[[dict[str, Any]], bool], seconds: float = PATIENCE) -> dict[str, Any]:
        """The first status that is so."""
        async with asyncio.timeout(seconds):
            while not holds(told := await self.status()):
                await asyncio.sleep(0.01)
        return told

    async def configured(self, spec: Mapping[str, Any] | None = None, orders: Sequence[FlushOrder] = ()) -> dict[str, Any]:
        """Write it, and wait until it is in force."""
        wanted = self.volume.configure(spec, orders)
        return await self.until(lambda told: told["configuration"]["digest"] == wanted)


@asynccontextmanager
async def hot_sidecar(start: Start, volume: Volume, folder: Path) -> AsyncIterator[Hot]:
    if start.configured and not volume.path.exists():
        volume.configure()
    file = folder / f"{volume.path.parent.name}-spec.yaml"
    file.write_bytes(orjson.dumps(patient(start.spec)))
    beside = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--features", "127.0.0.1:0", "--cache-name", "test"]
    argv = ["--upstream", start.upstream, *beside, "--spec", str(file), "--configuration", str(volume.path), *start.flags]
    variables = {DRAIN_TOKEN_VARIABLE: DRAIN_TOKEN, **start.variables}
    if start.redis_url is not None:
        variables[REDIS_URL_VARIABLE] = start.redis_url
    settings = build_settings(read_layers(argv, variables)[0])
    settings = replace(settings, drain=DrainSettings(settings.drain.token, start.least_drain_seconds))
    async with (
        running(settings, start.load, beside=start.beside, order_terms=start.terms) as sidecar,
        aiohttp.ClientSession(auto_decompress=False) as session,
    ):
        hot = Hot(session, f"http://{sidecar.listen}", f"http://{sidecar.admin}", sidecar)
        hot.volume = volume
        await until_ready(hot)
        await until_sharing(hot)
        yield hot


Starter = Callable[..., Awaitable[Hot]]


@asynccontextmanager
async def starting(upstream: str, folder: Path) -> AsyncIterator[Starter]:
    """`await start(volume=…, **what_start_has)`."""
    async with AsyncExitStack() as stack:
        numbers = itertools.count()

        async def start(volume: Volume | None = None, **given: Any) -> Hot:
            if volume is None:
                place = folder / f"volume-{next(numbers)}"
                place.mkdir()
                volume = Volume(place)
            return await stack.enter_async_context(hot_sidecar(Start(given.pop("upstream", upstream), **given), volume, folder))

        yield start
