"""The agent's requests, as `handover.protocol` has them: each handler one call."""

import asyncio
import json
from collections.abc import Iterable
from contextlib import nullcontext
from typing import Final

from aiohttp import StreamReader, web

from inference_cache_artifacts.agent.answers import Gone, Unknown
from inference_cache_artifacts.agent.bringer import Bringer
from inference_cache_artifacts.agent.fetch import Fetch
from inference_cache_artifacts.agent.fetches import Busy, Fetches
from inference_cache_artifacts.agent.files import Files
from inference_cache_artifacts.agent.relaying import error_of
from inference_cache_artifacts.agent.tokens import NAMESPACE, Tokens
from inference_cache_artifacts.counting import Snapshot
from inference_cache_artifacts.errors import BadRequest, Missing
from inference_cache_artifacts.handover import protocol
from inference_cache_artifacts.handover.protocol import Ask, Standing, Summary
from inference_cache_artifacts.manifest import MAX_BYTES
from inference_cache_artifacts.store import trees
from inference_cache_artifacts.store.trees import Tree

MOST_ASKED_BYTES: Final = MAX_BYTES + (1 << 20)
_SMALL_BYTES: Final = 64 << 10
_LARGE_AT_A_TIME: Final = 2
"""Asks with a large manifest, which takes many times its length while it is read."""
_ASK_SECONDS: Final = 15.0
_MOST_FAILURE_BYTES: Final = 64 << 10
_TREE: Final = "{tree:[0-9a-f]{32}}"


class Handlers:
    def __init__(self, tokens: Tokens, fetches: Fetches, bringer: Bringer) -> None:
        self._tokens = tokens
        self._fetches = fetches
        self._bringer = bringer
        self._files = Files()
        self._large = asyncio.Semaphore(_LARGE_AT_A_TIME)

    def routes(self) -> Iterable[web.RouteDef]:
        yield web.get(protocol.HEALTH, self.health)
        yield web.get(_route(protocol.PROGRESS), self.progress)
        yield web.get(_route(protocol.TREE), self.tree)
        yield web.get(_route(protocol.MANIFEST), self.manifest)
        yield web.get(_route(protocol.FILE), self.file)
        yield web.post(protocol.FETCHES, self.ask)
        yield web.get(protocol.FETCH, self.standing, allow_head=False)
        yield web.delete(protocol.FETCH, self.leave)
        yield web.get(protocol.JOB, self.job, allow_head=False)
        yield web.put(_route(protocol.RESULT), self.result)

    async def health(self, request: web.Request) -> web.Response:
        return web.Response(text="ok")

    async def progress(self, request: web.Request) -> web.Response:
        namespace, name = request.match_info["namespace"], request.match_info["tree"]
        if not NAMESPACE.fullmatch(namespace):
            raise Missing("there is no such namespace")
        standing = self._fetches.of_tree(namespace, name)
        if standing is None or standing.state != "running":
            tree = await asyncio.to_thread(trees.find, self._bringer.store(namespace), name)
            standing = standing if tree is None else _done(tree)
        if standing is None:
            raise Missing("nobody fetches such a tree, and it is not there")
        return _json(protocol.standing_text(standing))

    async def tree(self, request: web.Request) -> web.Response:
        store = self._bringer.store(await self._namespace(request))
        return _summary(await self._files.tree(store, request.match_info["tree"]))

    async def manifest(self, request: web.Request) -> web.Response:
        store = self._bringer.store(await self._namespace(request))
        return _json(await self._files.manifest(store, request.match_info["tree"]))

    async def file(self, request: web.Request) -> web.StreamResponse:
        store = self._bringer.store(await self._namespace(request))
        return await self._files.answer(request, store, request.match_info["tree"], request.match_info["path"])

    async def ask(self, request: web.Request) -> web.Response:
        namespace = await self._namespace(request)
        ask = await self._asked(request)
        tree = await asyncio.to_thread(self._bringer.there, namespace, ask)
        if tree is not None:
            return _summary(tree)
        fetch = self._fetches.begin(namespace, ask)
        return web.json_response({"fetch": fetch.id}, status=201)

    async def standing(self, request: web.Request) -> web.Response:
        return _json(protocol.standing_text(self._fetches.standing(await self._fetch(request))))

    async def leave(self, request: web.Request) -> web.Response:
        self._fetches.give_up(await self._fetch(request))
        return web.Response(status=204)

    async def job(self, request: web.Request) -> web.Response:
        relay = (await self._fetch(request)).relay
        job = await relay.take()
        if job is not None:
            return _json(protocol.job_text(job))
        self._fetches.check_open()
        if relay.is_over:
            raise Gone("the fetch has ended")
        return web.Response(status=204)

    async def result(self, request: web.Request) -> web.Response:
        relay, number = (await self._fetch(request)).relay, int(request.match_info["number"])
        kind = request.headers.get(protocol.FAILURE_HEADER)
        if kind is None:
            is_taken = await relay.answered(number, request.content)
        else:
            is_taken = relay.failed(number, error_of(kind, await _failure(request.content)))
        if kind is None and not is_taken and relay.is_over:
            # At once: a pod that goes on sending reads its source for nothing.
            request.protocol.force_close()
        if not is_taken:
            raise Gone("nobody waits for it any more")
        return web.Response(status=204)

    async def _asked(self, request: web.Request) -> Ask:
        """Raises BadRequest, BadManifest, Busy."""
        is_small = request.content_length is not None and request.content_length <= _SMALL_BYTES
        try:
            async with asyncio.timeout(_ASK_SECONDS), nullcontext() if is_small else self._large:
                return await asyncio.to_thread(protocol.read_ask, await request.read())
        except TimeoutError:
            raise Busy(f"what is asked for did not come within {_ASK_SECONDS:g} s") from None

    async def _namespace(self, request: web.Request) -> str:
        """Raises Unknown, ApiAway."""
        kind, _, token = request.headers.get("Authorization", "").partition(" ")
        namespace = await self._tokens.namespace(token.strip()) if kind.lower() == "bearer" and token.strip() else None
        if namespace is None:
            raise Unknown(f"a token for {protocol.AUDIENCE} is needed")
        return namespace

    async def _fetch(self, request: web.Request) -> Fetch:
        """Raises Unknown, ApiAway, Missing."""
        return self._fetches.find(await self._namespace(request), request.match_info["fetch"])


def _route(path: str) -> str:
    return path.replace("{tree}", _TREE).replace("{path}", "{path:.+}").replace("{number}", r"{number:[0-9]{1,15}}")


async def _failure(content: StreamReader) -> protocol.Failure:
    """Raises BadRequest."""
    text = b""
    while part := await content.readany():
        text += part
        if len(text) > _MOST_FAILURE_BYTES:
            raise BadRequest("a failure is told in too many words")
    try:
        return protocol.read_failure(json.loads(text))
    except ValueError:
        raise BadRequest("a failure is not told as JSON") from None


def _done(tree: Tree) -> Standing:
    return Standing("done", Snapshot(tree.size, tree.size, tree.count, tree.count, eta_seconds=0.0).fields())


def _summary(tree: Tree) -> web.Response:
    return _json(protocol.summary_text(Summary(tree.digest, tree.size, tree.count)))


def _json(text: str) -> web.Response:
    return web.Response(text=text, content_type="application/json")
