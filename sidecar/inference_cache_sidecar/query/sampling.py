"""Whether a request asks for an answer that may be repeated (`spec.sampling.cache`)."""

from typing import Final

from inference_cache_contract.endpoints import Endpoint
from inference_cache_contract.spec import SamplingCache
from inference_cache_sidecar.query.body import Json

_SEEDED: Final = frozenset({Endpoint.CHAT, Endpoint.COMPLETIONS, Endpoint.RESPONSES})
"""Where the model server heeds `seed`."""

_BEAMS: Final = frozenset({Endpoint.CHAT, Endpoint.COMPLETIONS})
"""Where it heeds `use_beam_search`."""


def repeatable(endpoint: Endpoint, body: Json, rule: SamplingCache) -> bool:
    """Beam search draws no lots, whatever the temperature. A temperature that is not a number counts as stated."""
    temperature = body.get("temperature")
    if temperature is None:
        if rule == "Unstated":
            return True
    elif type(temperature) in (int, float) and temperature == 0:
        return True
    return (
        rule == "All"
        or (type(body.get("seed")) is int and endpoint in _SEEDED)
        or (body.get("use_beam_search") is True and endpoint in _BEAMS)
    )
