import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from inference_cache_sidecar.admin import audit
from inference_cache_sidecar.admin.app import MAX_BODY_BYTES, build_admin
from inference_cache_sidecar.admin.services import AdminServices, FeedbackRequest, FeedbackResult, SharedStatus, Status
from inference_cache_sidecar.errors import StoreError, StoreUnavailable
from inference_cache_sidecar.exposition import registry
from inference_cache_sidecar.flush import FlushIncomplete, FlushRequest, FlushResult
from inference_cache_sidecar.metrics import Metrics, Verdict
from inference_cache_sidecar.shared.memory_report import Finding
from inference_cache_sidecar.shared.purging import Purge
from inference_cache_sidecar.store.protocol import StoreStats
from inference_cache_sidecar.store.tiered import Warming

TOKEN = "s3cret-token"
KEY = "ab" * 32
ACKNOWLEDGED = {"epoch": 42, "acknowledged": True}
STATS = StoreStats(1, 2, 3, 4, 5, 6, 7, 8, 9, 10)
SHARED = SharedStatus(
    kind="cluster",
    healthy=False,
    findings=(Finding("ReadOnly", "problem", "nothing can be stored"),),
    epochs_confirmed=True,
    breaker_open=False,
    replicas=2,
    used_memory=10,
    max_memory=0,
    policy="volatile-lru",
    fragmentation_ratio=1.25,
    warming=Warming(7, 5, done=True),
)


class Sidecar:
    """What stands behind the admin port in these tests; remembers what it was asked."""

    def __init__(self) -> None:
        self.reasons: list[str] = []
        self.asked: list[FlushRequest | FeedbackRequest] = []
        self.by: list[str] = []
        self.metrics = Metrics()
        self.failure: StoreError | None = None
        self.purge: Purge | None = None
        self.shared: SharedStatus | None = None

    def status(self) -> Status:
        epochs = {"cache": 7}
        return Status("llm/faq", "m", "v1", "Enabled", "Serve", b"\x01\xff", True, epochs, "ready", STATS, 1.5, self.purge, self.shared)

    async def flush(self, request: FlushRequest, by: str) -> FlushResult:
        self.asked.append(request)
        self.by.append(by)
        if self.failure is not None:
            raise self.failure
        if request.target == "key":
            return FlushResult(3, None)
        if request.dry_run:
            return FlushResult(3, 42)
        return FlushResult(None if request.background else 3, 42, 0.012)

    async def feedback(self, request: FeedbackRequest) -> FeedbackResult | None:
        self.asked.append(request)
        if self.failure is not None:
            raise self.failure
        return FeedbackResult(evicted=request.verdict is Verdict.WRONG) if request.answer_id != "unknown" else None

    def services(self) -> AdminServices:
        return AdminServices(self.status, lambda: self.reasons, self.flush, self.feedback, registry(self.metrics, lambda: STATS))


class Client:
    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self.session = session
        self.url = url

    async def get(self, path: str, **headers: str) -> tuple[int, Any, str]:
        async with self.session.get(self.url + path, headers=headers) as answer:
            return answer.status, await answer.text(), answer.headers["Content-Type"]

    async def post(self, path: str, body: object, token: str | None = TOKEN) -> tuple[int, Any]:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {token}"} if token is not None else {}
        async with self.session.post(self.url + path, data=data, headers=headers) as answer:
            return answer.status, await answer.json()


async def _serve(sidecar: Sidecar, token: str | None) -> AsyncIterator[Client]:
    runner = web.AppRunner(build_admin(sidecar.services(), token))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    async with aiohttp.ClientSession() as session:
        yield Client(session, f"http://{host}:{port}")
    await runner.cleanup()


@pytest.fixture
def sidecar() -> Sidecar:
    return Sidecar()


@pytest.fixture
async def admin(sidecar: Sidecar) -> AsyncIterator[Client]:
    async for client in _serve(sidecar, TOKEN):
        yield client


@pytest.fixture
async def tokenless(sidecar: Sidecar) -> AsyncIterator[Client]:
    async for client in _serve(sidecar, None):
        yield client


async def test_a_running_sidecar_is_live(tokenless: Client) -> None:
    assert (await tokenless.get("/livez"))[:2] == (200, "ok\n")


async def test_readiness_follows_its_reasons(tokenless: Client, sidecar: Sidecar) -> None:
    status, body, _ = await tokenless.get("/readyz")
    assert (status, json.loads(body)) == (200, {"ready": True, "reasons": []})
    sidecar.reasons.append("upstream not confirmed")
    status, body, _ = await tokenless.get("/readyz")
    assert (status, json.loads(body)) == (503, {"ready": False, "reasons": ["upstream not confirmed"]})


async def test_metrics_come_in_the_form_that_was_asked_for(tokenless: Client, sidecar: Sidecar) -> None:
    sidecar.metrics.failed_open()
    status, text, content_type = await tokenless.get("/metrics")
    assert status == 200
    assert content_type.startswith("text/plain")
    assert "inference_cache_failed_open_total 1.0\n" in text
    assert "inference_cache_store_evicted_total 7.0\n" in text
    _, text, content_type = await tokenless.get("/metrics", Accept="application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    assert text.endswith("# EOF\n")


async def test_status_tells_what_is_running_without_a_token(tokenless: Client) -> None:
    status, body, _ = await tokenless.get("/status")
    told = json.loads(body)
    assert status == 200
    assert told["revision"] == "01ff"
    assert told["upstreamConfirmed"] is True
    assert (told["cache"], told["model"], told["modelVersion"]) == ("llm/faq", "m", "v1")
    assert (told["mode"], told["semanticMode"], told["embedder"], told["uptimeSeconds"]) == ("Enabled", "Serve", "ready", 1.5)
    assert (told["epochs"], told["store"]["usedBytes"], told["store"]["refused"]) == ({"cache": 7}, 4, 10)
    assert told["version"]
    assert (told["purge"], told["sharedStore"]) == (None, None)


async def test_status_tells_of_the_shared_store_and_how_far_a_purge_is(tokenless: Client, sidecar: Sidecar) -> None:
    sidecar.purge, sidecar.shared = Purge("tag", scanned=400, deleted=3, seconds=0.5), SHARED
    told = json.loads((await tokenless.get("/status"))[1])
    assert told["purge"] == {"name": "tag", "scanned": 400, "deleted": 3, "done": False, "seconds": 0.5}
    assert told["sharedStore"] == {
        "kind": "cluster",
        "healthy": False,
        "findings": [{"name": "ReadOnly", "level": "problem", "text": "nothing can be stored"}],
        "epochsConfirmed": True,
        "breakerOpen": False,
        "replicas": 2,
        "usedMemory": 10,
        "maxMemory": 0,
        "policy": "volatile-lru",
        "fragmentationRatio": 1.25,
        "warming": {"scanned": 7, "loaded": 5, "done": True},
    }


async def test_status_does_not_tell_the_token(admin: Client) -> None:
    for path in ("/status", "/metrics", "/readyz"):
        assert TOKEN not in (await admin.get(path))[1]


@pytest.mark.parametrize(
    ("body", "request_", "status", "answer"),
    [
        pytest.param({"all": True}, FlushRequest("all"), 200, {"flushed": 3} | ACKNOWLEDGED, id="all"),
        pytest.param({"version": "v1"}, FlushRequest("version", "v1"), 200, {"flushed": 3} | ACKNOWLEDGED, id="version"),
        pytest.param({"tag": "user:7"}, FlushRequest("tag", "user:7"), 200, {"flushed": 3} | ACKNOWLEDGED, id="tag"),
        pytest.param({"category": "pricing"}, FlushRequest("category", "pricing"), 200, {"flushed": 3} | ACKNOWLEDGED, id="category"),
        pytest.param({"adapter": "lora"}, FlushRequest("adapter", "lora"), 200, {"flushed": 3} | ACKNOWLEDGED, id="adapter"),
        pytest.param({"key": KEY.upper()}, FlushRequest("key", KEY), 200, {"flushed": 3}, id="key"),
        pytest.param(
            {"tag": "a", "dryRun": True}, FlushRequest("tag", "a", dry_run=True), 200, {"wouldFlush": 3, "epoch": 42}, id="dry-run"
        ),
        pytest.param({"tag": "a", "dryRun": False}, FlushRequest("tag", "a"), 200, {"flushed": 3} | ACKNOWLEDGED, id="no-dry-run"),
        pytest.param(
            {"all": True, "background": True},
            FlushRequest("all", background=True),
            202,
            {"purge": "background"} | ACKNOWLEDGED,
            id="background",
        ),
    ],
)
async def test_a_flush_is_passed_on_and_answered(
    admin: Client, sidecar: Sidecar, body: dict[str, Any], request_: FlushRequest, status: int, answer: dict[str, Any]
) -> None:
    assert await admin.post("/flush", body) == (status, answer)
    assert (sidecar.asked, sidecar.by) == ([request_], ["127.0.0.1"])


@pytest.mark.parametrize(
    ("failure", "told"),
    [
        pytest.param(FlushIncomplete("here alone", 42), {"acknowledged": False, "epoch": 42}, id="not-acknowledged"),
        pytest.param(FlushIncomplete("bytes are left", 42, 0.1), {"acknowledged": True, "epoch": 42}, id="bytes-left"),
        pytest.param(FlushIncomplete("the key may still be found"), {"acknowledged": False}, id="key"),
    ],
)
async def test_where_the_store_fails_a_flush_is_answered_503_and_says_what_is_in_force(
    admin: Client, sidecar: Sidecar, failure: FlushIncomplete, told: dict[str, Any]
) -> None:
    sidecar.failure = failure
    status, answer = await admin.post("/flush", {"all": True})
    error = {"message": str(failure), "type": "store_error", "param": None, "code": 503}
    assert (status, answer) == (503, {"error": error} | told)


async def test_where_the_store_fails_feedback_is_answered_503(admin: Client, sidecar: Sidecar) -> None:
    sidecar.failure = StoreUnavailable("the shared store did not answer in time")
    status, answer = await admin.post("/feedback", {"key": KEY, "verdict": "wrong"})
    assert (status, answer["error"]["type"], answer["error"]["message"]) == (503, "store_error", str(sidecar.failure))


@pytest.mark.parametrize(
    ("path", "body", "names"),
    [
        pytest.param("/flush", b"{", "not valid JSON", id="broken"),
        pytest.param("/flush", b"", "not valid JSON", id="empty"),
        pytest.param("/flush", b"\xff\xfe{}", "not valid JSON", id="not-utf-8"),
        pytest.param("/flush", b"[" * 10_000, "not valid JSON", id="deep"),
        pytest.param("/flush", [], "not a JSON object", id="list"),
        pytest.param("/flush", {}, "exactly one of version, tag, category, adapter, key, all", id="nothing-named"),
        pytest.param("/flush", {"tag": "a", "all": True}, "exactly one of", id="two-named"),
        pytest.param("/flush", {"tags": "a"}, "'tags'", id="unknown-field"),
        pytest.param("/flush", b'{"tag": "a", "tag": "b"}', "twice", id="field-twice"),
        pytest.param("/flush", {"tag": ""}, "tag: ''", id="empty-tag"),
        pytest.param("/flush", {"tag": 7}, "tag: 7", id="tag-as-number"),
        pytest.param("/flush", {"tag": "x" * 300}, "1 to 256", id="long-tag"),
        pytest.param("/flush", {"all": False}, "all: False is not true", id="all-false"),
        pytest.param("/flush", {"all": True, "dryRun": "yes"}, "dryRun: 'yes'", id="dry-run-as-text"),
        pytest.param("/flush", {"all": True, "background": 1}, "background: 1", id="background-as-number"),
        pytest.param("/flush", {"all": True, "background": True, "dryRun": True}, "dryRun and background", id="dry-run-in-background"),
        pytest.param("/flush", {"key": "abc"}, "key: 'abc'", id="short-key"),
        pytest.param("/flush", {"key": "z" * 64}, "key: 'z", id="key-not-hexadecimal"),
        pytest.param("/feedback", {"id": "x"}, "verdict: None", id="no-verdict"),
        pytest.param("/feedback", {"id": "x", "verdict": "bad"}, "verdict: 'bad' is not one of right, wrong", id="unknown-verdict"),
        pytest.param("/feedback", {"id": "x", "verdict": []}, "verdict: []", id="verdict-as-list"),
        pytest.param("/feedback", {"verdict": "wrong"}, "exactly one of id, key", id="no-answer-named"),
        pytest.param("/feedback", {"id": "x", "key": KEY, "verdict": "wrong"}, "exactly one of id, key", id="two-answers-named"),
    ],
)
async def test_a_bad_body_is_refused_and_says_why(admin: Client, sidecar: Sidecar, path: str, body: object, names: str) -> None:
    status, answer = await admin.post(path, body)
    assert status == 400
    assert names in answer["error"]["message"]
    assert (answer["error"]["type"], answer["error"]["code"]) == ("invalid_request_error", 400)
    assert sidecar.asked == []


async def test_a_body_over_the_limit_is_refused(admin: Client, sidecar: Sidecar) -> None:
    status, answer = await admin.post("/flush", b'{"tag": "' + b"x" * MAX_BODY_BYTES + b'"}')
    assert (status, answer["error"]["code"]) == (413, 413)
    assert sidecar.asked == []


@pytest.mark.parametrize(
    "authorization",
    [None, "", "Bearer", "Bearer ", "Bearer wrong", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", "Bearer \u00fc"],
    ids=repr,
)
async def test_a_write_without_the_right_token_is_refused(admin: Client, sidecar: Sidecar, authorization: str | None) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
    for path, body in (("/flush", {"all": True}), ("/feedback", {"id": "x", "verdict": "wrong"})):
        async with admin.session.post(admin.url + path, json=body, headers=headers) as answer:
            assert answer.status == 401
            assert answer.headers["WWW-Authenticate"] == "Bearer"
            error = (await answer.json())["error"]
    assert error["type"] == "authentication_error"
    assert TOKEN not in error["message"]
    assert sidecar.asked == []


@pytest.mark.parametrize(
    "token", [pytest.param(None, id="no-token"), pytest.param("", id="empty-token"), pytest.param("None", id="a-token")]
)
async def test_without_a_configured_token_nobody_may_write_and_is_told_how_to(
    tokenless: Client, sidecar: Sidecar, token: str | None
) -> None:
    for path in ("/flush", "/feedback"):
        status, answer = await tokenless.post(path, {"all": True}, token)
        assert (status, answer["error"]["type"]) == (403, "permission_error")
        assert "INFERENCE_CACHE_ADMIN_TOKEN" in answer["error"]["message"]
    assert sidecar.asked == []


@pytest.mark.parametrize(
    ("body", "request_", "evicted"),
    [
        pytest.param({"id": "chatcmpl-1", "verdict": "wrong"}, FeedbackRequest("chatcmpl-1", None, Verdict.WRONG), True, id="wrong"),
        pytest.param({"key": KEY, "verdict": "right"}, FeedbackRequest(None, bytes.fromhex(KEY), Verdict.RIGHT), False, id="right"),
    ],
)
async def test_feedback_is_passed_on_and_answered(
    admin: Client, sidecar: Sidecar, body: dict[str, Any], request_: FeedbackRequest, evicted: bool
) -> None:
    assert await admin.post("/feedback", body) == (200, {"verdict": body["verdict"], "evicted": evicted})
    assert sidecar.asked == [request_]


async def test_feedback_on_an_answer_that_nobody_remembers_is_404(admin: Client) -> None:
    status, answer = await admin.post("/feedback", {"id": "unknown", "verdict": "wrong"})
    assert (status, answer["error"]["code"]) == (404, 404)


@pytest.mark.parametrize(
    ("method", "path", "status", "allow"),
    [
        pytest.param("GET", "/", 404, None, id="unknown-path"),
        pytest.param("GET", "/flush", 405, "POST", id="read-of-a-write"),
        pytest.param("POST", "/status", 405, "GET,HEAD", id="write-of-a-read"),
    ],
)
async def test_a_wrong_path_or_method_is_a_json_error(admin: Client, method: str, path: str, status: int, allow: str | None) -> None:
    async with admin.session.request(method, admin.url + path) as answer:
        assert (answer.status, answer.headers.get("Allow")) == (status, allow)
        assert (await answer.json())["error"]["code"] == status


@pytest.mark.parametrize(
    ("request_", "result", "line"),
    [
        pytest.param(
            FlushRequest("version", "v1"),
            FlushResult(3, 42, 0.0123),
            "version 'v1' by ::1: acknowledged in 12 ms, 3 entries deleted, epoch 42",
        ),
        pytest.param(
            FlushRequest("all", background=True),
            FlushResult(None, 42, 0.2),
            "all by ::1: acknowledged in 200 ms, deleting in the background, epoch 42",
        ),
        pytest.param(
            FlushRequest("adapter", "lora", dry_run=True),
            FlushResult(3, 42),
            "adapter 'lora' by ::1 (dry run): 3 entries would be deleted, epoch 42",
        ),
        pytest.param(
            FlushRequest("tag", "user:7"),
            FlushResult(0, 42, 0.0),
            "tag caf4870ed1f3745f977a55c8bb233c70 by ::1: acknowledged in 0 ms, 0 entries deleted, epoch 42",
        ),
        pytest.param(FlushRequest("key", KEY), FlushResult(1, None), "key 271a413bd339c5709fdceaec41f14f11 by ::1: 1 entries deleted"),
        pytest.param(
            FlushRequest("category", "a\nflush of all"),
            FlushResult(0, 42, 0.0),
            "category 'a\\nflush of all' by ::1: acknowledged in 0 ms, 0 entries deleted, epoch 42",
        ),
    ],
    ids=["version", "background", "dry-run", "tag-by-its-digest", "key-by-its-digest", "cannot-forge-another-line"],
)
def test_a_flush_leaves_a_line_that_says_what_and_by_whom(request_: FlushRequest, result: FlushResult, line: str) -> None:
    assert audit.done(request_, "::1", result) == "flush of " + line


def test_a_flush_that_failed_leaves_a_line_too() -> None:
    alone = FlushIncomplete("in force here alone", 42)
    assert audit.incomplete(FlushRequest("all"), "::1", alone) == "flush of all by ::1: not acknowledged, in force here alone, epoch 42"
    left = FlushIncomplete("bytes are left", 42, 0.5)
    assert audit.incomplete(FlushRequest("all"), "::1", left) == "flush of all by ::1: acknowledged in 500 ms, bytes are left, epoch 42"


async def test_a_refused_write_does_not_wait_for_its_body(admin: Client) -> None:
    host, port = admin.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"POST /flush HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n")
    assert b"401" in await asyncio.wait_for(reader.readline(), 60)
    writer.close()
    await writer.wait_closed()
