"""What of a spec a running process cannot take up: it goes on with what it was started with, and says so. Pure."""

from dataclasses import replace

from inference_cache_contract.spec import Spec
from inference_cache_sidecar.settings import ENCRYPTION_KEY_FIELD, Wanted


def needs_restart(started: Wanted, wanted: Wanted, *, with_store: bool) -> list[str]:
    """The sections that are wanted otherwise than this process was started with. `with_store`: a shared store is named."""
    ours, theirs = _cold(started.spec), _cold(wanted.spec)
    changed = [path for path, section in theirs.items() if ours[path] != section]
    if with_store and wanted.must_not_share != started.must_not_share:
        changed.append(ENCRYPTION_KEY_FIELD)
    return changed


def held(started: Wanted, wanted: Wanted) -> Wanted:
    """`wanted`, less what needs a restart."""
    ours, theirs = started.spec, wanted.spec
    spec = replace(
        theirs,
        model=replace(theirs.model, version=ours.model.version),
        semantic=replace(theirs.semantic, embedder=ours.semantic.embedder),
        store=replace(theirs.store, redis=ours.store.redis),
        invalidation=ours.invalidation,
        features=ours.features,
    )
    return replace(wanted, spec=spec)


def _cold(spec: Spec) -> dict[str, object]:
    return {
        "spec.model.version": spec.model.version,
        "spec.semantic.embedder": spec.semantic.embedder,
        "spec.store.redis": spec.store.redis,
        "spec.invalidation": spec.invalidation,
        "spec.features": spec.features,
    }
