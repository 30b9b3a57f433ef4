"""One cacheable request on its way through the sidecar, with everything that later steps need to know of it.

Made once by the pipeline, read by `flying` and `serving`.
"""

from dataclasses import dataclass

from aiohttp import web

from inference_cache_contract.endpoints import Endpoint
from inference_cache_sidecar.access import Caller
from inference_cache_sidecar.lookup import Asked
from inference_cache_sidecar.marks import Marks
from inference_cache_sidecar.placing import Place
from inference_cache_sidecar.query.model import Query
from inference_cache_sidecar.render.protocol import Renderer


@dataclass(frozen=True, slots=True)
class Ask:
    request: web.BaseRequest
    body: bytes
    endpoint: Endpoint
    query: Query
    asked: Asked
    caller: Caller
    place: Place
    marks: Marks
    renderer: Renderer
    doubts: int
    """The identity's doubts when the request came: what it fetches is stored only under the same."""
    started: float
    """Monotonic seconds."""

    @property
    def path(self) -> str:
        return self.request.raw_path
