"""Where a request's answer belongs: query, caller, scope and digest. Called by the pipeline for every cacheable request.

Requests that were placed lately are remembered by their very bytes and the headers that matter, since repeated questions
are what a cache is for: parsing, canonical prompt and four hashes are then not done again.
"""

import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from aiohttp import web

from inference_cache_contract.endpoints import Endpoint
from inference_cache_contract.scope import Environment, digest_of, scope_of
from inference_cache_sidecar.access import Caller, Tenancy
from inference_cache_sidecar.identity import UpstreamIdentity
from inference_cache_sidecar.query.model import Bypass, BypassReason, Query
from inference_cache_sidecar.query.parse import parse
from inference_cache_sidecar.query.rules import QueryRules

if TYPE_CHECKING:
    from inference_cache_sidecar.repeats import Repeat

REMEMBERED: Final = 1024
REMEMBERED_BODY_BYTES: Final = 2048
"""Longer bodies are parsed anew: what is remembered stays under some 5 MiB."""

_DETERMINING: Final = ("Authorization", "x-api-key", "Content-Type", "Content-Encoding", "Origin", "Cookie")
"""All headers that parser and tenancy look at."""


@dataclass(slots=True)
class Place:
    query: Query
    caller: Caller
    scope: bytes
    digest: bytes
    doubts: int
    revision: bytes
    """Of the identity, when it was made; it counts only under the same."""
    repeat: "Repeat | None" = None
    """The exact hit that answered it last, prepared to be served again."""


class Placer:
    def __init__(self, cache: str, identity: UpstreamIdentity, tenancy: Tenancy, rules: QueryRules) -> None:
        self.rules = rules
        self._cache = cache
        self._identity = identity
        self._tenancy = tenancy
        self._remembered: OrderedDict[bytes, Place] = OrderedDict()

    def place(self, request: web.BaseRequest, endpoint: Endpoint, body: bytes, *, last_known: bool = False) -> Place | BypassReason:
        """`last_known`: in doubt, under the revision that upstream had before; such a place is for looking only."""
        if not self._identity.confirmed and not (last_known and self._identity.revision):
            return BypassReason.UPSTREAM_UNCONFIRMED
        if last_known or len(body) > REMEMBERED_BODY_BYTES:
            return self._placed(request, endpoint, body)
        key = _key(request, endpoint, body)
        known = self._known(key)
        if known is not None:
            return known
        place = self._placed(request, endpoint, body)
        if isinstance(place, Place):
            self._remember(key, place)
        return place

    def remembered(self, request: web.BaseRequest, endpoint: Endpoint, body: bytes) -> Place | None:
        """The place of an equal request that was placed lately, if it still counts."""
        return self._known(_key(request, endpoint, body)) if self._identity.confirmed else None

    def forget(self) -> None:
        """Callers are other tenants than before."""
        self._remembered.clear()

    def _known(self, key: bytes) -> Place | None:
        known = self._remembered.get(key)
        if known is None or known.doubts != self._identity.doubts or known.revision != self._identity.revision:
            return None
        self._remembered.move_to_end(key)
        return known

    def _remember(self, key: bytes, place: Place) -> None:
        self._remembered[key] = place
        self._remembered.move_to_end(key)
        if len(self._remembered) > REMEMBERED:
            self._remembered.popitem(last=False)

    def _placed(self, request: web.BaseRequest, endpoint: Endpoint, body: bytes) -> Place | BypassReason:
        query = parse(endpoint, body, request.headers, self.rules)
        if isinstance(query, Bypass):
            return query.reason
        identity, caller = self._identity, self._tenancy.caller(request.headers)
        environment = Environment(self._cache, identity.revision, caller.tenant, identity.root_of(query.model))
        scope = scope_of(environment, query.endpoint.value, query.determinants)
        return Place(query, caller, scope, digest_of(scope, query.canonical), identity.doubts, identity.revision)


def _key(request: web.BaseRequest, endpoint: Endpoint, body: bytes) -> bytes:
    """32 bytes: no credential is kept, and no header's length counts. A NUL is in no header, so the fields cannot run into each other."""
    headers = request.headers
    fields = [endpoint.value, *(headers.get(name, "\1") for name in _DETERMINING), ""]
    return hashlib.sha256("\0".join(fields).encode("utf-8", "surrogateescape") + body).digest()
