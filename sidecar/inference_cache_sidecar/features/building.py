"""Puts the feature cache together out of what the composition root has."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from inference_cache_contract.epochs import Epochs
from inference_cache_contract.keyspace import Keyspace
from inference_cache_contract.spec_features import Features
from inference_cache_sidecar.features.cache import FeatureCache
from inference_cache_sidecar.features.cells import CellFormat
from inference_cache_sidecar.features.entities import FeatureKeys
from inference_cache_sidecar.features.kept import KeptCells
from inference_cache_sidecar.features.server import FeatureRules, FeatureServer
from inference_cache_sidecar.features.store import CellStore, MemoryCells
from inference_cache_sidecar.shared.sealing import Sealer
from inference_cache_sidecar.upstream import Upstream


@dataclass(frozen=True, slots=True)
class FeatureParts:
    """What is shared with the rest of the sidecar."""

    store: CellStore
    """`SharedCells`, or `MemoryCells` where there is no shared store."""
    epochs: Epochs
    keyspace: Keyspace
    near: MemoryCells | None = None
    """Before a shared store; None without one."""
    sealer: Sealer | None = None
    clock: Callable[[], float] = time.time


def build_features(spec: Features, parts: FeatureParts, upstream: Upstream, rules: FeatureRules) -> tuple[FeatureCache, FeatureServer]:
    """The cache, for events and metrics, and its server; the caller opens and closes `upstream`, serves `handle` and awaits `close`."""
    kept = KeptCells(parts.store, CellFormat(parts.sealer), parts.near)
    cache = FeatureCache(kept, parts.epochs, FeatureKeys(parts.keyspace), spec, parts.clock)
    return cache, FeatureServer(cache, upstream, rules)
