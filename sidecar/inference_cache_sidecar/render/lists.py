"""The renderers of endpoints that answer in one piece: embeddings, rerank, score, classify, tokenize."""

from typing import Any, Final

from inference_cache_contract.endpoints import Endpoint
from inference_cache_sidecar.query.model import Rendition
from inference_cache_sidecar.render import ids
from inference_cache_sidecar.render.judging import storable, taken_in
from inference_cache_sidecar.render.live import IdSwap
from inference_cache_sidecar.render.policy import AnswerPolicy, Ending
from inference_cache_sidecar.render.protocol import NotStorable, Storable

_ITEMS: Final = {
    Endpoint.EMBEDDINGS: "data",
    Endpoint.SCORE: "data",
    Endpoint.CLASSIFY: "data",
    Endpoint.RERANK: "results",
    Endpoint.TOKENIZE: "tokens",
}
_PREFIXES: Final = {
    Endpoint.EMBEDDINGS: "embd-",
    Endpoint.SCORE: "score-",
    Endpoint.CLASSIFY: "classify-",
    Endpoint.RERANK: "score-",
    Endpoint.TOKENIZE: "tokenize-",
}


class ListRenderer:
    """Plain only: vLLM does not stream these, whatever the request says."""

    def __init__(self, endpoint: Endpoint, policy: AnswerPolicy) -> None:
        self._items = _ITEMS[endpoint]
        self._prefix = _PREFIXES[endpoint]
        self._empty_allowed = endpoint is Endpoint.TOKENIZE
        self._policy = policy

    def upstream_body(self, body: bytes, rendition: Rendition) -> bytes:
        return body

    def from_plain(self, body: bytes) -> Storable | NotStorable:
        return taken_in(body, self._policy, self._judge)

    def assembler(self) -> "NoAssembler":
        return NoAssembler()

    def can_join(self, rendition: Rendition, leader: Rendition) -> bool:
        return True

    def live(self, rendition: Rendition, answer_id: str | None) -> IdSwap:
        return IdSwap(None)

    def new_id(self, request_id: str | None) -> str:
        return ids.new_id(self._prefix, request_id)

    def plain(self, answer: bytes, old_id: str, new_id: str) -> bytes:
        return ids.replace_id(answer, old_id, new_id)

    def stream(self, answer: bytes, old_id: str, new_id: str, rendition: Rendition) -> bytes:
        return self.plain(answer, old_id, new_id)

    def _judge(self, answer: dict[str, Any], body: bytes, policy: AnswerPolicy) -> Storable | NotStorable:
        items = answer.get(self._items)
        if not isinstance(items, list):
            return NotStorable("shape")
        if not items and not self._empty_allowed:
            return NotStorable("no-choices")
        return storable(answer, body, policy, [Ending.STOP])


class NoAssembler:
    """An event stream where none belongs is passed on, not kept."""

    def feed(self, event: bytes) -> None:
        pass

    def result(self) -> Storable | NotStorable:
        return NotStorable("shape")
