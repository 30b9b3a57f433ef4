"""What of the resource's spec the query parser goes by."""

from dataclasses import dataclass, field
from typing import Final

from inference_cache_contract.canonical import Normalize
from inference_cache_contract.endpoints import Endpoint
from inference_cache_contract.spec import SamplingCache

SEMANTIC_BY_DEFAULT: Final = frozenset({Endpoint.CHAT, Endpoint.RESPONSES, Endpoint.MESSAGES})


@dataclass(frozen=True, slots=True)
class QueryRules:
    """Made once per spec by the composition root; the parser reads nothing else."""

    sampling: SamplingCache = "Unstated"
    """Which requests ask for an answer that may be repeated (`spec.sampling.cache`)."""
    normalize: Normalize = field(default_factory=Normalize)
    """What two spellings of one chat-type question may differ in (`spec.exact.normalize`)."""
    semantic_endpoints: frozenset[Endpoint] = SEMANTIC_BY_DEFAULT
    """Where a prompt may be merely similar (`spec.semantic.endpoints`)."""
