"""Who is who, and who may hit: tenants, and credentials that upstream accepted lately.

A hit skips the model server's own key check, so the pipeline asks here before it serves one or lets a caller join a flight.
"""

import asyncio
import base64
import binascii
import hmac
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import orjson

from inference_cache_sidecar import headers as header_rules
from inference_cache_sidecar.errors import UpstreamFault
from inference_cache_sidecar.upstream import Upstream

MAX_CREDENTIALS: Final = 50_000
PROBE_SECONDS: Final = 1.0
GUARDED_PREFIX: Final = "/v1/"
"""vLLM checks keys under this prefix only: an answer from elsewhere proves nothing about a credential."""


@dataclass(frozen=True, slots=True)
class Caller:
    """One request's caller."""

    tenant: bytes
    """Part of the scope; empty when tenants share."""
    credential: bytes
    """HMAC of all that was presented."""


class Tenancy:
    """Turns credentials into tenants. `key` (32 bytes) never leaves the process."""

    def __init__(self, source: str, key: bytes, claim: str | None = None) -> None:
        self._source = source
        self._key = key
        self._claim = claim

    def use(self, key: bytes) -> None:
        """From now on: callers are then other tenants than before."""
        self._key = key

    def caller(self, headers: Mapping[str, str]) -> Caller:
        presented = header_rules.credential_of(headers)
        credential = hmac.digest(self._key, presented.encode("utf-8", "surrogateescape"), "sha256")
        if self._source == "Shared":
            return Caller(b"", credential)
        if self._claim is not None:
            claimed = jwt_claim(headers.get("Authorization", ""), self._claim)
            if claimed is not None:
                return Caller(hmac.digest(self._key, b"claim:" + claimed, "sha256"), credential)
        return Caller(credential, credential)


def jwt_claim(authorization: str, name: str) -> bytes | None:
    """A claim of a bearer token that a gateway has verified before; None if there is no such thing."""
    token = authorization.partition(" ")[2]
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        payload = orjson.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (binascii.Error, ValueError):
        return None
    value = payload.get(name) if isinstance(payload, dict) else None
    return orjson.dumps(value) if isinstance(value, str | int) and value != "" else None


class Access:
    """Remembers which credentials upstream accepted within `revalidate_seconds`."""

    def __init__(self, upstream: Upstream, revalidate_seconds: float, clock: Callable[[], float]) -> None:
        self._upstream = upstream
        self._clock = clock
        self._accepted: OrderedDict[bytes, float] = OrderedDict()
        self._probes: dict[bytes, asyncio.Task[bool]] = {}
        self.revalidate_seconds = revalidate_seconds

    def accepted(self, credential: bytes) -> bool:
        at = self._accepted.get(credential)
        return at is not None and self._clock() - at < self.revalidate_seconds

    def observe(self, credential: bytes, path: str, status: int) -> None:
        """Learn from an answer of upstream's to this credential."""
        if not path.startswith(GUARDED_PREFIX):
            return
        if 200 <= status < 300:
            self._accepted[credential] = self._clock()
            self._accepted.move_to_end(credential)
            if len(self._accepted) > MAX_CREDENTIALS:
                self._accepted.popitem(last=False)
        elif status in (401, 403):
            self._accepted.pop(credential, None)

    async def confirm(self, credential: bytes, headers: Mapping[str, str]) -> bool:
        """True if accepted lately, or upstream says so now; no answer counts as no. Equal credentials ask once."""
        if self.accepted(credential):
            return True
        probe = self._probes.get(credential)
        if probe is None:
            probe = asyncio.create_task(self._probe(credential, header_rules.credential_headers(headers)))
            self._probes[credential] = probe
            probe.add_done_callback(lambda _: self._probes.pop(credential, None))
        await asyncio.wait((probe,))
        return not probe.cancelled() and probe.result()

    async def _probe(self, credential: bytes, headers: Mapping[str, str]) -> bool:
        try:
            status, _ = await self._upstream.ask("/v1/models", headers, PROBE_SECONDS)
        except UpstreamFault:
            return False
        self.observe(credential, GUARDED_PREFIX, status)
        return 200 <= status < 300

    async def close(self) -> None:
        probes = list(self._probes.values())
        for probe in probes:
            probe.cancel()
        await asyncio.gather(*probes, return_exceptions=True)
