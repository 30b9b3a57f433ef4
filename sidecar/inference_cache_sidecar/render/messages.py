"""The renderer of /v1/messages."""

from typing import Any

from inference_cache_sidecar.query.model import Rendition
from inference_cache_sidecar.render import ids
from inference_cache_sidecar.render.judging import ending_of, is_objects, storable, taken_in, tokens
from inference_cache_sidecar.render.live import IdSwap
from inference_cache_sidecar.render.messages_assembler import MessagesAssembler
from inference_cache_sidecar.render.messages_stream import PROMPT_TOKENS, messages_stream
from inference_cache_sidecar.render.policy import AnswerPolicy, Ending
from inference_cache_sidecar.render.protocol import NotStorable, Storable


class MessagesRenderer:
    def __init__(self, policy: AnswerPolicy) -> None:
        self._policy = policy

    def upstream_body(self, body: bytes, rendition: Rendition) -> bytes:
        return body

    def from_plain(self, body: bytes) -> Storable | NotStorable:
        return taken_in(body, self._policy, judge_message)

    def assembler(self) -> MessagesAssembler:
        return MessagesAssembler(self._policy, judge_message)

    def can_join(self, rendition: Rendition, leader: Rendition) -> bool:
        return True

    def live(self, rendition: Rendition, answer_id: str | None) -> IdSwap:
        return IdSwap(answer_id)

    def new_id(self, request_id: str | None) -> str:
        """vLLM answers messages through its chat endpoint, and shows that one's id."""
        return ids.new_id("chatcmpl-", request_id)

    def plain(self, answer: bytes, old_id: str, new_id: str) -> bytes:
        return ids.replace_id(answer, old_id, new_id)

    def stream(self, answer: bytes, old_id: str, new_id: str, rendition: Rendition) -> bytes:
        return messages_stream(self.plain(answer, old_id, new_id))


def judge_message(answer: dict[str, Any], body: bytes, policy: AnswerPolicy) -> Storable | NotStorable:
    content = answer.get("content")
    if answer.get("type") != "message" or not is_objects(content) or not all(_is_block(block) for block in content):
        return NotStorable("shape")
    if not content:
        return NotStorable("no-choices")
    ending = ending_of(answer.get("stop_reason"))
    if ending is None:
        return NotStorable("finish-reason")
    endings = [ending]
    if any(block["type"].endswith("tool_use") for block in content):
        endings.append(Ending.TOOL_CALLS)
    kept = storable(answer, body, policy, endings)
    if isinstance(kept, NotStorable):
        return kept
    return Storable(kept.answer, kept.answer_id, tokens(answer, *PROMPT_TOKENS), tokens(answer, "output_tokens"), kept.reach)


def _is_block(block: dict[str, Any]) -> bool:
    return isinstance(block.get("type"), str) and isinstance(block.get("citations") or [], list)
