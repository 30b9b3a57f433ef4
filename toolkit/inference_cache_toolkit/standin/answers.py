"""What the stand-in says: deterministic tokens derived from a request. `generation` and `pooling` put them into an endpoint's form."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

INDIFFERENT = frozenset({"stream", "stream_options", "user", "metadata", "request_id", "priority"})
"""Request fields that do not change the answer."""

WORDS = (
    "equal",
    "words",
    "give",
    "equal",
    "tokens",
    "and",
    "one",
    "changed",
    "field",
    "gives",
    "another",
    "text",
    "so",
    "see",
    "whose",
    "it",
    "is",
)

DEFAULT_TOKENS = 16


@dataclass(frozen=True, slots=True)
class ToolCall:
    call_id: str
    name: str
    arguments: str
    """JSON text."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One choice. `tokens` joined are the text; a tool call takes the place of the text."""

    tokens: tuple[str, ...]
    finish: str
    """`stop`, `length` or `tool_calls`, as in chat."""
    reasoning: tuple[str, ...] = ()
    tool: ToolCall | None = None

    @property
    def text(self) -> str:
        return "".join(self.tokens)

    @property
    def completion_tokens(self) -> int:
        return len(self.tokens) + len(self.reasoning) + (1 if self.tool else 0)


@dataclass(frozen=True, slots=True)
class Writer:
    """Writes answers; two writers of different `salt` stand for two different models."""

    tokens: int = DEFAULT_TOKENS
    """Length of an answer nobody limited."""
    salt: str = ""
    known: Mapping[str, str] = field(default_factory=dict)
    """Answers to give word for word, by the last user text."""

    def fingerprint(self, request: Mapping[str, Any]) -> str:
        """Ten hex digits; equal only for equal requests to equal models."""
        determining = {name: value for name, value in request.items() if name not in INDIFFERENT}
        return hashlib.sha256(self.salt.encode() + orjson.dumps(determining, option=orjson.OPT_SORT_KEYS)).hexdigest()[:10]

    def write(self, request: Mapping[str, Any], prompt: str, limit: int | None, choice: int = 0) -> Answer:
        """The answer of choice number `choice`, cut at `limit` tokens."""
        mark = self.fingerprint(request)
        tool = _asked_tool(request, mark)
        if tool is not None:
            return Answer(tokens=(), finish="tool_calls", tool=tool)
        tokens = self._tokens(mark if choice == 0 else f"{mark}.{choice}", prompt)
        reasoning = tuple(f"thinking of {mark}".split(" ")) if request.get("reasoning_effort") not in {None, "none"} else ()
        if limit is not None and limit < len(tokens):
            return Answer(tokens[:limit], "length", reasoning)
        return Answer(tokens, "stop", reasoning)

    def _tokens(self, mark: str, prompt: str) -> tuple[str, ...]:
        if (known := self.known.get(prompt)) is not None:
            words = known.split(" ")
        else:
            start = int(mark[:4], 16)
            words = [mark, *(WORDS[(start + i) % len(WORDS)] for i in range(self.tokens - 1))]
        return (words[0], *(f" {word}" for word in words[1:]))


def _asked_tool(request: Mapping[str, Any], mark: str) -> ToolCall | None:
    """A call of the first tool where the request demands one."""
    choice, tools = request.get("tool_choice"), request.get("tools")
    demanded = choice == "required" or (isinstance(choice, dict) and choice.get("type") in {"function", "tool", "any"})
    if not demanded or not tools:
        return None
    tool = tools[0]
    name = tool.get("function", tool).get("name", "tool")
    return ToolCall(f"call_{mark}", str(name), orjson.dumps({"mark": mark}).decode())


def token_count(text: str) -> int:
    """How many tokens the stand-in counts in a text."""
    return len(text.split())


def text_of(content: object) -> str:
    """The text of a message's content: a string, or the text parts of a list."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return " ".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return ""


def last_user_text(messages: object) -> str:
    if isinstance(messages, str):
        return messages
    if isinstance(messages, list):
        for message in reversed(messages):
            if isinstance(message, dict) and message.get("role") == "user":
                return text_of(message.get("content"))
    return ""
