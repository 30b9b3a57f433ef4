"""Find: the exact entry of a digest, else the nearest entry of the scope that the guard lets through.

The pipeline asks `exact` before anything else and `similar` inside the flight, so that equal questions in flight are embedded once.
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from inference_cache_contract.entry import Entry
from inference_cache_sidecar.cache_control import Directives
from inference_cache_sidecar.embedder.protocol import AsyncEmbedder, EmbedderError
from inference_cache_sidecar.guard.protocol import Guard, Refusal
from inference_cache_sidecar.index.protocol import Neighbour, Vector
from inference_cache_sidecar.outcome import Hit, Miss
from inference_cache_sidecar.query.model import Query
from inference_cache_sidecar.store.protocol import EntryStore

NEIGHBOURS: Final = 4
"""How many of the nearest are tried: the guard may refuse the first and let the second pass."""

MAX_REFUTED: Final = 10_000


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """Seconds an entry may be served, by how it is found; an entry's own ttl can only shorten them."""

    exact_seconds: float
    semantic_seconds: float


@dataclass(frozen=True, slots=True)
class Asked:
    """One query's place and wishes."""

    query: Query
    scope: bytes
    digest: bytes
    directives: Directives
    threshold: float
    lifetimes: Lifetimes


class Refuted:
    """Pairs of question and entry that feedback called wrong: never served again (the latest `MAX_REFUTED`)."""

    def __init__(self) -> None:
        self._pairs: OrderedDict[tuple[bytes, bytes], None] = OrderedDict()

    def add(self, asked: bytes, stored: bytes) -> None:
        self._pairs[(asked, stored)] = None
        if len(self._pairs) > MAX_REFUTED:
            self._pairs.popitem(last=False)

    def __contains__(self, pair: tuple[bytes, bytes]) -> bool:
        return pair in self._pairs


class Lookup:
    """Both tiers over one store. `embedder` None = exact tier only."""

    def __init__(
        self,
        store: EntryStore,
        guard: Guard,
        embedder: AsyncEmbedder | None,
        stale_seconds: float,
        clock: Callable[[], float],
        observe_search: Callable[[float], None],
        refuted: Refuted,
    ) -> None:
        """`stale_seconds`: how long after its end an entry is still shown to `exact`, whatever for."""
        self._store = store
        self._guard = guard
        self._embedder = embedder
        self._clock = clock
        self._stale_seconds = stale_seconds
        self._observe_search = observe_search
        self.refuted = refuted

    async def exact(self, asked: Asked) -> Hit | Miss:
        """The entry of this very digest; possibly stale (`remaining_seconds` < 0), if the lifetimes keep stale ones."""
        entry = await self._store.get(asked.scope, asked.digest, stale_seconds=self._stale_seconds)
        if entry is None:
            return Miss()
        refusal = self.differing(asked.query.prompt, entry.prompt)
        if refusal is not None:
            return Miss(refusal=refusal, similarity=1.0)
        remaining = self.remaining(asked, entry)
        if remaining < -self._stale_seconds or not asked.directives.allow(entry.age(self._clock()), remaining):
            return Miss()
        return Hit(entry, "exact", remaining)

    def remaining(self, asked: Asked, entry: Entry) -> float:
        """Seconds the exact tier may still serve it; negative once stale."""
        return min(entry.ttl_seconds, asked.lifetimes.exact_seconds) - entry.age(self._clock())

    def age(self, entry: Entry) -> float:
        """Seconds since it was stored."""
        return entry.age(self._clock())

    def differing(self, asked: str, other: str) -> Refusal | None:
        """Why two prompts of one digest are not one question: normalising may have folded what counts."""
        return None if asked == other else self._guard.refusal(asked, other, 1.0)

    async def similar(self, asked: Asked) -> Hit | Miss:
        """The nearest entry of the scope that passes threshold, lifetime and guard. Never raises: a failing embedder is a miss."""
        vector = await self.vector(asked.query)
        if vector is None:
            return Miss()
        refusal: Refusal | None = None
        nearest: float | None = None
        begun = time.monotonic()
        neighbours = await self._store.neighbours(asked.scope, vector, NEIGHBOURS)
        self._observe_search(time.monotonic() - begun)
        for neighbour in neighbours:
            if neighbour.similarity < asked.threshold:
                break
            found = await self._judge(asked, neighbour)
            if isinstance(found, Hit):
                return replace(found, vector=vector)
            if isinstance(found, Refusal) and refusal is None:
                refusal, nearest = found, neighbour.similarity
        return Miss(vector, refusal, nearest)

    def allows(self, asked: Asked, hit: Hit) -> bool:
        """Whether a semantic hit that was found for an equal question is one by this asker's rules too."""
        return hit.similarity is not None and hit.similarity >= asked.threshold and self._fresh(hit.entry, asked)

    async def vector(self, query: Query) -> Vector | None:
        """None where similarity does not apply, the text is too long, or the embedder fails."""
        if self._embedder is None or not query.semantic:
            return None
        try:
            return await self._embedder.embed(query.canonical.decode())
        except EmbedderError:
            return None

    async def _judge(self, asked: Asked, neighbour: Neighbour) -> Hit | Refusal | None:
        """An entry of the same digest is the exact tier's alone: its lifetime is not extended here."""
        if neighbour.digest == asked.digest or (asked.digest, neighbour.digest) in self.refuted:
            return None
        entry = await self._store.peek(asked.scope, neighbour.digest)
        if entry is None or not entry.semantic or not self._fresh(entry, asked):
            return None
        refusal = self._guard.refusal(asked.query.prompt, entry.prompt, neighbour.similarity)
        if refusal is not None:
            return refusal
        await self._store.get(asked.scope, neighbour.digest)
        return Hit(entry, "semantic", self._remaining_similar(asked, entry), min(1.0, neighbour.similarity))

    def _remaining_similar(self, asked: Asked, entry: Entry) -> float:
        return min(entry.ttl_seconds, asked.lifetimes.semantic_seconds) - entry.age(self._clock())

    def _fresh(self, entry: Entry, asked: Asked) -> bool:
        remaining = self._remaining_similar(asked, entry)
        return remaining > 0 and asked.directives.allow(entry.age(self._clock()), remaining)
