"""What a supervised worker is handed by its supervisor: sockets that listen already, and the page both see. One text, in a variable."""

import json
from dataclasses import asdict, dataclass
from typing import Final

INHERITED_VARIABLE: Final = "INFERENCE_CACHE_INHERITED"


@dataclass(frozen=True, slots=True)
class Inherited:
    """File descriptors, and the worker's own place in the page."""

    listen: tuple[int, ...]
    admin: tuple[int, ...]
    features: tuple[int, ...]
    """Empty: no feature cache."""
    page: int
    slot: int
    supervisor: int
    """Its process id."""


def inherited_text(inherited: Inherited) -> str:
    return json.dumps(asdict(inherited))


def parse_inherited(text: str) -> Inherited | None:
    """None for an empty text. Raises ValueError."""
    if not text:
        return None
    try:
        told = json.loads(text)
        fds = {name: tuple(map(int, told[name])) for name in ("listen", "admin", "features")}
        return Inherited(**fds, page=int(told["page"]), slot=int(told["slot"]), supervisor=int(told["supervisor"]))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError("is set by the supervisor alone") from error
