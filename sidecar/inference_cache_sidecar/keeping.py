"""Answers into entries: stamped when the request begins, stored when the answer is complete and upstream still the same.

Called by `flying` for single answers and by `listing` for the items of a list.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from inference_cache_contract.entry import Entry
from inference_cache_contract.epochs import CACHE, Epochs, Stamp, adapter_epoch, category_epoch, flushed, tag_epoch, version_epoch
from inference_cache_sidecar import headers as header_rules
from inference_cache_sidecar.identity import UpstreamIdentity
from inference_cache_sidecar.index.protocol import Vector
from inference_cache_sidecar.lookup import Asked
from inference_cache_sidecar.marks import Marks
from inference_cache_sidecar.metrics import Metrics
from inference_cache_sidecar.render.protocol import Storable
from inference_cache_sidecar.store.protocol import EntryStore


@dataclass(frozen=True, slots=True)
class Begun:
    """What was true when the request began; an answer is kept only if upstream has not been doubted since."""

    stamps: tuple[Stamp, ...] | None
    """None: the epochs were not to be had, and the answer will not be stored."""
    doubts: int
    marks: Marks


@dataclass(frozen=True, slots=True)
class Made:
    """A complete answer, what came with it, and what it took."""

    answer: Storable
    headers: Mapping[str, str]
    seconds: float
    vector: Vector | None = None
    """Given = it may be found by similarity."""


class Keeper:
    def __init__(
        self, store: EntryStore, epochs: Epochs, identity: UpstreamIdentity, metrics: Metrics, clock: Callable[[], float], version: str
    ) -> None:
        self._store = store
        self._epochs = epochs
        self._identity = identity
        self._metrics = metrics
        self._clock = clock
        self._version = version

    async def begin(self, model: str, marks: Marks) -> Begun:
        doubts = self._identity.doubts
        names = [CACHE, version_epoch(self._version), adapter_epoch(model)]
        if marks.category is not None:
            names.append(category_epoch(marks.category.name))
        names.extend(tag_epoch(tag) for tag in marks.tags)
        return Begun(await self._epochs.stamps(names), doubts, marks)

    async def keep(self, asked: Asked, begun: Begun, made: Made) -> Entry | None:
        """None, and counted with its reason, if it was not stored after all."""
        if self._identity.doubts != begun.doubts or not self._identity.confirmed:
            self._metrics.not_stored("upstream-changed")
            return None
        if begun.stamps is None:
            self._metrics.not_stored("epochs-unknown")
            return None
        if flushed(self._epochs, begun.stamps):
            # Nobody would find it, and it would take the place of what was stored since.
            self._metrics.not_stored("flushed")
            return None
        ttl_seconds = _ttl(asked, begun.marks, made.vector is not None)
        if ttl_seconds <= 0:
            self._metrics.not_stored("ttl")
            return None
        entry = self._entry(asked, begun.stamps, made, ttl_seconds)
        if await self._store.put(entry, made.vector):
            return entry
        self._metrics.not_stored("store-refused")
        return None

    def _entry(self, asked: Asked, stamped: tuple[Stamp, ...], made: Made, ttl_seconds: float) -> Entry:
        return Entry(
            scope=asked.scope,
            digest=asked.digest,
            endpoint=asked.query.endpoint,
            prompt=asked.query.prompt,
            answer=made.answer.answer,
            answer_id=made.answer.answer_id,
            headers=header_rules.kept_with_entry(made.headers),
            stamps=stamped,
            created=self._clock(),
            ttl_seconds=ttl_seconds,
            prompt_tokens=made.answer.prompt_tokens,
            completion_tokens=made.answer.completion_tokens,
            upstream_seconds=made.seconds,
            semantic=made.vector is not None,
        )


def _ttl(asked: Asked, marks: Marks, semantic: bool) -> float:
    """As long as either tier may serve it; a caller's wish only shortens that."""
    lifetimes = asked.lifetimes
    longest = max(lifetimes.exact_seconds, lifetimes.semantic_seconds) if semantic else lifetimes.exact_seconds
    return longest if marks.ttl_seconds is None else min(longest, marks.ttl_seconds)
