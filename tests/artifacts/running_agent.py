"""An agent in this process, on a free port, with an API server that a test tells what to say.

with running_agent(tmp_path) as agent:
    agent.api.mount("a", TREE)
    ...  # ask agent.url with token-a, which is of the namespace a, as token-b is of b
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from aiohttp import web

from inference_cache_artifacts.agent.kubernetes import Access
from inference_cache_artifacts.agent.serving import serving
from inference_cache_artifacts.agent.settings import Patience, Settings
from inference_cache_artifacts.handover.protocol import AUDIENCE
from inference_cache_artifacts.store.layout import Store

OWN_TOKEN = "the-agents-own"
NODE = "node-1"
T = TypeVar("T")


@dataclass
class FakeApi:
    """An API server."""

    url: str = ""
    tokens: dict[str, str] = field(default_factory=lambda: {f"token-{each}": f"system:serviceaccount:{each}:default" for each in "abc"})
    """User by token."""
    audiences: list[str] = field(default_factory=lambda: [AUDIENCE])
    pods: list[dict[str, Any]] = field(default_factory=list)
    resources: list[dict[str, Any]] = field(default_factory=list)
    is_down: bool = False
    requests: list[str] = field(default_factory=list)
    """Method and path with query."""

    def mount(self, namespace: str, tree: str, phase: str = "Running") -> None:
        """A pod of the node mounts it."""
        mount = {"name": "inference-cache-artifacts", "mountPath": "/model", "subPath": f"trees/{tree}/files"}
        spec = {"containers": [{"name": "vllm", "volumeMounts": [{"name": "other", "mountPath": "/x"}, mount]}]}
        self.pods.append({"metadata": {"namespace": namespace, "name": "pod"}, "spec": spec, "status": {"phase": phase}})

    async def answer(self, request: web.Request) -> web.Response:
        self.requests.append(f"{request.method} {request.path_qs}")
        if self.is_down:
            return web.Response(status=503)
        if request.headers.get("Authorization") != f"Bearer {OWN_TOKEN}":
            return web.Response(status=401)
        if request.path.endswith("/tokenreviews"):
            return web.json_response(self._review(await request.json()))
        wanted = self.pods if request.path == "/api/v1/pods" else self.resources
        return web.json_response({"items": wanted})

    def _review(self, review: dict[str, Any]) -> dict[str, Any]:
        user = self.tokens.get(review["spec"]["token"])
        audiences = [each for each in review["spec"]["audiences"] if each in self.audiences]
        if user is None or not audiences:
            return {"status": {"authenticated": False, "error": "unknown"}}
        return {"status": {"authenticated": True, "audiences": audiences, "user": {"username": user}}}


@dataclass
class RunningAgent:
    url: str
    api: FakeApi
    root: Path

    def store(self, namespace: str) -> Store:
        return Store(self.root / namespace)


@contextmanager
def running_agent(folder: Path, port: int = 0, api: FakeApi | None = None, **settings: Any) -> Iterator[RunningAgent]:
    """`folder` gets the agent's root and its token; `settings` are fields of Settings, and of Patience.

    However full the machine's disk is, nothing is removed unless `high_water` says so.
    """
    patience = {name: settings.pop(name) for name in list(settings) if name in Patience.__dataclass_fields__}
    made = Settings(folder / "root", NODE, patience=replace(Patience(), **patience), **{"high_water": 1.0, **settings})
    made.root.mkdir(exist_ok=True)
    (folder / "token").write_text(f"{OWN_TOKEN}\n")
    api = api or FakeApi()
    with event_loop() as loop:
        stack = AsyncExitStack()
        url = run(loop, _begun(stack, made, api, folder / "token", port))
        try:
            yield RunningAgent(url, api, made.root)
        finally:
            run(loop, stack.aclose())


@contextmanager
def fake_api() -> Iterator[FakeApi]:
    """Alone, for an agent that is a process of its own."""
    api, stack = FakeApi(), AsyncExitStack()
    with event_loop() as loop:
        api.url = run(loop, stack.enter_async_context(_api_server(api)))
        try:
            yield api
        finally:
            run(loop, stack.aclose())


async def _begun(stack: AsyncExitStack, settings: Settings, api: FakeApi, token: Path, port: int) -> str:
    api.url = await stack.enter_async_context(_api_server(api))
    listening = await stack.enter_async_context(serving(settings, Access(api.url, token), "127.0.0.1", port))
    return f"http://127.0.0.1:{listening}"


@asynccontextmanager
async def _api_server(api: FakeApi) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", api.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@contextmanager
def event_loop() -> Iterator[asyncio.AbstractEventLoop]:
    """In a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="agent", daemon=True)
    thread.start()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


def run(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run_coroutine_threadsafe(work, loop).result(60)
