"""The inference endpoints that can be cached, and the paths of the sidecar's own admin port.

The sidecar's query parser chooses by `Endpoint`; the operator, the toolkit and the tests address the admin port by the constants.
"""

from enum import Enum
from typing import Final


class Endpoint(Enum):
    """A cacheable endpoint; the value is the word used in the spec, the metrics and the entry."""

    CHAT = "chat"
    RESPONSES = "responses"
    MESSAGES = "messages"
    COMPLETIONS = "completions"
    EMBEDDINGS = "embeddings"
    RERANK = "rerank"
    SCORE = "score"
    CLASSIFY = "classify"
    TOKENIZE = "tokenize"


PATHS: Final[dict[str, Endpoint]] = {
    "/v1/chat/completions": Endpoint.CHAT,
    "/v1/responses": Endpoint.RESPONSES,
    "/v1/messages": Endpoint.MESSAGES,
    "/v1/completions": Endpoint.COMPLETIONS,
    "/v1/embeddings": Endpoint.EMBEDDINGS,
    "/rerank": Endpoint.RERANK,
    "/v1/rerank": Endpoint.RERANK,
    "/v2/rerank": Endpoint.RERANK,
    "/score": Endpoint.SCORE,
    "/v1/score": Endpoint.SCORE,
    "/classify": Endpoint.CLASSIFY,
    "/tokenize": Endpoint.TOKENIZE,
}
"""POST paths of vLLM that carry a cacheable query."""

SERVING_PORT: Final = 8000
ADMIN_PORT: Final = 9180
FEATURES_PORT: Final = 6566
ADMIN_TOKEN_VARIABLE: Final = "INFERENCE_CACHE_ADMIN_TOKEN"  # noqa: S105  the name of a variable, not a token
REDIS_URL_VARIABLE: Final = "INFERENCE_CACHE_REDIS_URL"
ENCRYPTION_KEYS_VARIABLE: Final = "INFERENCE_CACHE_ENCRYPTION_KEYS"
TENANCY_KEY_VARIABLE: Final = "INFERENCE_CACHE_TENANCY_KEY"
KAFKA_USERNAME_VARIABLE: Final = "INFERENCE_CACHE_KAFKA_USERNAME"
KAFKA_PASSWORD_VARIABLE: Final = "INFERENCE_CACHE_KAFKA_PASSWORD"  # noqa: S105  the name of a variable, not a password
DRAIN_TOKEN_VARIABLE: Final = "INFERENCE_CACHE_DRAIN_TOKEN"  # noqa: S105  the name of a variable, not a token
REVISION_VARIABLE: Final = "INFERENCE_CACHE_REVISION"
"""What the operator knows of the pod that changes answers, as a digest; part of the revision that a sidecar keeps its entries under."""

LIVEZ: Final = "/livez"
READYZ: Final = "/readyz"
METRICS: Final = "/metrics"
STATUS: Final = "/status"
DRAIN: Final = "/drain"
"""Followed by a slash and the token that the pod was injected with."""
FLUSH: Final = "/flush"
FEEDBACK: Final = "/feedback"
