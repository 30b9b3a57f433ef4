"""A stored completion replayed as vLLM would have streamed it, each choice's text in one chunk."""

from inference_cache_sidecar.query.model import Rendition
from inference_cache_sidecar.render.chunks import ChunkWriter, extras_of, token_count
from inference_cache_sidecar.render.parsing import parsed
from inference_cache_sidecar.render.shape import COMPLETION, COMPLETION_CHOICE, Object

_OWN_PLACE = frozenset({"id", "object", "created", "model", "choices", "usage", "system_fingerprint", "metrics"})


def completion_stream(answer: bytes, answer_id: str, rendition: Rendition) -> bytes:
    whole = parsed(answer)
    writer = ChunkWriter(whole, "text_completion", answer_id, rendition)
    choices = whole["choices"]
    extras = {name: value for name, value in extras_of(whole, COMPLETION).items() if name not in _OWN_PLACE}
    for position, choice in enumerate(choices):
        # Prompts of one request differ in length: with several choices the running usage is not known.
        count = token_count(choice, whole.get("usage"), len(choices)) if len(choices) == 1 else None
        writer.chunk(_text(choice, position), count, extras if position == 0 else None)
        writer.chunk(_ending(choice, position), count)
    return writer.finished()


def _text(choice: Object, position: int) -> Object:
    return {
        "index": choice.get("index", position),
        "text": choice["text"],
        "logprobs": choice.get("logprobs"),
        "finish_reason": None,
        "stop_reason": None,
        "prompt_token_ids": choice.get("prompt_token_ids"),
        "token_ids": choice.get("token_ids"),
    }


def _ending(choice: Object, position: int) -> Object:
    others = {name: value for name, value in extras_of(choice, COMPLETION_CHOICE).items() if name not in _text(choice, position)}
    return {
        "index": choice.get("index", position),
        "text": "",
        "logprobs": None,
        "finish_reason": choice.get("finish_reason"),
        "stop_reason": choice.get("stop_reason"),
        "prompt_token_ids": None,
        "token_ids": None,
        **others,
    }
