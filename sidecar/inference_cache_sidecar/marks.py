"""What marks a request for the cache besides its content: category, tags and lifetime, from headers that may be trusted. Pure."""

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from inference_cache_contract.quantity import parse_duration
from inference_cache_contract.spec import Category
from inference_cache_contract.spec_kinds import Network

TTL_HEADER: Final = "x-inference-cache-ttl"
TAGS_HEADER: Final = "x-inference-cache-tags"
CATEGORY_HEADER: Final = "x-inference-cache-category"
MAX_TAGS: Final = 16
MAX_TAG_LENGTH: Final = 128
_REMEMBERED: Final = 4096


@dataclass(frozen=True, slots=True)
class Marks:
    """None and empty = as the spec says."""

    category: Category | None = None
    tags: tuple[str, ...] = ()
    ttl_seconds: float | None = None


UNMARKED: Final = Marks()


class Trust:
    """Whose `x-inference-cache-*` headers count: callers inside the spec's networks."""

    def __init__(self, networks: Sequence[Network]) -> None:
        self.networks = networks
        self._known: dict[str, bool] = {}

    def trusts(self, remote: str | None) -> bool:
        if not self.networks or remote is None:
            return False
        known = self._known.get(remote)
        if known is None:
            known = self._known[remote] = self._inside(remote)
            if len(self._known) > _REMEMBERED:
                self._known.clear()
        return known

    def _inside(self, remote: str) -> bool:
        try:
            address = ipaddress.ip_address(remote)
        except ValueError:
            return False
        return any(address in network for network in self.networks)


def marks_of(headers: Mapping[str, str], trusted: bool, categories: Iterable[Category]) -> Marks:
    """Marks that cannot be read are ignored: a cache hint never makes a request fail."""
    if not trusted:
        matched = _matching(headers, categories)
        return UNMARKED if matched is None else Marks(matched)
    named = headers.get(CATEGORY_HEADER)
    category = next((known for known in categories if known.name == named), None) or _matching(headers, categories)
    return Marks(category, _tags(headers.get(TAGS_HEADER, "")), _ttl(headers.get(TTL_HEADER)))


def is_tag(text: str) -> bool:
    """Whether the tags' header can say it, so that anything may carry it."""
    return 0 < len(text) <= MAX_TAG_LENGTH and "," not in text and text == text.strip()


def _matching(headers: Mapping[str, str], categories: Iterable[Category]) -> Category | None:
    for category in categories:
        if category.match and all(headers.get(name) == value for name, value in category.match):
            return category
    return None


def _tags(value: str) -> tuple[str, ...]:
    tags = {tag.strip() for tag in value.split(",")}
    return tuple(sorted(filter(is_tag, tags))[:MAX_TAGS])


def _ttl(value: str | None) -> float | None:
    """A duration as in the spec, or plain seconds."""
    if value is None:
        return None
    try:
        return parse_duration(f"{value}s" if value.isascii() and value.isdigit() else value)
    except ValueError:
        return None
