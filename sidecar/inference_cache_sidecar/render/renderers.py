"""Which renderer serves which endpoint; asked once, when the pipeline is put together."""

from inference_cache_contract.endpoints import Endpoint
from inference_cache_sidecar.render.choices import ChatRenderer, CompletionRenderer
from inference_cache_sidecar.render.lists import ListRenderer
from inference_cache_sidecar.render.messages import MessagesRenderer
from inference_cache_sidecar.render.policy import AnswerPolicy
from inference_cache_sidecar.render.protocol import Renderer
from inference_cache_sidecar.render.responses import ResponsesRenderer


def renderer_for(endpoint: Endpoint, policy: AnswerPolicy) -> Renderer:
    match endpoint:
        case Endpoint.CHAT:
            return ChatRenderer(policy)
        case Endpoint.COMPLETIONS:
            return CompletionRenderer(policy)
        case Endpoint.RESPONSES:
            return ResponsesRenderer(policy)
        case Endpoint.MESSAGES:
            return MessagesRenderer(policy)
        case _:
            return ListRenderer(endpoint, policy)
