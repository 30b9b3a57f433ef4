"""The kinds of value a spec's fields can have: how each is read, checked and written back.

A kind takes what YAML or JSON made of the field, or, by `from_text`, what stood behind a flag or in the environment.
"""

import ipaddress
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from inference_cache_contract.endpoints import Endpoint
from inference_cache_contract.errors import shown
from inference_cache_contract.quantity import format_bytes, format_duration, parse_bytes, parse_duration

T = TypeVar("T")
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def _as_it_is(value: object) -> object:
    return value


@dataclass(frozen=True, slots=True)
class Kind(Generic[T]):
    """`parse` raises ValueError, or SpecErrors with paths below the field.

    `parse(show(value)) == value`, unless `show` gives None: such a value is left out of a file.
    """

    name: str
    """The type, as help and documentation call it; they explain duration and bytes once."""
    unit: str
    """What the type does not say: a range, a separator."""
    parse: Callable[[object], T]
    show: Callable[[T], object] = _as_it_is
    from_text: Callable[[str], object] = _as_it_is


def _boolean(raw: object) -> bool:
    if isinstance(raw, bool):
        return raw
    raise ValueError(f"{shown(raw)} is neither true nor false")


def _boolean_text(text: str) -> object:
    return {"true": True, "false": False}.get(text.lower(), text)


def _fraction(raw: object) -> float:
    if isinstance(raw, bool) or not isinstance(raw, int | float):
        raise ValueError(f"{shown(raw)} is not a number")
    if math.isnan(raw) or not 0 <= raw <= 1:
        raise ValueError(f"{shown(raw)} is not in [0, 1]")
    return float(raw)


def _number_text(text: str) -> object:
    try:
        return float(text)
    except ValueError:
        return text


def _count(raw: object) -> int:
    if isinstance(raw, bool) or not isinstance(raw, int):
        raise ValueError(f"{shown(raw)} is not a whole number")
    if raw < 1:
        raise ValueError(f"{shown(raw)} is less than 1")
    return raw


def _count_text(text: str) -> object:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else text


def _text(raw: object) -> str:
    """`version: 1.10` is the number 1.1 to YAML: better refused than served under another name."""
    if not isinstance(raw, str):
        raise ValueError(f"{shown(raw)} is not a text; put it in quotes")
    if not raw.isprintable():
        raise ValueError(f"{shown(raw)} has characters that cannot be printed")
    return raw


def _name(raw: object) -> str:
    if not _text(raw).strip():
        raise ValueError("must not be empty")
    return _text(raw)


def _items(raw: object) -> list[object]:
    if not isinstance(raw, list | tuple):
        raise ValueError(f"{shown(raw)} is not a list")
    return list(raw)


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


SEMANTIC_ENDPOINTS = (Endpoint.CHAT, Endpoint.RESPONSES, Endpoint.MESSAGES, Endpoint.COMPLETIONS)


def _endpoint(raw: object) -> Endpoint:
    for endpoint in SEMANTIC_ENDPOINTS:
        if raw == endpoint.value:
            return endpoint
    raise ValueError(f"{shown(raw)} is not one of {', '.join(endpoint.value for endpoint in SEMANTIC_ENDPOINTS)}")


def _endpoints(raw: object) -> tuple[Endpoint, ...]:
    return tuple(dict.fromkeys(map(_endpoint, _items(raw))))


def _network(raw: object) -> Network:
    try:
        return ipaddress.ip_network(_text(raw))
    except ValueError as error:
        raise ValueError(f"{shown(raw)} is not a network such as 10.0.0.0/8 or ::1/128 ({error})") from None


def _match(raw: object) -> tuple[tuple[str, str], ...]:
    """`{header: {x-category: pricing}}`; names are compared in lower case, values as they are."""
    headers = raw.get("header") if isinstance(raw, Mapping) and set(raw) <= {"header"} else None
    if not isinstance(headers, Mapping) or not headers:
        raise ValueError(f"{shown(raw)} is not a match such as {{header: {{x-category: pricing}}}}")
    return tuple(sorted((_name(name).lower(), _text(value)) for name, value in headers.items()))


def choice(*words: str) -> Kind[str]:
    """One of `words`. An unquoted `Off` reaches us as False, since YAML 1.1 takes it for a boolean."""

    def parse(raw: object) -> str:
        word = "Off" if raw is False else raw
        if not isinstance(word, str) or word not in words:
            raise ValueError(f"{shown(raw)} is not one of {', '.join(words)}")
        return word

    return Kind(" | ".join(words), "", parse)


def json_text(text: str) -> object:
    """A value that is no single word comes as JSON behind a flag; what is no JSON is left for `parse` to refuse."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def anything(raw: object) -> object:
    return raw


BOOLEAN: Kind[bool] = Kind("boolean", "", _boolean, from_text=_boolean_text)
FRACTION: Kind[float] = Kind("number", "0 to 1", _fraction, from_text=_number_text)
COUNT: Kind[int] = Kind("integer", "at least 1", _count, from_text=_count_text)
DURATION: Kind[float] = Kind("duration", "", parse_duration, format_duration)
BYTES: Kind[int] = Kind("bytes", "", parse_bytes, format_bytes)
TEXT: Kind[str] = Kind("text", "", _text)
NAME: Kind[str] = Kind("text", "", _name)
MATCH: Kind[tuple[tuple[str, str], ...]] = Kind("match", "", _match, lambda match: {"header": dict(match)} if match else None, json_text)
ENDPOINTS: Kind[tuple[Endpoint, ...]] = Kind("list", "comma-separated", _endpoints, lambda them: [each.value for each in them], _split)
NETWORKS: Kind[tuple[Network, ...]] = Kind(
    "list", "comma-separated CIDRs", lambda raw: tuple(map(_network, _items(raw))), lambda them: [str(each) for each in them], _split
)
ANYTHING: Kind[object] = Kind("object", "", anything)
