"""Conversations: all but the last user turn must be equal, the last one may be put in other words."""

import pytest

QUESTION = "How do I reset my password?"
REPHRASED = "How can I reset my password?"
SYSTEM = {"role": "system", "content": "You are a support agent."}
TOOL = {"type": "function", "function": {"name": "lookup", "parameters": {"type": "object", "properties": {}}}}


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


HISTORY = [SYSTEM, user("I am locked out of the shop."), assistant("Which account is it?")]
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
OTHERS = [
    pytest.param([SYSTEM, user("I am locked out of the bank."), assistant("Which account is it?")], {}, id="another-first-turn"),
    pytest.param(
        [SYSTEM, user("I am locked out of the shop!"), assistant("Which account is it?")], {}, id="first-turn-punctuated-otherwise"
    ),
    pytest.param([SYSTEM, user("I am locked out of the shop."), assistant("Which one is it?")], {}, id="another-answer-before"),
    pytest.param([{**SYSTEM, "content": "You are a pirate."}, *HISTORY[1:]], {}, id="another-system-prompt"),
    pytest.param([{**SYSTEM, "content": "you are a support agent"}, *HISTORY[1:]], {}, id="system-prompt-written-otherwise"),
    pytest.param([{**SYSTEM, "role": "developer"}, *HISTORY[1:]], {}, id="another-role"),
    pytest.param(HISTORY[1:], {}, id="no-system-prompt"),
    pytest.param([], {}, id="no-history"),
    pytest.param([SYSTEM], {}, id="system-prompt-alone"),
    pytest.param([*HISTORY, user("It is the second one."), assistant("I see.")], {}, id="two-turns-more"),
    pytest.param([HISTORY[0], HISTORY[2], HISTORY[1]], {}, id="turns-in-another-order"),
    pytest.param([*HISTORY[:1], {**HISTORY[1], "name": "ann"}, HISTORY[2]], {}, id="somebody-else-said-it"),
    pytest.param([*HISTORY[:1], {"role": "user", "content": [IMAGE]}, HISTORY[2]], {}, id="a-picture-before"),
    pytest.param(HISTORY, {"tools": [TOOL]}, id="with-tools"),
    pytest.param(HISTORY, {"temperature": 0}, id="another-parameter"),
    pytest.param(HISTORY, {"chat_template_kwargs": {"thinking": False}}, id="another-template"),
]


@pytest.mark.parametrize(("history", "fields"), OTHERS)
async def test_an_equal_or_rephrased_last_turn_under_another_history_never_hits(sidecar, standin, history, fields):
    await ask(sidecar, HISTORY, QUESTION)
    for text in (QUESTION, REPHRASED):
        answer = await ask(sidecar, history, text, **fields)
        # The second question may find what the first one stored, never what the other history did.
        first = await ask(sidecar, HISTORY, QUESTION)
        assert first.kind == "exact"
        assert answer.text != first.text
    assert standin.inferences == 2


async def test_a_rephrased_last_turn_under_the_same_history_hits(sidecar, standin):
    asked = await ask(sidecar, HISTORY, QUESTION)
    again = await ask(sidecar, HISTORY, REPHRASED)
    assert (asked.kind, again.kind) == ("miss", "semantic")
    assert again.text == asked.text
    assert standin.inferences == 1


async def test_a_last_turn_that_says_the_opposite_misses_under_the_same_history(sidecar):
    await ask(sidecar, HISTORY, "Should I restart it before the update?")
    opposite = await ask(sidecar, HISTORY, "Should I restart it after the update?")
    assert opposite.kind == "miss"


async def test_a_turn_that_is_no_longer_the_last_must_be_equal(sidecar):
    """The first conversation's last turn becomes history: rephrased there, it is another conversation."""
    await ask(sidecar, [SYSTEM, user(QUESTION), assistant("Press the button.")], "Which button is it?")
    other = await ask(sidecar, [SYSTEM, user(REPHRASED), assistant("Press the button.")], "Which button is it?")
    assert other.kind == "miss"


async def test_the_same_tools_keep_a_rephrased_turn_findable_and_others_do_not(sidecar):
    other = {"type": "function", "function": {**TOOL["function"], "description": "Find an account"}}
    await ask(sidecar, HISTORY, QUESTION, tools=[TOOL])
    assert (await ask(sidecar, HISTORY, REPHRASED, tools=[TOOL])).kind == "semantic"
    assert (await ask(sidecar, HISTORY, REPHRASED, tools=[other])).kind == "miss"
    assert (await ask(sidecar, HISTORY, REPHRASED, tools=[TOOL], tool_choice="none")).kind == "miss"


async def test_a_whole_conversation_is_answered_from_the_cache_turn_by_turn(sidecar, standin):
    """What a client does: each answer becomes the next request's history."""

    async def talk() -> list[str]:
        turns, kinds = [SYSTEM], []
        for text in ("What is a cache?", "How large should it be?", "Who empties it?"):
            answer = await ask(sidecar, turns, text)
            turns = [*turns, user(text), assistant(answer.text)]
            kinds.append(answer.kind)
        return kinds

    assert await talk() == ["miss"] * 3
    assert await talk() == ["exact"] * 3
    assert standin.inferences == 3


RESPONSES = "/v1/responses"
MESSAGES = "/v1/messages"


@pytest.mark.parametrize(
    ("path", "field", "fixed"),
    [
        pytest.param(RESPONSES, "input", {"model": "tiny", "instructions": "Be brief."}, id="responses"),
        pytest.param(MESSAGES, "messages", {"model": "tiny", "max_tokens": 20, "system": "Be brief."}, id="messages"),
    ],
)
async def test_responses_and_messages_keep_their_history_apart_too(sidecar, path, field, fixed):
    def request(first: str, last: str, **fields: str) -> dict[str, object]:
        return {**fixed, field: [user(first), assistant("Which one?"), user(last)], **fields}

    await sidecar.post(path, request("I am locked out of the shop.", QUESTION))
    assert (await sidecar.post(path, request("I am locked out of the shop.", REPHRASED))).kind == "semantic"
    assert (await sidecar.post(path, request("I am locked out of the bank.", QUESTION))).kind == "miss"
    changed = "instructions" if path == RESPONSES else "system"
    assert (await sidecar.post(path, request("I am locked out of the shop.", REPHRASED, **{changed: "Be kind."}))).kind == "miss"


async def ask(sidecar, history, text, **fields):
    return await sidecar.post("/v1/chat/completions", {"model": "tiny", "messages": [*history, user(text)], **fields})
