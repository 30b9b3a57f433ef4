"""What agents are asked, and what of it stands in a status."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from tests.operator.prefetch_cluster import PodCluster, agent_pod, look
from tests.operator.prefetch_scenes import AGENT, NOW, cache, vllm

from inference_cache_artifacts.handover.protocol import Failure, Standing, standing_text
from inference_cache_operator.audit.pods import Pod, read_pod
from inference_cache_operator.injection.artifacts import artifacts_of
from inference_cache_operator.prefetch import figures as figures_module
from inference_cache_operator.prefetch.figures import EVERY_SECONDS, AgentClient, FigureBook, summed
from inference_cache_operator.prefetch.outcome import artifacts_status
from inference_cache_operator.prefetch.prefetcher import Prefetcher


def answered(told: int, total: int, rate: int = 0, **more: Any) -> Standing:
    return Standing(
        "running" if rate else "done", {"bytes": told, "totalBytes": total, "files": 1, "totalFiles": 2, "bytesPerSecond": rate}
    )


@pytest.mark.parametrize(
    ("standings", "expected"),
    [
        pytest.param([], {}, id="no-answer"),
        pytest.param([answered(10, 10)], {"bytes": 10, "totalBytes": 10, "files": 1, "totalFiles": 2}, id="done"),
        pytest.param(
            [answered(10, 10), answered(5, 20, 7)],
            {"bytes": 15, "totalBytes": 30, "files": 2, "totalFiles": 4, "bytesPerSecond": 7, "etaSeconds": 3},
            id="two-trees",
        ),
        pytest.param([Standing("running")], {"bytes": 0, "totalBytes": 0, "files": 0, "totalFiles": 0}, id="nothing-counted-yet"),
        pytest.param(
            [Standing("failed", {"bytes": None}, Failure("Corrupt", "m"))],
            {"bytes": 0, "totalBytes": 0, "files": 0, "totalFiles": 0},
            id="failed",
        ),
    ],
)
def test_figures_of_several_trees_are_summed(standings: list[Standing], expected: dict[str, int]) -> None:
    assert summed(standings) == expected


@asynccontextmanager
async def agent(answers: dict[str, web.Response | Callable[[], web.Response]], asked: list[str]) -> AsyncIterator[str]:
    """By tree; what it was asked is written down."""

    async def progress(request: web.Request) -> web.Response:
        asked.append(request.path)
        answer = answers.get(request.match_info["tree"])
        return web.Response(status=404) if answer is None else answer() if callable(answer) else answer

    app = web.Application()
    app.router.add_get("/v1/progress/{namespace}/{tree}", progress)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


ONE_AGENT = {"n1": read_pod(agent_pod("n1"))}


async def test_agents_are_asked_now_and_then_how_far_they_are() -> None:
    now, asked = [0.0], list[str]()
    agents = {"n1": read_pod(agent_pod("n1")), "n2": None}
    text = standing_text(answered(5, 20, 7))
    async with aiohttp.ClientSession() as session, agent({"t": lambda: web.Response(text=text)}, asked) as url:
        book = FigureBook(AgentClient(session, lambda _: url), clock=lambda: now[0])
        figures = [await book.of("uid", "llm", ["t", "u"], agents) for now[0] in (0.0, EVERY_SECONDS - 0.1)]
        assert figures[0] == figures[1] == {"n1": summed([answered(5, 20, 7)])}
        assert sorted(asked) == ["/v1/progress/llm/t", "/v1/progress/llm/u"]
        text = standing_text(answered(20, 20))
        now[0] = EVERY_SECONDS
        assert (await book.of("uid", "llm", ["t", "u"], agents))["n1"]["bytes"] == 20
        assert len(asked) == 4


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(web.Response(text="{"), id="no-json"),
        pytest.param(web.Response(text='{"state": "odd"}'), id="no-standing"),
        pytest.param(web.Response(status=500), id="an-error"),
        pytest.param(web.Response(status=302, headers={"Location": "http://127.0.0.1:1/"}), id="a-redirect"),
    ],
)
async def test_an_agent_that_answers_otherwise_leaves_figures_out(answer: web.Response) -> None:
    async with aiohttp.ClientSession() as session, agent({"t": answer}, []) as url:
        assert await FigureBook(AgentClient(session, lambda _: url)).of("uid", "llm", ["t"], ONE_AGENT) == {}


async def test_an_agent_that_is_away_leaves_figures_out() -> None:
    async with aiohttp.ClientSession() as session:
        for address in (None, "http://127.0.0.1:1"):
            book = FigureBook(AgentClient(session, lambda _, address=address: address))  # type: ignore[misc]
            assert await book.of("uid", "llm", ["t"], ONE_AGENT) == {}


class SlowAgents:
    """All but one do not answer."""

    async def standing(self, agent: Pod, _namespace: str, _tree: str) -> Standing:
        if agent.name != "agent-n00":
            await asyncio.Event().wait()
        return answered(5, 20)


async def test_slow_agents_hold_a_round_up_for_one_deadline_together_and_what_came_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures_module, "DEADLINE_SECONDS", 0.05)
    book = FigureBook(SlowAgents())  # type: ignore[arg-type]
    nodes = {node: read_pod(agent_pod(node)) for node in (f"n{number:02}" for number in range(50))}
    async with asyncio.timeout(10):
        assert await book.of("uid", "llm", ["t", "u"], nodes) == {"n00": summed([answered(10, 40)]) | {"files": 2, "totalFiles": 4}}


async def test_figures_stand_in_the_status_and_at_most_twenty_nodes_are_asked_for() -> None:
    cluster, asked = PodCluster(), list[str]()
    nodes = [f"n{number:02}" for number in range(50)]
    cluster.agents = [agent_pod(node) for node in nodes]
    (tree,) = [each.tree for each in artifacts_of(cache(), "v2")]
    text = standing_text(answered(5, 20, 7))
    async with aiohttp.ClientSession() as session, agent({tree: lambda: web.Response(text=text)}, asked) as url:
        prefetcher = Prefetcher(cluster, AGENT, AgentClient(session, lambda _: url), "ic", now=lambda: NOW)  # type: ignore[arg-type]
        found = await look(cluster, pods=[vllm(node) for node in nodes], prefetcher=prefetcher)
    assert (len(cluster.pods), len(asked), len(found.nodes)) == (50, 20, 50)
    status = artifacts_status(found)
    assert status is not None
    assert (status["nodes"], len(status["progress"])) == ({"wanted": 50, "ready": 0}, 20)
    assert [each["bytesPerSecond"] for each in status["progress"]] == [7] * 20
