"""The agent's server, from its parts; all that is opened here is closed here."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final

from aiohttp import web

from inference_cache_artifacts.agent.answers import told
from inference_cache_artifacts.agent.bringer import Bringer
from inference_cache_artifacts.agent.fetches import Fetches, look_after
from inference_cache_artifacts.agent.handlers import MOST_ASKED_BYTES, Handlers
from inference_cache_artifacts.agent.keeping import Keeper, keep_room
from inference_cache_artifacts.agent.kubernetes import Access, Kubernetes
from inference_cache_artifacts.agent.settings import Settings
from inference_cache_artifacts.agent.tokens import Tokens

_BUFFER_BYTES: Final = 512 << 10
"""Of each connection; what comes in beyond it waits in the sender."""
_CLOSE_SECONDS: Final = 1.0


@asynccontextmanager
async def serving(settings: Settings, access: Access, host: str, port: int, died: Callable[[], None] = lambda: None) -> AsyncIterator[int]:
    """Listens, on the port that is given; ends quickly. Raises OSError where it cannot listen.

    `died` is called where work in the background has ended, which it never should: why is raised at the end.
    """
    async with AsyncExitStack() as stack:
        kubernetes = await stack.enter_async_context(Kubernetes(access))
        keeper = Keeper(settings, kubernetes, lambda: fetches.trees())  # noqa: PLW0108  it is made below
        bringer = Bringer(settings, keeper, asyncio.get_running_loop())
        fetches = Fetches(settings, bringer.begin)
        app = web.Application(client_max_size=MOST_ASKED_BYTES, middlewares=[told])
        app.router.add_routes(list(Handlers(Tokens(kubernetes), fetches, bringer).routes()))
        runner = web.AppRunner(
            app,
            access_log=None,
            handler_cancellation=True,
            read_bufsize=_BUFFER_BYTES,
            lingering_time=_CLOSE_SECONDS,
            shutdown_timeout=_CLOSE_SECONDS,
        )
        stack.push_async_callback(runner.cleanup)
        await runner.setup()
        # Before the connections are closed: who polls is told that the fetch has ended.
        stack.push_async_callback(fetches.end)
        await web.TCPSite(runner, host, port).start()
        for work in (look_after(fetches), keep_room(keeper, settings.patience.round)):
            await stack.enter_async_context(_running(work, died))
        stack.callback(keeper.end)
        yield int(runner.addresses[0][1])


@asynccontextmanager
async def _running(work: Any, died: Callable[[], None]) -> AsyncIterator[None]:
    task = asyncio.create_task(work)
    task.add_done_callback(lambda _: died())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            task.result()
