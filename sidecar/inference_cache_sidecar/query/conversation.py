"""Single out the last user text of a chat, a response or an Anthropic message.

Called by the parser with a body it owns: the text is replaced by a hole, so that what stays is the scope.
"""

from typing import Any, Final

from inference_cache_contract.endpoints import Endpoint
from inference_cache_sidecar.query.body import Json, as_written
from inference_cache_sidecar.query.content import TOOL_RESULT, is_inline, last_text

TURNS: Final = {Endpoint.CHAT: "messages", Endpoint.RESPONSES: "input", Endpoint.MESSAGES: "messages"}
"""The field that holds the turns."""


def take_prompt(endpoint: Endpoint, body: Json) -> str | None:
    """The last user text, removed from `body`; None, and `body` unchanged, where no text alone may differ.

    That is: the last turn is not a user's or has no text, something in the conversation is only named and not carried,
    or the answer repeats the prompt.
    """
    if not REPEATS.isdisjoint(body) and any(repeats(name, body) for name in REPEATS.intersection(body)):
        return None
    turns = body[TURNS[endpoint]]
    if type(turns) is str and endpoint is Endpoint.RESPONSES and turns.strip():
        body["input"] = None
        return turns
    if type(turns) is not list or not turns or not all(map(_TURN_IS_INLINE[endpoint], turns)):
        return None
    return _take_text(turns[-1])


def _take_text(turn: Json) -> str | None:
    content = turn.get("content")
    if turn.get("role") != "user" or turn.get("type", "message") != "message":
        return None
    if type(content) is str:
        if not content.strip():
            return None
        turn["content"] = None
        return content
    return _take_part(content)


def _take_part(content: object) -> str | None:
    """Texts before the last one are scope: a document with a question after it."""
    part = last_text(content)
    if part is None or not part["text"].strip() or type(content) is not list or any(other.get("type") == TOOL_RESULT for other in content):
        return None
    text: str = part["text"]
    part["text"] = None
    return text


def _message_is_inline(turn: object) -> bool:
    return type(turn) is dict and is_inline(turn.get("content"))


def _item_is_inline(item: object) -> bool:
    return type(item) is dict and item.get("type", "message") in _ITEMS and is_inline(item.get("content")) and is_inline(item.get("output"))


_ITEMS: Final = ("message", "function_call", "function_call_output", "custom_tool_call", "custom_tool_call_output", "reasoning")
_TURN_IS_INLINE: Final = {Endpoint.CHAT: _message_is_inline, Endpoint.MESSAGES: _message_is_inline, Endpoint.RESPONSES: _item_is_inline}

REPEATS: Final = frozenset(
    {
        "add_generation_prompt",
        "continue_final_message",
        "echo",
        "enable_response_messages",
        "prompt_embeds",
        "prompt_logprobs",
        "return_prompt_text",
        "return_token_ids",
        "suffix",
        "truncate_prompt_tokens",
    }
)
"""Fields by which the answer contains the prompt, continues it, or hangs on its exact length or on a second prompt."""


def repeats(name: str, body: Json) -> bool:
    """The field `name` of `REPEATS` is switched on."""
    value = body[name]
    if name == "add_generation_prompt":
        return value is not True
    return value is not None and value is not False


def drop_cache_marks(body: Json) -> None:
    """Remove Anthropic's `cache_control`, which vLLM reads nowhere; clients move it from turn to turn."""
    body.pop("cache_control", None)
    messages = body.get("messages")
    turns = messages if type(messages) is list else []
    for blocks in (body.get("system"), body.get("tools"), *(turn.get("content") for turn in turns if type(turn) is dict)):
        for block in blocks if type(blocks) is list else ():
            if type(block) is dict:
                block.pop("cache_control", None)


def keep_argument_order(body: Json) -> None:
    """A tool call's arguments stand in the prompt in the order they came in."""
    for turn in body["messages"]:
        content: Any = turn.get("content") if type(turn) is dict else None
        for block in content if type(content) is list else ():
            if type(block) is dict and type(block.get("input")) is dict:
                block["input"] = as_written(block["input"]).decode()
