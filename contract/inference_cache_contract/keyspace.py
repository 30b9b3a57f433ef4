"""Every key of the shared store, written once.

The sidecar's shared tier reads and writes them, `flush` finds them by pattern, an operator's dashboard may look them up.
Names that a user chose are quoted, so that none can hold a pattern's sign, a cluster's hash tag or a colon; names that may
tell of people (tags, entities) are hashed. No two families share a slot on purpose: every key goes where its hash puts it.
"""

import hashlib
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from inference_cache_contract.wire import WIRE_VERSION

_FAMILY: Final = "inference-cache"
EVENTS: Final = f"{_FAMILY}:events"
"""The stream that events are read from, unless the spec names another: of no cache alone, since all may read it."""
DEAD_LETTERS: Final = f"{EVENTS}:dead-letters"
"""The stream of events that could not be used, unless the spec names another."""


@dataclass(frozen=True, slots=True)
class Keyspace:
    """The keys of one cache. `cache` is namespace/name of the resource, or the sidecar's own name."""

    cache: str

    def entry(self, version: str, scope: bytes, digest: bytes) -> bytes:
        """An entry of a model version: scope and digest are 32 bytes each, the digest alone tells entries apart."""
        return f"{self._entries}:{_quoted(version)}:{scope[:16].hex()}:{digest.hex()}".encode()

    def entries_of(self, version: str) -> bytes:
        """Pattern of all entries of a model version, and of no other version."""
        return f"{self._entries}:{_quoted(version)}:*".encode()

    def all_entries(self) -> bytes:
        """Pattern of all entries in this wire format."""
        return f"{self._entries}:*".encode()

    def entries_under(self, digest: bytes) -> bytes:
        """Pattern of the entries of a digest, of whatever version and scope."""
        return f"{self._entries}:*:{digest.hex()}".encode()

    def epoch(self, name: str) -> bytes:
        """The value of an epoch."""
        return f"{self._own}:epoch:{name_digest(name)}".encode()

    def raises(self) -> bytes:
        """A stream of the epochs that were raised; its last id says whether anything was."""
        return f"{self._own}:raises".encode()

    def replicas(self) -> bytes:
        """A hash: when each replica last confirmed its epochs, and up to which raise."""
        return f"{self._own}:replicas".encode()

    def server(self) -> bytes:
        """The run id of the server whose epochs were found in order last."""
        return f"{self._own}:server".encode()

    def changes(self) -> bytes:
        """A capped stream of entries that were stored or deleted."""
        return f"{self._own}:changes".encode()

    def tenancy_key(self) -> bytes:
        """The key that turns credentials into tenants, where the resource gives none."""
        return f"{self._own}:tenancy-key".encode()

    def purge_lease(self, name: str) -> bytes:
        """Held by the replica that deletes the bytes of a flush."""
        return f"{self._own}:purge:{name_digest(name)}".encode()

    def order(self, order: str) -> bytes:
        """A hash: who executes a flush order of the hot configuration, until when it is theirs alone, and what came of it."""
        return f"{self._own}:order:{name_digest(order)}".encode()

    def flight(self, flight: bytes) -> bytes:
        """The lease of the replica that asks upstream for a flight."""
        return f"{self._own}:flight:{flight.hex()}".encode()

    def flight_stream(self, flight: bytes, token: str) -> bytes:
        """What the holder of a lease has had from upstream so far."""
        return f"{self._own}:flight:{flight.hex()}:{token}".encode()

    def feature(self, view: str, name: str, entity: bytes) -> bytes:
        """One feature's value for one entity; `entity` is the digest of its join keys and values."""
        return f"{self._own}:feature:{_quoted(view)}:{_quoted(name)}:{entity.hex()}".encode()

    def events_turn(self) -> bytes:
        """Held by the replica that acts first on events which all of them hear."""
        return f"{self._own}:events-turn".encode()

    @property
    def _own(self) -> str:
        return f"{_FAMILY}:{_quoted(self.cache)}"

    @property
    def _entries(self) -> str:
        return f"{self._own}:e{WIRE_VERSION}"


def name_digest(name: str) -> str:
    """Names an epoch without saying it: 32 hexadecimal digits."""
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def scope_and_digest(key: bytes) -> tuple[bytes, bytes] | None:
    """The first 16 bytes of the scope and the digest of an entry's key; None if it is none."""
    parts = key.rsplit(b":", 2)
    try:
        scope, digest = bytes.fromhex(parts[-2].decode()), bytes.fromhex(parts[-1].decode())
    except (ValueError, IndexError):
        return None
    return (scope, digest) if len(scope) == 16 and len(digest) == 32 else None


def _quoted(name: str) -> str:
    return quote(name, safe="", errors="surrogatepass")
