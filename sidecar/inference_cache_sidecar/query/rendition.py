"""How the client wants its answer: streamed or plain, with or without usage."""

from itertools import product
from typing import Any, Final

from inference_cache_sidecar.query.body import Json
from inference_cache_sidecar.query.model import Rendition

PLAIN: Final = Rendition()

_FLAGS: Final[dict[Any, bool]] = {None: False, False: False, True: True}
_RENDITIONS: Final = {flags: Rendition(*flags) for flags in product((False, True), repeat=3)}


def take_rendition(body: Json) -> Rendition | None:
    """Remove the fields of rendition; None if the model server would refuse them.

    A stream option that we do not know stays in the body, and so in the scope.
    """
    stream, options = body.pop("stream", None), body.pop("stream_options", None)
    if type(stream) is not bool and stream is not None:
        return None
    if not options:
        return (_STREAMED if stream else PLAIN) if options is None or options == {} else None
    if not stream or type(options) is not dict:
        return None
    usage, continuous = options.pop("include_usage", None), options.pop("continuous_usage_stats", None)
    if type(usage) not in _SWITCH or type(continuous) not in _SWITCH:
        return None
    if options:
        body["stream_options"] = options
    return _RENDITIONS[True, _FLAGS[usage], _FLAGS[continuous]]


_STREAMED: Final = _RENDITIONS[True, False, False]
_SWITCH: Final = (bool, type(None))
