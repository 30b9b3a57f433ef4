import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from tests.sidecar.features_upstream import FeatureUpstream, body

from inference_cache_contract.keyspace import Keyspace
from inference_cache_contract.spec_features import Features
from inference_cache_sidecar.access import Tenancy
from inference_cache_sidecar.epochs import MemoryEpochs
from inference_cache_sidecar.errors import StoreUnavailable
from inference_cache_sidecar.features.building import FeatureParts, build_features
from inference_cache_sidecar.features.cache import FeatureCache
from inference_cache_sidecar.features.server import FeatureLimits, FeatureRules, FeatureServer
from inference_cache_sidecar.features.store import MemoryCells
from inference_cache_sidecar.server import ProxyServer, ServerLimits
from inference_cache_sidecar.upstream import Upstream, UpstreamLimits

READ = "/get-online-features"
LIMITS = FeatureLimits(body_bytes=50_000, answer_bytes=200_000, body_idle_seconds=60.0)


@dataclass
class Feature:
    """A feature server behind a feature cache."""

    upstream: FeatureUpstream = field(default_factory=FeatureUpstream)
    seen: list[web.Request] = field(default_factory=list)
    credentials: set[str] = field(default_factory=lambda: {"", "Bearer good", "Bearer other"})
    status: int = 200
    encoding: str = ""
    hold: asyncio.Event | None = None
    """Writes wait for it."""
    active: bool = True
    cache: FeatureCache = field(init=False)
    url: str = ""
    client: aiohttp.ClientSession = field(init=False)

    async def feast(self, request: web.Request) -> web.Response:
        self.seen.append(request)
        asked = await request.read()
        if request.headers.get("Authorization", "") not in self.credentials:
            return web.json_response({"detail": "who are you?"}, status=401)
        if self.status != 200:
            return web.json_response({"detail": "no"}, status=self.status)
        if request.path == READ:
            headers = {"Content-Encoding": self.encoding} if self.encoding else {}
            return web.Response(body=self.upstream.answer(asked), content_type="application/json", headers=headers)
        if request.path in ("/push", "/write-to-online-store"):
            if self.hold is not None:
                await self.hold.wait()
            for user in json.loads(asked)["df"]["user_id"]:
                self.upstream.change("user_id", user)
        return web.Response(body=b"%b %b" % (request.path_qs.encode(), asked), headers={"X-Feast": "yes"})

    async def post(self, path: str, data: bytes, **headers: str) -> tuple[int, bytes, str]:
        """Status, body and Cache-Status."""
        sent = {"Content-Type": "application/json", **{name.replace("_", "-"): value for name, value in headers.items()}}
        async with self.client.post(self.url + path, data=data, headers=sent) as answer:
            return answer.status, await answer.read(), answer.headers.get("Cache-Status", "")

    async def read(self, *users: Any, **headers: str) -> str:
        """Asserts that the answer is upstream's; its Cache-Status."""
        asked = body(["users:a", "users:b"], {"user_id": list(users)})
        status, answer, cached = await self.post(READ, asked, **headers)
        assert status == 200
        assert json.loads(answer) == json.loads(self.upstream.answer(asked))
        return cached


@pytest.fixture
async def feature() -> AsyncIterator[Feature]:
    async with AsyncExitStack() as stack:
        yield await started(stack, Feature())


async def started(stack: AsyncExitStack, feature: Feature) -> Feature:
    app = web.Application(client_max_size=2**24)
    app.router.add_route("*", "/{path:.*}", feature.feast)
    runner = web.AppRunner(app)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    upstream = Upstream(f"http://127.0.0.1:{runner.addresses[0][1]}", UpstreamLimits(5.0, 0.0, 2**16))
    await upstream.open()
    stack.push_async_callback(upstream.close)
    tenancy = Tenancy("Authorization", b"k" * 32)
    rules = FeatureRules(lambda headers: tenancy.caller(headers).credential, LIMITS, frozenset({"user_id"}), lambda: feature.active)
    parts = FeatureParts(MemoryCells(2**20), MemoryEpochs(), Keyspace("test"))
    feature.cache, server = build_features(Features("http://feast"), parts, upstream, rules)
    feature.url = await served(stack, server)
    feature.client = await stack.enter_async_context(aiohttp.ClientSession())
    return feature


async def served(stack: AsyncExitStack, server: FeatureServer) -> str:
    proxy = ProxyServer(server.handle, ServerLimits(2**16, 10.0, 75.0))
    listening = await asyncio.get_running_loop().create_server(proxy, "127.0.0.1", 0)
    stack.push_async_callback(server.close)
    stack.push_async_callback(proxy.shutdown, 5.0)
    stack.callback(listening.close)
    return f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"


async def test_cache_status_tells_what_was_cached(feature: Feature) -> None:
    assert await feature.read(1, 2) == 'inference-cache; fwd=miss; fwd-status=200; stored; detail="cells=0/4"'
    assert await feature.read(2, 1) == 'inference-cache; hit; detail="cells=4/4"'
    assert await feature.read(2, 3) == 'inference-cache; fwd=partial; fwd-status=200; stored; detail="cells=2/4"'
    assert len(feature.seen) == 2


async def test_a_miss_is_upstreams_answer_to_the_byte(feature: Feature) -> None:
    asked = body(["users:a"], {"user_id": [1, 2]})
    assert (await feature.post(READ, asked))[1] == feature.upstream.answer(asked)


async def test_cached_answers_are_not_for_caches_outside(feature: Feature) -> None:
    await feature.read(1)
    async with feature.client.post(feature.url + READ, json=json.loads(body(["users:a", "users:b"], {"user_id": [1]}))) as answer:
        assert answer.headers["Cache-Control"] == "private, no-store"
        assert answer.headers["Content-Type"] == "application/json"


async def test_credentials_share_nothing_and_a_refused_one_gets_nothing(feature: Feature) -> None:
    await feature.read(1, Authorization="Bearer good")
    assert "miss" in await feature.read(1, Authorization="Bearer other")
    assert "hit" in await feature.read(1, Authorization="Bearer good")
    asked = body(["users:a", "users:b"], {"user_id": [1]})
    for _ in range(2):
        status, answer, cached = await feature.post(READ, asked, Authorization="Bearer bad")
        assert (status, json.loads(answer)) == (401, {"detail": "who are you?"})
        assert cached == 'inference-cache; fwd=miss; fwd-status=401; detail="cells=0/2"'


async def test_questions_of_our_own_carry_the_callers_headers(feature: Feature) -> None:
    await feature.read(1, Authorization="Bearer good", X_Trace="7")
    await feature.read(1, 2, Authorization="Bearer good", X_Trace="8")
    last = feature.seen[-1].headers
    assert (last["Authorization"], last["X-Trace"], last["Content-Type"]) == ("Bearer good", "8", "application/json")


@pytest.mark.parametrize("status", [404, 422, 500, 503])
async def test_an_error_of_upstreams_is_passed_on_and_not_kept(feature: Feature, status: int) -> None:
    feature.status = status
    assert (await feature.post(READ, body(["users:a"], {"user_id": [1]})))[:2] == (status, b'{"detail": "no"}')
    feature.status = 200
    assert "miss" in await feature.read(1)


async def test_cached_rows_outlive_the_feature_server(feature: Feature) -> None:
    await feature.read(1)
    feature.status = 503
    assert "hit" in await feature.read(1)
    assert (await feature.post(READ, body(["users:a", "users:b"], {"user_id": [1, 2]})))[0] == 503


async def test_a_client_can_ask_for_a_fresh_answer_or_for_none_to_be_kept(feature: Feature) -> None:
    assert "detail" in await feature.read(1, Cache_Control="no-store")
    assert "stored" in await feature.read(1)
    assert "miss" in await feature.read(1, Cache_Control="no-cache")
    assert "miss" in await feature.read(1, Cache_Control="max-age=0")
    assert "hit" in await feature.read(1)


@pytest.mark.parametrize(
    "asked",
    [
        pytest.param(b'{"feature_service": "all", "entities": {"user_id": [1]}}', id="feature-service"),
        pytest.param(b"no json", id="no-json"),
        pytest.param(body(["users:a"], {"user_id": list(range(20_000))}), id="long"),
    ],
)
async def test_what_is_not_understood_reaches_upstream_unchanged(feature: Feature, asked: bytes) -> None:
    feature.upstream.answer = lambda request: request  # type: ignore[method-assign]
    for _ in range(2):
        status, answer, cached = await feature.post(READ, asked)
        assert (status, answer, cached) == (200, asked, 'inference-cache; fwd=bypass; detail="not-cacheable"')
    assert feature.cache.counts.bypassed == 2


async def test_only_plain_json_is_read(feature: Feature) -> None:
    asked = body(["users:a"], {"user_id": [1]})
    for headers in ({"Content-Type": "text/plain"}, {"Content-Encoding": "identity"}):
        feature.upstream.answer = lambda _: b"as it is"  # type: ignore[method-assign]
        assert (await feature.post(READ, asked, **headers))[1:] == (b"as it is", 'inference-cache; fwd=bypass; detail="not-cacheable"')


async def test_an_encoded_answer_is_passed_on_and_not_kept(feature: Feature) -> None:
    feature.encoding = "x-ours"
    feature.client.headers["Accept-Encoding"] = "x-ours"
    for _ in range(2):
        assert "stored" not in await feature.read(1)


async def test_a_too_long_answer_is_passed_on(feature: Feature) -> None:
    long = b'{"long": "%b"}' % (b"x" * (LIMITS.answer_bytes + 1))
    feature.upstream.answer = lambda _: long  # type: ignore[method-assign]
    status, answer, cached = await feature.post(READ, body(["users:a"], {"user_id": [1]}))
    assert (status, answer) == (200, long)
    assert cached == 'inference-cache; fwd=bypass; detail="answer-too-large"'


@pytest.mark.parametrize(("method", "path"), [("GET", "/health"), ("POST", "/search?top_k=3"), ("POST", READ + "?x=1"), ("DELETE", READ)])
async def test_everything_else_passes(feature: Feature, method: str, path: str) -> None:
    async with feature.client.request(method, feature.url + path, data=b"anything") as answer:
        if READ not in path:
            assert (await answer.read(), answer.headers["X-Feast"]) == (path.encode() + b" anything", "yes")
        assert (feature.seen[-1].method, feature.seen[-1].path_qs) == (method, path)
        forwarded = "fwd=method" if method != "POST" else 'fwd=bypass; detail="path"'
        assert answer.headers["Cache-Status"] == f"inference-cache; {forwarded}"


def written(*users: Any) -> bytes:
    return json.dumps({"push_source_name": "s", "df": {"user_id": users, "a": [0] * len(users)}}).encode()


@pytest.mark.parametrize("path", ["/push", "/write-to-online-store"])
async def test_a_write_that_passes_drops_the_entities_it_names(feature: Feature, path: str) -> None:
    await feature.read(1, 2)
    status, answer, cached = await feature.post(path, written(2))
    assert (status, answer, cached) == (200, path.encode() + b" " + written(2), 'inference-cache; fwd=bypass; detail="write"')
    assert "cells=2/4" in await feature.read(1, 2)


async def test_a_write_that_upstream_refused_drops_nothing(feature: Feature) -> None:
    await feature.read(1)
    feature.status = 422
    await feature.post("/push", written(1))
    assert "hit" in await feature.read(1)


async def test_a_write_that_failed_half_way_may_have_happened(feature: Feature) -> None:
    await feature.read(1)
    feature.status = 500
    await feature.post("/push", written(1))
    feature.status = 200
    assert "miss" in await feature.read(1)


async def test_a_write_drops_also_if_its_client_does_not_wait(feature: Feature) -> None:
    await feature.read(1)
    feature.hold = asyncio.Event()
    writing = asyncio.create_task(feature.post("/push", written(1)))
    while not any(request.path == "/push" for request in feature.seen):
        await asyncio.sleep(0.01)
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)
    feature.hold.set()
    async with asyncio.timeout(20):
        while feature.cache.counts.dropped_entities == 0:
            await asyncio.sleep(0.01)
    assert "miss" in await feature.read(1)


@pytest.mark.parametrize("path", ["/materialize", "/materialize-incremental"])
async def test_a_materialisation_drops_everything(feature: Feature, path: str) -> None:
    await feature.read(1)
    await feature.post(path, b"{}")
    assert "miss" in await feature.read(1)


async def test_a_write_succeeds_though_other_replicas_cannot_be_told(feature: Feature, monkeypatch: pytest.MonkeyPatch) -> None:
    async def untold(*_: Any) -> None:
        raise StoreUnavailable("down")

    monkeypatch.setattr(feature.cache, "drop_entities", untold)
    assert (await feature.post("/push", written(1)))[0] == 200
    assert feature.cache.counts.store_failures == 1


async def test_a_cache_that_is_off_lets_everything_pass(feature: Feature) -> None:
    await feature.read(1)
    feature.active = False
    assert await feature.read(1) == 'inference-cache; fwd=bypass; detail="not-cacheable"'


async def test_an_error_of_ours_lets_the_request_pass(feature: Feature, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(feature.cache, "answer", broken)
    assert await feature.read(1) == 'inference-cache; fwd=bypass; detail="error"'
    assert feature.cache.counts.failed_open == 1


@pytest.mark.slow
async def test_without_a_feature_server_the_error_says_so(feature: Feature) -> None:
    async with AsyncExitStack() as stack:
        nobody = Upstream("http://127.0.0.1:1", UpstreamLimits(5.0, 0.0, 2**16))
        await nobody.open()
        stack.push_async_callback(nobody.close)
        parts, rules = FeatureParts(MemoryCells(2**20), MemoryEpochs(), Keyspace("test")), FeatureRules(lambda _: b"", LIMITS)
        _, server = build_features(Features(), parts, nobody, rules)
        feature.url = await served(stack, server)
        for path in (READ, "/push", "/search"):
            status, answer, cached = await feature.post(path, body(["users:a"], {"user_id": [1]}))
            assert (status, json.loads(answer)) == (502, {"detail": "the feature server cannot be reached"})
            assert cached == "inference-cache; fwd=miss; fwd-status=502"
