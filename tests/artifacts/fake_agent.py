"""An agent that speaks the protocol and does what a test tells it: it hands out jobs, remembers all it gets, and serves a store's tree.

with fake_agent() as agent:
    agent.jobs.append(Job(1, 0, "head", "config.json"))
    ...  # point `Contact` or `--agent` at agent.url
"""

import asyncio
import contextlib
import itertools
import json
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from aiohttp import ClientError, web
from tests.artifacts.running_agent import event_loop, run

from inference_cache_artifacts.handover import protocol
from inference_cache_artifacts.handover.protocol import Ask, Failure, Job, Standing, Summary
from inference_cache_artifacts.store import trees
from inference_cache_artifacts.store.layout import MARKER, Store
from inference_cache_artifacts.store.trees import Tree

LOOK_SECONDS = 0.02


@dataclass(frozen=True)
class Result:
    """A job's, as it came."""

    body: bytes
    whole: bool
    failure: Failure | None = None


@dataclass
class FakeAgent:
    url: str
    store: Store | None = None
    """Whose trees it has, and hands on."""
    jobs: deque[Job] = field(default_factory=deque)
    taken: dict[int, Job] = field(default_factory=dict)
    results: dict[int, Result] = field(default_factory=dict)
    standing: Standing = field(default_factory=lambda: Standing("running"))
    """Of all fetches."""
    status: int | None = None
    """What everything is answered with."""
    token: str | None = None
    """What a request must carry."""
    wants: Callable[[int], bool] = lambda number: True
    """Whether a job's result is still waited for."""
    breaks_off: set[int] = field(default_factory=set)
    """Jobs the first answer to which is lost, with its connection."""
    on_ask: Callable[[Ask], None] = lambda ask: None
    on_file: Callable[[str], None] = lambda path: None
    cuts: list[int] = field(default_factory=list)
    """Bytes after which an answer with a file ends early, the last one first; those of smaller files are whole."""
    etag: str | None = None
    length: int | None = None
    """Of every file; None: its own."""
    asks: list[Ask] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    """Fetches that a pod has gone away from."""
    requests: list[str] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)
    said: list[bytes] = field(default_factory=list)
    """Heads and bodies of all requests."""
    served: int = 0
    """Bytes of files."""
    known: set[str] = field(default_factory=set)
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def forget(self) -> None:
        """As if it had been started again."""
        self.known.clear()

    def tree(self, name: str) -> Tree | None:
        return None if self.store is None else trees.find(self.store, name)


@contextmanager
def fake_agent(port: int = 0, store: Store | None = None) -> Iterator[FakeAgent]:
    agent = FakeAgent("", store)
    runner = web.AppRunner(_app(agent), shutdown_timeout=0.1)
    with event_loop() as loop:
        agent.url = f"http://127.0.0.1:{run(loop, _begun(runner, port))}"
        try:
            yield agent
        finally:
            run(loop, runner.cleanup())


async def _begun(runner: web.AppRunner, port: int) -> int:
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port, reuse_address=True)
    await site.start()
    (address,) = runner.addresses
    return int(address[1])


def _app(agent: FakeAgent) -> web.Application:
    handlers = _Handlers(agent)
    app = web.Application(middlewares=[handlers.checked], client_max_size=64 << 20)
    app.router.add_post(protocol.FETCHES, handlers.ask)
    app.router.add_get(protocol.FETCH, handlers.standing)
    app.router.add_delete(protocol.FETCH, handlers.leave)
    app.router.add_get(protocol.JOB, handlers.job)
    app.router.add_put(protocol.RESULT, handlers.result)
    app.router.add_get(protocol.MANIFEST, handlers.manifest)
    app.router.add_get(protocol.FILE.replace("{path}", "{path:.+}"), handlers.file)
    return app


class _Handlers:
    def __init__(self, agent: FakeAgent) -> None:
        self._agent = agent

    @web.middleware
    async def checked(self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> web.StreamResponse:
        agent = self._agent
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        agent.requests.append(f"{request.method} {request.path}")
        agent.tokens.add(token)
        agent.said.append(str({name: value for name, value in request.headers.items() if name != "Authorization"}).encode())
        if agent.status is not None:
            return web.Response(status=agent.status)
        if agent.token is not None and token != agent.token:
            return web.Response(status=401, text=protocol.failure_text(Failure("Forbidden", "who are you?")))
        return await handler(request)

    async def ask(self, request: web.Request) -> web.Response:
        agent, text = self._agent, await request.read()
        agent.said.append(text)
        ask = protocol.read_ask(text)
        agent.asks.append(ask)
        agent.on_ask(ask)
        if (tree := agent.tree(ask.tree)) is not None:
            return web.Response(text=protocol.summary_text(Summary(tree.digest, tree.size, tree.count)))
        name = f"fetch-{next(agent.numbers)}"
        agent.known.add(name)
        return web.json_response({"fetch": name}, status=201)

    async def standing(self, request: web.Request) -> web.Response:
        if request.match_info["fetch"] not in self._agent.known:
            return web.Response(status=404)
        return web.Response(text=protocol.standing_text(self._agent.standing))

    async def leave(self, request: web.Request) -> web.Response:
        self._agent.left.append(request.match_info["fetch"])
        self._agent.known.discard(request.match_info["fetch"])
        return web.Response(status=204)

    async def job(self, request: web.Request) -> web.Response:
        agent = self._agent
        while request.match_info["fetch"] in agent.known and agent.standing.state == "running":
            if agent.jobs:
                job = agent.jobs.popleft()
                agent.taken[job.number] = job
                return web.Response(text=protocol.job_text(job))
            await asyncio.sleep(LOOK_SECONDS)
        return web.Response(status=410)

    async def result(self, request: web.Request) -> web.Response:
        agent, number = self._agent, int(request.match_info["number"])
        if not agent.wants(number):
            return web.Response(status=410)
        if number in agent.breaks_off and request.transport is not None:
            agent.breaks_off.discard(number)
            request.transport.abort()
            return web.Response(status=500)
        body = bytearray()
        with contextlib.suppress(OSError, ClientError):
            async for piece in request.content.iter_any():
                body += piece
        agent.said.append(bytes(body))
        if protocol.FAILURE_HEADER in request.headers:
            agent.results[number] = Result(b"", True, protocol.read_failure(json.loads(body)))
        else:
            job = agent.taken[number]
            agent.results[number] = Result(bytes(body), job.what != "open" or len(body) == job.end - job.start)
        return web.Response(status=204)

    async def manifest(self, request: web.Request) -> web.Response:
        tree = self._agent.tree(request.match_info["tree"])
        if tree is None:
            return web.Response(status=404)
        return web.Response(body=(tree.files.parent / MARKER).read_bytes())

    async def file(self, request: web.Request) -> web.StreamResponse:
        agent, path = self._agent, request.match_info["path"]
        tree = agent.tree(request.match_info["tree"])
        agent.on_file(path)
        if tree is None or not (tree.files / path).is_file():
            return web.Response(status=404)
        return await self._sent(request, tree, path)

    async def _sent(self, request: web.Request, tree: Tree, path: str) -> web.StreamResponse:
        """Whole, as pods ask for it."""
        agent, content = self._agent, (tree.files / path).read_bytes()
        promised = {file.path: f'"{file.sha256}"' for file in tree.manifest().files}[path]
        if request.headers.get("If-Match") != promised:
            return web.Response(status=412)
        length = len(content) if agent.length is None else agent.length
        answer = web.StreamResponse(headers={"ETag": agent.etag or promised, "Content-Length": str(length)})
        await answer.prepare(request)
        cut = agent.cuts.pop() if agent.cuts and len(content) > agent.cuts[-1] else None
        agent.served += len(content[:cut])
        await answer.write(content[:cut])
        if cut is not None and request.transport is not None:
            request.transport.close()
        return answer
