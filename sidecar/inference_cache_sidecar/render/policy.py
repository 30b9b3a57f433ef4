"""Which complete answers are kept, by why they ended, and how far a kept one may reach.

The assemblers and `from_plain` of every endpoint ask here; the policy comes from the resource's spec.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Final, Literal

from inference_cache_sidecar.render.protocol import NotStorable, Reach

Reaches = Literal["All", "Exact", "Never"]


class Ending(Enum):
    """Why an answer ended, whatever the endpoint calls it."""

    STOP = "stop"
    LENGTH = "length"
    TOOL_CALLS = "tool-calls"
    CONTENT_FILTER = "content-filter"


ENDINGS: Final[dict[str, Ending]] = {
    "stop": Ending.STOP,
    "end_turn": Ending.STOP,
    "stop_sequence": Ending.STOP,
    "length": Ending.LENGTH,
    "max_tokens": Ending.LENGTH,
    "max_output_tokens": Ending.LENGTH,
    "repetition": Ending.LENGTH,
    "tool_calls": Ending.TOOL_CALLS,
    "function_call": Ending.TOOL_CALLS,
    "tool_use": Ending.TOOL_CALLS,
    "content_filter": Ending.CONTENT_FILTER,
    "refusal": Ending.CONTENT_FILTER,
}
"""finish_reason (chat, completions), stop_reason (messages) and the reason of an incomplete response. An answer that
ended in any other way (abort, error, a word unknown here) is not kept."""


@dataclass(frozen=True, slots=True)
class AnswerPolicy:
    """How answers that did not simply stop are kept: All (also found by similarity), Exact (by digest alone), Never."""

    length: Reaches = "Exact"
    tool_calls: Reaches = "Exact"
    content_filter: Reaches = "Never"
    max_answer_bytes: int = 2 * 1024 * 1024
    """Larger answers are passed on but not kept; bounds the memory of an assembler too."""

    def reach(self, endings: Iterable[Ending]) -> Reach | NotStorable:
        """The narrowest reach among the endings of an answer's choices."""
        narrowest = Reach.ALL
        for ending in set(endings):
            allowed = self._allowed(ending)
            if allowed == "Never":
                return NotStorable(ending.value)
            if allowed == "Exact":
                narrowest = Reach.EXACT
        return narrowest

    def _allowed(self, ending: Ending) -> Reaches:
        match ending:
            case Ending.STOP:
                return "All"
            case Ending.LENGTH:
                return self.length
            case Ending.TOOL_CALLS:
                return self.tool_calls
            case Ending.CONTENT_FILTER:
                return self.content_filter
