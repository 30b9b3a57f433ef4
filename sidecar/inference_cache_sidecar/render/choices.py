"""The renderers of /v1/chat/completions and /v1/completions."""

from inference_cache_sidecar.query.model import Rendition
from inference_cache_sidecar.render import ids
from inference_cache_sidecar.render.chat_stream import chat_stream
from inference_cache_sidecar.render.choices_assembler import ChoicesAssembler
from inference_cache_sidecar.render.completion_stream import completion_stream
from inference_cache_sidecar.render.judging import judge_chat, judge_completion, taken_in
from inference_cache_sidecar.render.live import LiveChoices
from inference_cache_sidecar.render.policy import AnswerPolicy
from inference_cache_sidecar.render.protocol import NotStorable, Storable
from inference_cache_sidecar.render.shape import chat_answer, completion_answer
from inference_cache_sidecar.render.usage_request import with_usage


def joins(rendition: Rendition, leader: Rendition) -> bool:
    """A running stream can be stripped of usage, but usage that upstream was not asked for cannot be added."""
    wants_running_usage = rendition.stream and rendition.include_usage and rendition.continuous_usage
    return not wants_running_usage or (leader.include_usage and leader.continuous_usage) or not leader.stream


class ChatRenderer:
    def __init__(self, policy: AnswerPolicy) -> None:
        self._policy = policy

    def upstream_body(self, body: bytes, rendition: Rendition) -> bytes:
        return with_usage(body, rendition)

    def from_plain(self, body: bytes) -> Storable | NotStorable:
        return taken_in(body, self._policy, judge_chat)

    def assembler(self) -> ChoicesAssembler:
        return ChoicesAssembler(self._policy, chat_answer, judge_chat)

    def can_join(self, rendition: Rendition, leader: Rendition) -> bool:
        return joins(rendition, leader)

    def live(self, rendition: Rendition, answer_id: str | None) -> LiveChoices:
        return LiveChoices(rendition, answer_id)

    def new_id(self, request_id: str | None) -> str:
        return ids.new_id("chatcmpl-", request_id)

    def plain(self, answer: bytes, old_id: str, new_id: str) -> bytes:
        return ids.replace_id(answer, old_id, new_id)

    def stream(self, answer: bytes, old_id: str, new_id: str, rendition: Rendition) -> bytes:
        return chat_stream(answer, new_id, rendition)


class CompletionRenderer:
    def __init__(self, policy: AnswerPolicy) -> None:
        self._policy = policy

    def upstream_body(self, body: bytes, rendition: Rendition) -> bytes:
        return with_usage(body, rendition)

    def from_plain(self, body: bytes) -> Storable | NotStorable:
        return taken_in(body, self._policy, judge_completion)

    def assembler(self) -> ChoicesAssembler:
        return ChoicesAssembler(self._policy, completion_answer, judge_completion)

    def can_join(self, rendition: Rendition, leader: Rendition) -> bool:
        return joins(rendition, leader)

    def live(self, rendition: Rendition, answer_id: str | None) -> LiveChoices:
        return LiveChoices(rendition, answer_id)

    def new_id(self, request_id: str | None) -> str:
        return ids.new_id("cmpl-", request_id)

    def plain(self, answer: bytes, old_id: str, new_id: str) -> bytes:
        return ids.replace_id(answer, old_id, new_id)

    def stream(self, answer: bytes, old_id: str, new_id: str, rendition: Rendition) -> bytes:
        return completion_stream(answer, new_id, rendition)
