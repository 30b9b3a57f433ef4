"""Health and metrics over plain HTTP, for kubelet and Prometheus: both commands serve them. It runs on the event loop it vouches for."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from inference_cache_contract.endpoints import LIVEZ, METRICS, READYZ
from inference_cache_operator.errors import CannotListen
from inference_cache_operator.settings import Address

Check = Callable[[], Sequence[str]]
"""What is wrong, one sentence each; nothing: all is well."""


@dataclass(frozen=True, slots=True)
class Health:
    live: Check
    """A process that is not is started anew."""
    ready: Check


@asynccontextmanager
async def serve_health(address: Address, health: Health, registry: CollectorRegistry) -> AsyncIterator[int]:
    """The port, while it is served. Raises CannotListen."""
    app = web.Application()

    async def live(_: web.Request) -> web.Response:
        return _answer(health.live)

    async def ready(_: web.Request) -> web.Response:
        return _answer(health.ready)

    async def metrics(_: web.Request) -> web.Response:
        return _metrics(registry)

    app.router.add_get(LIVEZ, live)
    app.router.add_get(READYZ, ready)
    app.router.add_get(METRICS, metrics)
    async with listening(app, address) as port:
        yield port


@asynccontextmanager
async def listening(app: web.Application, address: Address, **options: object) -> AsyncIterator[int]:
    """The port on which `app` is served; `options` are those of `web.TCPSite`. Raises CannotListen."""
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, address.host, address.port, **options)  # type: ignore[arg-type]
        try:
            await site.start()
        except OSError as error:
            raise CannotListen(address, error.strerror or str(error)) from error
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()


def _answer(check: Check) -> web.Response:
    wrong = check()
    return web.Response(text="\n".join(wrong or ["ok"]) + "\n", status=503 if wrong else 200)


def _metrics(registry: CollectorRegistry) -> web.Response:
    return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})
