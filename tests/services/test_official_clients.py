"""The official asynchronous client through a sidecar, in front of the stand-in: errors, keys, early leavers, herds."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import openai
import pytest

from inference_cache_toolkit.cache_status import read_cache_status
from inference_cache_toolkit.standin.faults import Fault
from inference_cache_toolkit.standin.state import Pace

ASKED: Any = {"model": "tiny", "messages": [{"role": "user", "content": "What is a cache?"}]}


@pytest.fixture
def asking(sidecar_before: Any) -> Callable[[str], AbstractAsyncContextManager[openai.AsyncOpenAI]]:
    """`async with asking(upstream) as client`: the official client of a sidecar."""

    @asynccontextmanager
    async def begin(upstream: str) -> AsyncIterator[openai.AsyncOpenAI]:
        async with sidecar_before(upstream) as url, openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="right", max_retries=0) as client:
            yield client

    return begin


async def test_a_client_that_stops_reading_its_stream_leaves_no_half_answer(standin: Any, standin_url: str, asking: Any) -> None:
    standin.pace = Pace(0.01, 0.02)
    async with asking(standin_url) as client:
        async with await client.chat.completions.create(**ASKED, stream=True) as stream:
            async for _ in stream:
                break
        await asyncio.wait_for(standin.hung_up.wait(), 60)
        whole = await client.chat.completions.create(**ASKED)
        assert whole.choices[0].finish_reason == "stop"
        assert standin.inferences == 2


async def test_a_client_that_asks_again_right_after_its_stream_hits_each_time(standin: Any, standin_url: str, asking: Any) -> None:
    """The client hangs up at the last event: by then the answer has been stored."""
    standin.pace = Pace(0.0, 0.001)
    async with asking(standin_url) as client:
        for number in range(30):
            asked = ASKED | {"messages": [{"role": "user", "content": f"What is number {number}?"}]}
            async with await client.chat.completions.create(**asked, stream=True) as stream:
                text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
            again = await client.chat.completions.with_raw_response.create(**asked)
            assert read_cache_status(again.headers["Cache-Status"]).hit
            assert again.parse().choices[0].message.content == text
        assert standin.inferences == 30


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        pytest.param(Fault.STATUS_429, openai.RateLimitError, id="429"),
        pytest.param(Fault.STATUS_500, openai.InternalServerError, id="500"),
        pytest.param(Fault.RESET, openai.InternalServerError, id="reset"),
    ],
)
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
async def test_upstream_errors_are_the_clients_own_and_are_not_kept(
    standin: Any, standin_url: str, asking: Any, fault: Fault, error: type[openai.APIError], stream: bool
) -> None:
    async with asking(standin_url) as client:
        standin.fault = fault
        for _ in range(2):
            with pytest.raises(error) as raised:
                await client.chat.completions.create(**ASKED, stream=stream)
            assert raised.value.message
        standin.fault = None
        assert (await client.chat.completions.create(**ASKED)).choices[0].message.content


async def test_a_bad_request_and_an_unknown_model_are_the_clients_own_errors(standin: Any, standin_url: str, asking: Any) -> None:
    async with asking(standin_url) as client:
        with pytest.raises(openai.BadRequestError):
            await client.chat.completions.create(model="tiny", messages=[])
        with pytest.raises(openai.NotFoundError):
            await client.chat.completions.create(**ASKED | {"model": "another"})


async def test_a_wrong_key_never_hits(standin: Any, standin_url: str, asking: Any) -> None:
    standin.api_key = "right"
    async with asking(standin_url) as client:
        for _ in range(500):
            answer = await client.chat.completions.with_raw_response.create(**ASKED)
            if read_cache_status(answer.headers["Cache-Status"]).hit:
                break
            await asyncio.sleep(0.01)
        else:
            raise AssertionError("the right key never hit")
        with pytest.raises(openai.AuthenticationError):
            await client.with_options(api_key="wrong").chat.completions.create(**ASKED)


async def test_embeddings_asked_in_the_clients_own_encoding_are_the_same_from_a_replay(standin: Any, standin_url: str, asking: Any) -> None:
    """It asks for base64 and decodes it without a word."""
    async with asking(standin_url) as client:
        first = await client.embeddings.create(model="tiny", input=["one", "two"])
        second = await client.embeddings.create(model="tiny", input=["two", "one"])
        assert [item.embedding for item in second.data] == [item.embedding for item in reversed(first.data)]
        assert standin.inferences == 1


async def test_a_hundred_asynchronous_callers_are_all_told_the_same(standin: Any, standin_url: str, asking: Any) -> None:
    standin.pace = Pace(0.1, 0.01)
    async with asking(standin_url) as client:

        async def ask(stream: bool) -> str:
            if not stream:
                return (await client.chat.completions.create(**ASKED)).choices[0].message.content or ""
            async with client.chat.completions.stream(**ASKED) as events:
                return (await events.get_final_completion()).choices[0].message.content or ""

        texts = await asyncio.gather(*(ask(bool(number % 2)) for number in range(100)))
        assert len(set(texts)) == 1
        assert standin.inferences == 1
