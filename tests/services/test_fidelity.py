"""What the official clients make of an answer: the same from vLLM itself, from a miss and from a replay, streamed or plain.

The matrix is data (data/fidelity.json). Every request goes to the real vLLM directly, and then through one sidecar as two tenants:
the first asks plainly before it streams, the second streams first.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from inference_cache_toolkit.cache_status import read_cache_status

pytestmark = pytest.mark.services

CASES = json.loads((Path(__file__).parent / "data" / "fidelity.json").read_text())
CHANCE = {"id", "item_id", "call_id", "created", "created_at", "completed_at", "cached_tokens", "created_cache_tokens"}
CHANCE |= {"cache_write_tokens", "cache_read_input_tokens", "cache_creation_input_tokens", "input_tokens", "prompt_tokens_details"}
"""What differs between two calls of vLLM itself: ids, times, and how much of the prompt was in its own prefix cache."""


class Clients:
    """The official clients of one server."""

    def __init__(self, url: str) -> None:
        hooks = {"event_hooks": {"response": [self._note]}}
        self.openai = openai.OpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0, http_client=openai.DefaultHttpxClient(**hooks))
        self.anthropic = anthropic.Anthropic(base_url=url, api_key="any", max_retries=0, http_client=anthropic.DefaultHttpxClient(**hooks))
        self.status: Any = None
        """Of the latest answer."""

    def become(self, tenant: str) -> None:
        self.openai.api_key = self.anthropic.api_key = tenant

    def _note(self, response: Any) -> None:
        self.status = read_cache_status(response.headers.get("Cache-Status"))

    def ask(self, api: str, request: dict[str, Any], *, stream: bool) -> dict[str, Any]:
        """The object that the client gives its user."""
        return (STREAMED if stream else PLAIN)[api](self, request)

    def close(self) -> None:
        self.openai.close()
        self.anthropic.close()


def split(request: dict[str, Any], *named: str) -> dict[str, Any]:
    """The client's own arguments, and the rest as it is."""
    rest = {name: value for name, value in request.items() if name not in named}
    return {**{name: request[name] for name in named}, "extra_body": rest}


def plain_of(request: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in request.items() if name not in ("stream_options", "stream_interval")}


def chat(clients: Clients, request: dict[str, Any]) -> dict[str, Any]:
    return clients.openai.chat.completions.create(**split(plain_of(request), "model", "messages")).model_dump()


def chat_stream(clients: Clients, request: dict[str, Any]) -> dict[str, Any]:
    """What the client's own helper rebuilds, and what it leaves in the chunks."""
    beside: dict[str, Any] = {"stop_reason": {}, "token_ids": {}, "usage_on_chunks": set(), "prompt": None}
    with clients.openai.chat.completions.stream(**split(request, "model", "messages")) as stream:
        for event in stream:
            if event.type == "chunk":
                note_chunk(beside, event.chunk.model_dump())
        return {**stream.current_completion_snapshot.model_dump(), "beside": beside}


def note_chunk(beside: dict[str, Any], chunk: dict[str, Any]) -> None:
    beside["usage_on_chunks"].add(bool(chunk["choices"]) and chunk.get("usage") is not None)
    beside["prompt"] = beside["prompt"] or chunk.get("prompt_token_ids")
    for choice in chunk["choices"]:
        index = choice["index"]
        beside["token_ids"].setdefault(index, []).extend(choice.get("token_ids") or ())
        if choice["finish_reason"]:
            beside["stop_reason"][index] = (choice["finish_reason"], choice.get("stop_reason"))


def completions(clients: Clients, request: dict[str, Any]) -> dict[str, Any]:
    return clients.openai.completions.create(**split(plain_of(request), "model", "prompt")).model_dump()


def completions_stream(clients: Clients, request: dict[str, Any]) -> dict[str, Any]:
    """The client has no helper here: texts and lists are put together, of all else the last word counts."""
    whole: dict[str, Any] = {"beside": {}, "choices": {}}
    with clients.openai.completions.create(**split(request, "model", "prompt"), stream=True) as stream:
        for chunk in stream:
            said = chunk.model_dump()
            for choice in said.pop("choices"):
                join(whole["choices"].setdefault(choice["index"], {}), choice)
            whole |= {name: value for name, value in said.items() if value is not None}
    return whole


def join(held: dict[str, Any], piece: dict[str, Any]) -> None:
    for name, value in piece.items():
        if isinstance(value, dict):
            join(held.setdefault(name, {}), value)
        elif isinstance(value, list) or (isinstance(value, str) and name == "text"):
            held[name] = (held.get(name) or type(value)()) + value
        elif value is not None or name not in held:
            held[name] = value


def responses(clients: Clients, request: dict[str, Any]) -> dict[str, Any]:
    return clients.openai.responses.create(**split(request, "model", "input")).model_dump()


def responses_stream(clients: Clients, request: dict[str, Any]) -> dict[str, Any]:
    with clients.openai.responses.stream(**split(request, "model", "input")) as stream:
        texts = [event.delta for event in stream if event.type == "response.output_text.delta"]
        return {**stream.get_final_response().model_dump(), "beside": "".join(texts)}


def messages(clients: Clients, request: dict[str, Any]) -> dict[str, Any]:
    return clients.anthropic.messages.create(**split(request, "model", "messages", "max_tokens")).model_dump()


def messages_stream(clients: Clients, request: dict[str, Any]) -> dict[str, Any]:
    with clients.anthropic.messages.stream(**split(request, "model", "messages", "max_tokens")) as stream:
        return stream.get_final_message().model_dump()


PLAIN = {"chat": chat, "completions": completions, "responses": responses, "messages": messages}
STREAMED = {"chat": chat_stream, "completions": completions_stream, "responses": responses_stream, "messages": messages_stream}


def without_chance(value: Any, apart: Iterable[str] = ()) -> Any:
    """`apart`: what vLLM itself says otherwise in a stream than in a plain answer; it always spaces a tool's arguments otherwise."""
    if isinstance(value, dict):
        kept = {name: part for name, part in value.items() if name not in CHANCE and name not in apart}
        if isinstance(kept.get("arguments"), str):
            kept["arguments"] = json.loads(kept["arguments"])
        return {name: without_chance(part, apart) for name, part in kept.items()}
    return [without_chance(part, apart) for part in value] if isinstance(value, list) else value


def without_id(answer: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in answer.items() if name != "id"}


def completed(clients: Clients, case: dict[str, Any], dense: dict[str, int]) -> dict[str, Any]:
    """The request with what depends on the model: tokens to forbid, or where in the middle of its answer to stop."""
    request = {**case["request"], "logit_bias": dense} if case.get("dense") else case["request"]
    if "stop" not in case:
        return request
    if case["stop"] == "token":
        said = clients.ask(case["api"], {**request, "return_token_ids": True}, stream=False)
        return {**request, "stop_token_ids": [first_new(said["choices"][0]["token_ids"], 1)[0]]}
    said = clients.ask(case["api"], request, stream=False)
    if case["api"] == "messages":
        return {**request, "stop_sequences": [first_new(said["content"][0]["text"], 3)]}
    choice = said["choices"][0]
    return {**request, "stop": [first_new(choice.get("text") or choice["message"]["content"], 3)]}


def first_new(said: Any, size: int) -> Any:
    """The first piece after the first that does not stand before."""
    pieces = [said[at : at + size] for at in range(len(said))]
    return next(piece for at, piece in enumerate(pieces) if at and piece not in pieces[:at])


@pytest.fixture(scope="module")
def direct(vllm: Any) -> Iterator[Clients]:
    made = Clients(vllm.url)
    yield made
    made.close()


@pytest.fixture(scope="module")
def cached(run_shared_sidecar: Callable[..., Any], vllm: Any) -> Iterator[Clients]:
    made = Clients(run_shared_sidecar(vllm.url, "semantic: {mode: Off}\n").url)
    yield made
    made.close()


@pytest.mark.parametrize("case", [pytest.param(case, id=case["id"]) for case in CASES if case.get("only") != "plain"])
def test_clients_rebuild_the_same_object_from_vllm_a_miss_and_a_replay(
    case: dict[str, Any], direct: Clients, cached: Clients, vllm: Any
) -> None:
    api, request = case["api"], completed(direct, case, vllm.without_white_space())
    plain, streamed = (without_chance(direct.ask(api, request, stream=stream)) for stream in (False, True))

    cached.become(f"{case['id']}: plain first")
    asked = cached.ask(api, request, stream=False)
    assert (cached.status.hit, cached.status.stored) == (False, True)
    assert without_chance(asked) == plain
    again = cached.ask(api, request, stream=False)
    assert cached.status.hit
    assert without_id(again) == without_id(asked)
    assert again["id"] != asked["id"]
    replayed = cached.ask(api, request, stream=True)
    assert cached.status.hit
    apart = case.get("apart", ())
    assert without_chance(replayed, apart) == without_chance(streamed, apart)
    if case.get("only") == "plain first":
        return

    cached.become(f"{case['id']}: stream first")
    asked = cached.ask(api, request, stream=True)
    assert (cached.status.hit, cached.status.forward) == (False, "miss")
    assert without_chance(asked) == streamed
    again = cached.ask(api, request, stream=True)
    assert cached.status.hit
    assert without_id(again) == without_id(asked)
    assert again["id"] != asked["id"]
    from_stream = cached.ask(api, request, stream=False)
    assert cached.status.hit
    assert without_chance(from_stream, apart) == without_chance(plain, apart)


@pytest.mark.parametrize("case", [pytest.param(case, id=case["id"]) for case in CASES if case.get("only") == "plain"])
def test_what_vllm_refuses_to_stream_is_refused_though_its_plain_answer_is_stored(
    case: dict[str, Any], direct: Clients, cached: Clients
) -> None:
    api, request = case["api"], case["request"]
    cached.become(f"{case['id']}: plain")
    asked, again = cached.ask(api, request, stream=False), cached.ask(api, request, stream=False)
    assert cached.status.hit
    assert without_id(again) == without_id(asked)
    assert without_chance(asked) == without_chance(direct.ask(api, request, stream=False))
    refusals = []
    for clients in (direct, cached):
        with pytest.raises(openai.BadRequestError) as refused:
            clients.ask(api, request, stream=True)
        refusals.append(refused.value.body)
    assert refusals[0] == refusals[1]
