"""Requests that change what the model server serves: adapters loaded under a name, weights replaced in place.

They pass through like everything else; afterwards the pipeline reports them here, and answers from before are out of reach.
"""

from typing import Final

import orjson

from inference_cache_contract.epochs import CACHE, Epochs, adapter_epoch
from inference_cache_sidecar.identity import UpstreamIdentity

ADAPTER_PATHS: Final = frozenset({"/v1/load_lora_adapter", "/v1/unload_lora_adapter"})
WEIGHT_PATHS: Final = frozenset(
    {
        "/collective_rpc",
        "/start_weight_update",
        "/start_draft_weight_update",
        "/update_weights",
        "/finish_weight_update",
        "/update_weight_version",
    }
)
"""vLLM's development and reinforcement-learning surface: what came before may be another model's."""


REFUSED: Final = frozenset({400, 401, 403, 404, 405, 422})


class ModelChanges:
    """Raises epochs and doubts the identity; both at once take effect."""

    def __init__(self, epochs: Epochs, identity: UpstreamIdentity) -> None:
        self._epochs = epochs
        self._identity = identity

    @staticmethod
    def concern(path: str) -> bool:
        return path in ADAPTER_PATHS or path in WEIGHT_PATHS

    def happened(self, path: str, body: bytes, status: int | None) -> bool:
        """Called with upstream's status before the client sees it, None where none came. True if anything may have changed.

        Only where upstream plainly refused has nothing: else anybody could flush the cache with a request that is not allowed.
        """
        if status in REFUSED:
            return False
        name = _adapter_name(body) if path in ADAPTER_PATHS else None
        self._epochs.raise_epoch(CACHE if name is None else adapter_epoch(name))
        self._identity.doubt()
        return True


def _adapter_name(body: bytes) -> str | None:
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    name = parsed.get("lora_name") if isinstance(parsed, dict) else None
    return name if isinstance(name, str) else None
