"""Scope and digest: what must be equal for an answer to be reused.

The query parser supplies the request's part (`determinants`), the pipeline the rest (`Environment`). Every field is
framed by its length, so that no two different environments serialise alike.
"""

import hashlib
from dataclasses import dataclass

from inference_cache_contract.canonical import NORMALISER_VERSION

SCOPE_VERSION = f"scope-1/canonical-{NORMALISER_VERSION}".encode()
"""Raised whenever the meaning of a scope's bytes, or of a canonical prompt, changes: old entries are then simply never found."""


@dataclass(frozen=True, slots=True)
class Environment:
    """What a request does not say of itself but its answer hangs on."""

    cache: str
    """namespace/name of the resource, or the sidecar's own name."""
    revision: bytes
    """Fingerprint of the served version and of what upstream says of itself."""
    tenant: bytes
    """HMAC of the caller's credential, or empty when tenants share."""
    model_root: str
    """`root` of the served model card (an adapter's path); empty when unknown."""


def scope_of(environment: Environment, endpoint: str, determinants: bytes) -> bytes:
    """32 bytes; equal only if everything that determines the answer, save the prompt, is equal."""
    hasher = hashlib.sha256(SCOPE_VERSION)
    for field in (
        environment.cache.encode(),
        environment.revision,
        environment.tenant,
        environment.model_root.encode(),
        endpoint.encode(),
        determinants,
    ):
        hasher.update(len(field).to_bytes(8, "big"))
        hasher.update(field)
    return hasher.digest()


def digest_of(scope: bytes, canonical: bytes) -> bytes:
    """32 bytes: SHA-256 of the canonical prompt inside a scope."""
    return hashlib.sha256(scope + canonical).digest()
