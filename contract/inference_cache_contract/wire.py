"""The packed form of an entry: one bytes object, the same in the memory store and in Redis.

Stores pack what the pipeline gives them and unpack what a lookup found. Bytes that are not a whole entry of this
version raise `WireError`, never anything else, so that a reader can take them for a miss.
"""

import math
from functools import lru_cache
from struct import Struct
from struct import error as StructError  # noqa: N812  the library's name is lower case and says nothing here
from typing import Final

from inference_cache_contract.endpoints import Endpoint
from inference_cache_contract.entry import Entry
from inference_cache_contract.epochs import Stamp

WIRE_VERSION: Final = 1
"""Raised whenever the layout changes; bytes of another version are a miss."""

DIGEST: Final = slice(4, 36)
"""Where the digest lies in a packed entry, so that a store can compare it without unpacking."""
SCOPE: Final = slice(36, 68)
CREATED: Final = slice(68, 76)
"""As `packed_time` writes it."""

# version, endpoint, semantic, (pad), digest, scope, created, ttl, upstream seconds, tokens in and out,
# then the lengths of: headers, stamps, answer id, prompt, answer.
_FIXED = Struct("<BB?x32s32sdddIIIIIII")
_LENGTH = Struct("<H")
_VALUE = Struct("<q")
_TIME = Struct("<d")

_CODES: Final[dict[Endpoint, int]] = {
    Endpoint.CHAT: 1,
    Endpoint.RESPONSES: 2,
    Endpoint.MESSAGES: 3,
    Endpoint.COMPLETIONS: 4,
    Endpoint.EMBEDDINGS: 5,
    Endpoint.RERANK: 6,
    Endpoint.SCORE: 7,
    Endpoint.CLASSIFY: 8,
    Endpoint.TOKENIZE: 9,
}
_ENDPOINTS: Final = {code: endpoint for endpoint, code in _CODES.items()}


class WireError(ValueError):
    """These bytes are not an entry of this version, or this entry does not fit the format."""


def pack(entry: Entry) -> bytes:
    """The entry as one bytes object. Raises WireError if a field does not fit."""
    if len(entry.digest) != 32 or len(entry.scope) != 32:
        raise WireError("digest and scope are 32 bytes each")
    if not _plausible(entry.created, entry.ttl_seconds, entry.upstream_seconds):
        raise WireError("created, ttl_seconds and upstream_seconds must be numbers, created finite")
    headers = _packed_headers(entry.headers)
    stamps = _packed_stamps(entry.stamps)
    answer_id = entry.answer_id.encode("utf-8", "surrogatepass")
    prompt = entry.prompt.encode("utf-8", "surrogatepass")
    try:
        fixed = _FIXED.pack(
            WIRE_VERSION,
            _CODES[entry.endpoint],
            entry.semantic,
            entry.digest,
            entry.scope,
            entry.created,
            entry.ttl_seconds,
            entry.upstream_seconds,
            entry.prompt_tokens,
            entry.completion_tokens,
            len(headers),
            len(stamps),
            len(answer_id),
            len(prompt),
            len(entry.answer),
        )
    except StructError as error:
        raise WireError(f"a field does not fit: {error}") from error
    return b"".join((fixed, headers, stamps, answer_id, prompt, entry.answer))


def unpack(packed: bytes) -> Entry:
    """The entry that `pack` took. Raises WireError, never anything else."""
    try:
        fields = _FIXED.unpack_from(packed)
    except StructError as error:
        raise WireError("shorter than an entry's fixed part") from error
    version, code, semantic, digest, scope, created, ttl, upstream, tokens_in, tokens_out, *lengths = fields
    endpoint = _ENDPOINTS.get(code)
    if version != WIRE_VERSION or endpoint is None:
        raise WireError("another version, or an endpoint that this version does not know")
    if not _plausible(created, ttl, upstream):
        raise WireError("a time is not a number")
    headers_end = _FIXED.size + lengths[0]
    stamps_end = headers_end + lengths[1]
    id_end = stamps_end + lengths[2]
    prompt_end = id_end + lengths[3]
    if prompt_end + lengths[4] != len(packed):
        raise WireError("the lengths do not add up")
    try:
        return Entry(
            scope,
            digest,
            endpoint,
            str(packed[id_end:prompt_end], "utf-8", "surrogatepass"),
            packed[prompt_end:],
            str(packed[stamps_end:id_end], "utf-8", "surrogatepass"),
            _headers(packed[_FIXED.size : headers_end]),
            _stamps(packed[headers_end:stamps_end]),
            created,
            ttl,
            tokens_in,
            tokens_out,
            upstream,
            semantic,
        )
    except UnicodeDecodeError as error:
        raise WireError("text that is not UTF-8") from error


def packed_time(seconds: float) -> bytes:
    return _TIME.pack(seconds)


def _plausible(created: float, ttl: float, upstream: float) -> bool:
    return math.isfinite(created) and not math.isnan(ttl) and not math.isnan(upstream)


def _framed(text: str) -> bytes:
    data = text.encode("utf-8", "surrogatepass")
    if len(data) > 0xFFFF:
        raise WireError("a header or an epoch's name is longer than 65,535 bytes")
    return _LENGTH.pack(len(data)) + data


def _signed(value: int) -> bytes:
    try:
        return _VALUE.pack(value)
    except StructError as error:
        raise WireError("an epoch's value does not fit 64 bits") from error


# Nearly all entries carry the same headers and stamps: doing each of them once makes storing and hitting cheaper, and
# all entries in use then share one tuple. What does not fit or decode raises and is not kept.
@lru_cache(maxsize=1024)
def _packed_headers(headers: tuple[tuple[str, str], ...]) -> bytes:
    return b"".join(_framed(name) + _framed(value) for name, value in headers)


@lru_cache(maxsize=1024)
def _packed_stamps(stamps: tuple[Stamp, ...]) -> bytes:
    return b"".join(_framed(name) + _signed(value) for name, value in stamps)


@lru_cache(maxsize=1024)
def _headers(block: bytes) -> tuple[tuple[str, str], ...]:
    headers = []
    at = 0
    while at < len(block):
        name, at = _text(block, at)
        value, at = _text(block, at)
        headers.append((name, value))
    return tuple(headers)


@lru_cache(maxsize=1024)
def _stamps(block: bytes) -> tuple[Stamp, ...]:
    stamps = []
    at = 0
    while at < len(block):
        name, at = _text(block, at)
        if at + _VALUE.size > len(block):
            raise WireError("a stamp is cut off")
        stamps.append((name, _VALUE.unpack_from(block, at)[0]))
        at += _VALUE.size
    return tuple(stamps)


def _text(block: bytes, at: int) -> tuple[str, int]:
    start = at + _LENGTH.size
    if start > len(block):
        raise WireError("a length is cut off")
    end = start + _LENGTH.unpack_from(block, at)[0]
    if end > len(block):
        raise WireError("a text is cut off")
    return str(block[start:end], "utf-8", "surrogatepass"), end
