"""The spec's section `features`: the feature server behind the feature cache, and how long its values may be repeated."""

import re
from dataclasses import dataclass
from typing import Annotated, Final

from inference_cache_contract.errors import SpecErrors, SpecProblem, shown
from inference_cache_contract.spec_fields import Says
from inference_cache_contract.spec_kinds import DURATION, NAME, Kind
from inference_cache_contract.spec_reader import rows

_URL: Final = re.compile(r"https?://[^/?#@\s]+/?")


def _url(raw: object) -> str:
    """Scheme, host and port; a request's own path is passed on as it came."""
    if not isinstance(raw, str) or _URL.fullmatch(raw) is None:
        raise ValueError(f"{shown(raw)} is not a URL such as http://feast:6566, without a path")
    return raw.rstrip("/")


def _names(raw: object) -> tuple[str, ...]:
    if not isinstance(raw, list | tuple):
        raise ValueError(f"{shown(raw)} is not a list")
    names, problems = [], []
    for index, item in enumerate(raw):
        try:
            names.append(NAME.parse(item))
        except ValueError as error:
            problems.append(SpecProblem(f"[{index}]", str(error)))
    if problems:
        raise SpecErrors(problems)
    return tuple(dict.fromkeys(names))


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


URL: Final[Kind[str]] = Kind("URL", "", _url)
NAMES: Final[Kind[tuple[str, ...]]] = Kind("list", "comma-separated", _names, list, _split)


@dataclass(frozen=True, slots=True)
class ViewTtl:
    """A feature view with a lifetime of its own."""

    name: Annotated[str, Says(NAME, "the feature view's name")]
    ttl_seconds: Annotated[float, Says(DURATION, "instead of spec.features.ttl; 0s: never cached", "ttl")]


@dataclass(frozen=True, slots=True)
class Features:
    upstream: Annotated[str | None, Says(URL, "the Feast-compatible feature server, e.g. http://feast:6566; absent: no feature cache")] = (
        None
    )
    ttl_seconds: Annotated[float, Says(DURATION, "how long a feature's value may be repeated", "ttl")] = 300.0
    missing_ttl_seconds: Annotated[
        float, Says(DURATION, "how long it may be repeated that an entity has no value, where that is shorter", "missingTtl")
    ] = 30.0
    views: Annotated[tuple[ViewTtl, ...], Says(rows(ViewTtl), "feature views with a lifetime of their own")] = ()
    join_keys: Annotated[
        tuple[str, ...],
        Says(
            NAMES,
            "all join keys there are: a write through the proxy then drops just the entities it names in them; "
            "without them, those in any column, and everything if that is much",
        ),
    ] = ()

    def ttl_of(self, view: str) -> float:
        """Seconds; 0 where nothing of the view may be cached."""
        return next((each.ttl_seconds for each in self.views if each.name == view), self.ttl_seconds)
