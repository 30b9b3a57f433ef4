"""Fills a shared store with entries that no model made: as many as wanted, of any version, with vectors or without.

    python -m bench.store_filling URL CACHE VERSION COUNT [--vectors]

Called by `bench.shared` as a process of its own. The scope is nobody's, so no question finds them; what they cost is real.
"""

import argparse
import hashlib
import time
from dataclasses import replace
from typing import Final

import numpy as np
import uvloop

from inference_cache_contract.endpoints import Endpoint
from inference_cache_contract.entry import Entry
from inference_cache_contract.epochs import CACHE, version_epoch
from inference_cache_contract.spec import Model, Spec, Store
from inference_cache_sidecar.embedder.loading import load_embedder
from inference_cache_sidecar.shared.address import parse_redis_url
from inference_cache_sidecar.shared.tier import SharedTier, shared_tier
from inference_cache_sidecar.shared.values import manifest

BATCH: Final = 200
DIMENSIONS: Final = 384
TTL_SECONDS: Final = 86_400.0


def entry(number: int, scope: bytes) -> Entry:
    answer = b'{"id":"chatcmpl-%08d","choices":[{"message":{"role":"assistant","content":"%b"}}]}' % (number, b"An answer. " * 30)
    return Entry(
        scope=scope,
        digest=hashlib.sha256(b"%d" % number).digest(),
        endpoint=Endpoint.CHAT,
        prompt=f"What is known about number {number}?",
        answer=answer,
        answer_id=f"chatcmpl-{number:08}",
        headers=(("content-type", "application/json"),),
        stamps=(),
        created=time.time(),
        ttl_seconds=TTL_SECONDS,
        prompt_tokens=12,
        completion_tokens=80,
        upstream_seconds=1.0,
        semantic=True,
    )


async def fill(tier: SharedTier, version: str, count: int, *, vectors: bool) -> None:
    await tier.confirmed_soon()
    stamps = await tier.epochs.stamps([CACHE, version_epoch(version)])
    assert stamps is not None
    random, scope = np.random.default_rng(1), hashlib.sha256(version.encode()).digest()
    for start in range(0, count, BATCH):
        values = []
        rows = random.standard_normal((BATCH, DIMENSIONS), dtype=np.float32)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        for number in range(start, min(count, start + BATCH)):
            made = replace(entry(number, scope), stamps=stamps)
            key = tier.entries.key(scope, made.digest)
            values.append((key, tier.values.write(key, made, rows[number - start] if vectors else None), TTL_SECONDS))
        await tier.hot.set_many(values)


async def run(url: str, cache: str, version: str, count: int, *, vectors: bool) -> None:
    spec = Spec(model=Model(version=version))
    async with shared_tier(parse_redis_url(url), cache, replace(spec, store=patient(spec)), (), time.time) as tier:
        embedder = load_embedder("all-MiniLM-L6-v2", None)
        tier.values.manifest = manifest(embedder.digest, DIMENSIONS)
        await fill(tier, version, count, vectors=vectors)


def patient(spec: Spec) -> Store:
    return replace(spec.store, redis=replace(spec.store.redis, deadline_seconds=10.0))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    for name in ("url", "cache", "version"):
        parser.add_argument(name)
    parser.add_argument("count", type=int)
    parser.add_argument("--vectors", action="store_true")
    asked = parser.parse_args()
    uvloop.run(run(asked.url, asked.cache, asked.version, asked.count, vectors=asked.vectors))
