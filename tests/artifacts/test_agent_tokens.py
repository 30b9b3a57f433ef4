"""Whose request it is, and that nobody gets what is another namespace's."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.artifacts.fake_source import FakeSource
from tests.artifacts.fetched import manifest, model
from tests.artifacts.played_pod import PlayedPod, ask_for
from tests.artifacts.running_agent import RunningAgent, running_agent

from inference_cache_artifacts.agent import tokens
from inference_cache_artifacts.agent.tokens import Tokens, namespace_of
from inference_cache_artifacts.handover import protocol
from inference_cache_artifacts.handover.protocol import AUDIENCE

FILES = model(big=100_000)
ASK = ask_for(manifest(FILES))


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[RunningAgent]:
    with running_agent(tmp_path, job=1.0) as running:
        yield running


def paths(tree: str) -> list[str]:
    return [
        protocol.TREE.format(tree=tree),
        protocol.MANIFEST.format(tree=tree),
        protocol.FILE.format(tree=tree, path="config.json"),
    ]


@pytest.mark.services
def test_another_namespace_finds_neither_tree_nor_fetch(agent: RunningAgent) -> None:
    own, other = PlayedPod(agent.url, "token-a"), PlayedPod(agent.url, "token-b")
    assert own.fetched(ASK, FakeSource(FILES)).state == "done"
    assert [own.request("GET", path).status for path in paths(ASK.tree)] == [200, 200, 200]
    assert [other.request("GET", path).status for path in paths(ASK.tree)] == [404, 404, 404]
    fetch = other.begin(ASK)
    assert own.request("GET", protocol.FETCH.format(fetch=fetch)).status == 404
    assert own.request("GET", protocol.JOB.format(fetch=fetch)).status == 404
    assert own.request("DELETE", protocol.FETCH.format(fetch=fetch)).status == 404
    assert own.put(fetch, 1, b"x") == 404


@pytest.mark.services
@pytest.mark.parametrize(
    "authorization",
    [
        pytest.param({}, id="none"),
        pytest.param({"Authorization": ""}, id="empty"),
        pytest.param({"Authorization": "Bearer "}, id="no-token"),
        pytest.param({"Authorization": "Bearer nobodys"}, id="unknown"),
        pytest.param({"Authorization": "Basic dG9rZW4tYQ=="}, id="basic"),
    ],
)
def test_who_shows_no_token_of_a_pod_is_refused(agent: RunningAgent, authorization: dict[str, str]) -> None:
    http = PlayedPod(agent.url).http
    for path in [*paths(ASK.tree), protocol.FETCH.format(fetch="x"), protocol.JOB.format(fetch="x")]:
        answer = http.request("GET", agent.url + path, headers=authorization)
        assert (answer.status, answer.headers[protocol.FAILURE_HEADER]) == (401, "Unknown")
    assert http.request("POST", agent.url + protocol.FETCHES, body=protocol.ask_text(ASK).encode(), headers=authorization).status == 401


@pytest.mark.services
def test_a_token_for_somebody_else_is_refused(agent: RunningAgent) -> None:
    agent.api.audiences = ["https://kubernetes.default.svc"]
    assert PlayedPod(agent.url).ask(ASK).status == 401


@pytest.mark.services
def test_where_the_api_server_does_not_answer_nobody_is_let_in(agent: RunningAgent) -> None:
    agent.api.is_down = True
    assert PlayedPod(agent.url).ask(ASK).status == 503
    agent.api.is_down = False
    assert PlayedPod(agent.url).ask(ASK).status == 201


@pytest.mark.services
def test_a_token_is_reviewed_once_in_a_while(agent: RunningAgent) -> None:
    pod = PlayedPod(agent.url)
    assert [pod.request("GET", protocol.TREE.format(tree=ASK.tree)).status for _ in range(5)] == [404] * 5
    assert sum(each.endswith("/tokenreviews") for each in agent.api.requests) == 1
    agent.api.is_down = True
    assert pod.request("GET", protocol.TREE.format(tree=ASK.tree)).status == 404


@pytest.mark.services
def test_what_nobody_knows_pushes_out_no_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for most in ("_MOST_KEPT", "_MOST_REFUSED"):
        # All are asked long before the answer for the first would be forgotten.
        monkeypatch.setattr(tokens, most, 20)
    with running_agent(tmp_path) as agent:
        pod, path = PlayedPod(agent.url), protocol.TREE.format(tree=ASK.tree)
        assert pod.request("GET", path).status == 404
        for number in range(50):
            assert PlayedPod(agent.url, f"junk-{number}", http=pod.http).request("GET", path).status == 401
        agent.api.is_down = True
        assert pod.request("GET", path).status == 404


async def test_one_review_of_a_token_is_under_way_at_a_time() -> None:
    reviews = []

    class Kubernetes:
        async def post(self, path: str, document: object) -> dict[str, object]:
            reviews.append(path)
            await asyncio.sleep(0.01)
            return {"status": {"authenticated": True, "audiences": [AUDIENCE], "user": {"username": "system:serviceaccount:a:default"}}}

    asked = Tokens(Kubernetes())  # type: ignore[arg-type]
    leaving = asyncio.create_task(asked.namespace("token"))
    await asyncio.sleep(0)
    waiting = asyncio.gather(*(asked.namespace("token") for _ in range(10)))
    await asyncio.sleep(0)
    leaving.cancel()
    assert await waiting == ["a"] * 10
    assert len(reviews) == 1


@pytest.mark.services
def test_health_and_progress_need_no_token(agent: RunningAgent) -> None:
    http = PlayedPod(agent.url).http
    assert http.request("GET", agent.url + protocol.HEALTH).status == 200
    assert http.request("GET", agent.url + protocol.PROGRESS.format(namespace="a", tree=ASK.tree)).status == 404
    assert http.request("GET", agent.url + protocol.PROGRESS.format(namespace="..", tree=ASK.tree)).status == 404


@pytest.mark.parametrize(
    ("change", "namespace"),
    [
        pytest.param({}, "team-a", id="good"),
        pytest.param({"authenticated": False}, None, id="not-authenticated"),
        pytest.param({"authenticated": "true"}, None, id="not-quite-true"),
        pytest.param({"audiences": []}, None, id="no-audience"),
        pytest.param({"audiences": ["other"]}, None, id="another-audience"),
        pytest.param({"user": {"username": "system:node:node-1"}}, None, id="a-node"),
        pytest.param({"user": {"username": "system:serviceaccount:../b:x"}}, None, id="a-path"),
        pytest.param({"user": {"username": "system:serviceaccount:a:b:c"}}, None, id="too-many-parts"),
        pytest.param({"user": None}, None, id="no-user"),
    ],
)
def test_the_namespace_is_that_of_an_authenticated_service_account(change: dict[str, object], namespace: str | None) -> None:
    status = {"authenticated": True, "audiences": [AUDIENCE], "user": {"username": "system:serviceaccount:team-a:default"}}
    assert namespace_of({"status": status | change}) == namespace


def test_a_review_without_a_status_is_nobodys() -> None:
    assert namespace_of({}) is None
