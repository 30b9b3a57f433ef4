import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web
from tests.sidecar.features_upstream import FeatureUpstream

from inference_cache_toolkit.features_client import Columns, FeatureClient, FeatureError


@dataclass
class Server:
    upstream: FeatureUpstream = field(default_factory=FeatureUpstream)
    asked: list[tuple[str, Any, str]] = field(default_factory=list)
    answer: web.Response | None = None
    url: str = ""

    async def handle(self, request: web.Request) -> web.Response:
        self.asked.append((request.path, await request.json(), request.headers.get("Authorization", "")))
        if self.answer is not None:
            return self.answer
        if request.path == "/get-online-features":
            return web.Response(body=self.upstream.answer(await request.read()), content_type="application/json")
        return web.Response()


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    made, app = Server(), web.Application()
    app.router.add_post("/{path:.*}", made.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
    yield made
    await runner.cleanup()


async def test_one_users_features_come_by_name(server: Server) -> None:
    async with FeatureClient(server.url, headers={"Authorization": "Bearer x"}) as client:
        values = await client.user_features(1, ["users:a", "users:b"])
    expected = json.loads(server.upstream.answer(json.dumps({"features": ["users:a", "users:b"], "entities": {"user_id": [1]}}).encode()))
    assert list(values) == ["users:a", "users:b"]
    assert [[value] for value in values.values()] == [result["values"] for result in expected["results"][1:]]
    assert server.asked[0][2] == "Bearer x"


async def test_embeddings_come_in_the_order_asked(server: Server) -> None:
    vectors = {"x": [0.5, 1.5], "y": None, "z": [2.5]}
    names, ids = ["item_id", "item_embeddings__embedding"], ["z", "y", "x", "z"]
    results = [{"values": ids}, {"values": [vectors[one] for one in ids]}]
    server.answer = web.json_response({"metadata": {"feature_names": names}, "results": results})
    async with FeatureClient(server.url) as client:
        assert await client.item_embeddings(ids) == [[2.5], None, [0.5, 1.5], [2.5]]
        assert await client.item_embeddings([]) == []


async def test_equal_names_in_two_views_do_not_clash(server: Server) -> None:
    async with FeatureClient(server.url) as client:
        rows = await client.batch_get({"user_id": [1, 2], "item_id": [1, 2]}, ["users:a", "items:a"])
    assert [sorted(row) for row in rows] == [["items:a", "users:a"]] * 2
    assert server.asked[0][1]["full_feature_names"] is True


async def test_rows_are_written_column_by_column_with_a_time(server: Server) -> None:
    async with FeatureClient(server.url) as client:
        await client.batch_set("users", [{"user_id": 1, "a": 5}, {"user_id": 2, "a": None}])
    (path, body, _) = server.asked[0]
    assert (path, body["feature_view_name"], body["df"]["user_id"], body["df"]["a"]) == (
        "/write-to-online-store",
        "users",
        [1, 2],
        [5, None],
    )
    assert len(body["df"]["event_timestamp"]) == 2


async def test_rows_are_pushed_where_a_source_is_named(server: Server) -> None:
    async with FeatureClient(server.url, columns=Columns(timestamp="at")) as client:
        await client.batch_set("users", [{"user_id": 1, "at": "2026-01-01T00:00:00Z"}], push_source="clicks")
        await client.batch_set("users", [])
    frame = {"at": ["2026-01-01T00:00:00Z"], "user_id": [1]}
    assert server.asked == [("/push", {"push_source_name": "clicks", "df": frame}, "")]


async def test_rows_of_different_columns_are_refused(server: Server) -> None:
    async with FeatureClient(server.url) as client:
        with pytest.raises(ValueError, match="same columns"):
            await client.batch_set("users", [{"user_id": 1}, {"user_id": 2, "a": 1}])


@pytest.mark.parametrize("document", [{}, [], None, {"metadata": {"feature_names": ["user_id"]}, "results": [{"values": [1]}]}])
async def test_an_answer_of_another_form_is_an_error(server: Server, document: Any) -> None:
    server.answer = web.json_response(document)
    async with FeatureClient(server.url) as client:
        with pytest.raises(FeatureError, match="another form"):
            await client.user_features(1, ["users:a"])


async def test_an_error_carries_the_servers_status(server: Server) -> None:
    server.answer = web.Response(status=503)
    async with FeatureClient(server.url) as client:
        with pytest.raises(FeatureError) as caught:
            await client.user_features(1, ["users:a"])
    assert caught.value.status == 503


async def test_a_server_that_is_not_there_is_an_error() -> None:
    async with FeatureClient("http://127.0.0.1:1") as client:
        with pytest.raises(FeatureError) as caught:
            await client.batch_set("users", [{"user_id": 1}])
    assert caught.value.status is None
