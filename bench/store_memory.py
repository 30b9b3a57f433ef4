"""Does the memory store keep its cap, and how much of it is entries? A million stores of made-up vectors.

Prints resident memory against the cap, the share of the cap that lookups reach, and the rates of storing and getting:

    python bench/store_memory.py [--entries 1000000] [--cap 512Mi] [--scopes own|one|mixed] [--index 10000,100000]
"""

import argparse
import asyncio
import hashlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# Before NumPy is loaded: its threads would only wait for each other on vectors of this size.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np

from inference_cache_contract.endpoints import Endpoint
from inference_cache_contract.entry import Entry
from inference_cache_sidecar.epochs import MemoryEpochs
from inference_cache_sidecar.index.protocol import Vector
from inference_cache_sidecar.index.scoped import ScopedIndex
from inference_cache_sidecar.store.memory import MemoryStore

DIMENSIONS = 384
SAMPLES = 2000
UNITS = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30}
HEADERS = (("content-type", "application/json"),)
STAMPS = (("cache", 0), ("version:v1.2.3", 0), ("adapter:acme-faq", 0), ("category:default", 0))


def rss() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def size(text: str) -> int:
    unit = UNITS.get(text[-2:])
    return int(text[:-2]) * unit if unit else int(text)


def key(kind: str, number: int) -> bytes:
    return hashlib.sha256(f"{kind}{number}".encode()).digest()


@dataclass(frozen=True)
class Load:
    """Entry `number` is always the same, so that lookups can ask for it again."""

    scopes: str
    answer_bytes: int

    def scope(self, number: int) -> bytes:
        if self.scopes == "one":
            return key("scope", 0)
        if self.scopes == "own" or number % 3 == 0:
            return key("scope", number)
        return key("scope", number % 1000 if number % 3 == 1 else 0)

    def entry(self, number: int) -> Entry:
        """Answers from a quarter to two and a half times `answer_bytes`, as answers differ in length."""
        length = int(self.answer_bytes * (0.25 + 2.25 * (number * 2654435761 % 1000 / 1000) ** 2))
        return Entry(
            scope=self.scope(number),
            digest=key("prompt", number),
            endpoint=Endpoint.CHAT,
            prompt=f"How do I change the delivery address of order {number} after it was paid?",
            answer=(b"%d " % number + b"x" * length)[:length],
            answer_id=f"chatcmpl-{number:032x}",
            headers=HEADERS,
            stamps=STAMPS,
            created=1_700_000_000.0,
            ttl_seconds=1e9,
            prompt_tokens=40,
            completion_tokens=length // 4,
            upstream_seconds=0.2 + length / 1000,
            semantic=True,
        )


def vectors(seed: int) -> Iterator[Vector]:
    generator = np.random.default_rng(seed)
    while True:
        batch = generator.standard_normal((1024, DIMENSIONS), dtype=np.float32)
        batch /= np.linalg.norm(batch, axis=1, keepdims=True)
        yield from batch


async def fill(store: MemoryStore, load: Load, entries: int) -> tuple[float, float, int]:
    """CPU seconds spent storing, those of the longest single put, and the highest resident memory seen.

    CPU time of this thread, so that what else runs on the machine does not count.
    """
    spent = longest = 0.0
    peak = 0
    for number, vector in zip(range(entries), vectors(1), strict=False):
        entry = load.entry(number)
        began = time.thread_time()
        await store.put(entry, vector)
        took = time.thread_time() - began
        spent += took
        longest = max(longest, took)
        if number % 5000 == 0:
            peak = max(peak, rss())
            assert store.stats().used_bytes <= store.stats().max_bytes
    return spent, longest, max(peak, rss())


async def reached(store: MemoryStore, load: Load, entries: int) -> tuple[int, int, float]:
    """Entries that a lookup finds, their bytes (answer, prompt, vector as kept), and gets per second."""
    found = content = 0
    began = time.thread_time()
    for number in range(entries):
        entry = await store.get(b"", key("prompt", number))
        if entry is not None:
            assert entry.answer.startswith(b"%d " % number)
            found += 1
            content += len(entry.answer) + len(entry.prompt) + DIMENSIONS
    # The key is made inside the loop: what is reported is less than the store's own rate.
    return found, content, entries / (time.thread_time() - began)


async def measure_store(load: Load, entries: int, cap: int) -> None:
    index = ScopedIndex(DIMENSIONS)
    await MemoryStore(cap, MemoryEpochs(), index).put(load.entry(0), next(vectors(0)))
    await index.close()
    idle = rss()
    index = ScopedIndex(DIMENSIONS)
    store = MemoryStore(cap, MemoryEpochs(), index)
    spent, longest, peak = await fill(store, load, entries)
    stats = store.stats()
    found, content, gets = await reached(store, load, entries)
    await index.close()
    print(f"scopes={load.scopes} entries={entries} answers about {load.answer_bytes} B")
    print(f"  cap {cap / 2**20:.0f} MiB, used {stats.used_bytes / 2**20:.1f} MiB, entries kept {stats.entries}, found {found}")
    print(f"  RSS over idle {(rss() - idle) / 2**20:.1f} MiB (peak {(peak - idle) / 2**20:.1f}), ratio to cap {(peak - idle) / cap:.3f}")
    print(f"  share of the cap: entries {stats.entry_bytes / cap:.3f}, of it answers, prompts and vectors {content / cap:.3f}")
    print(f"  per CPU second: puts {entries / spent:.0f} (longest {longest * 1e3:.1f} ms), gets {gets:.0f}; refused {stats.refused}")


async def measure_index(count: int) -> None:
    index = ScopedIndex(DIMENSIONS)
    scope = key("scope", 0)
    adds = []
    asked = []
    before = rss()
    for number, vector in zip(range(count), vectors(2), strict=False):
        began = time.thread_time()
        index.add(scope, key("prompt", number), vector)
        adds.append(time.thread_time() - began)
        if number % max(1, count // SAMPLES) == 0:
            # A copy: the row itself would keep its whole batch.
            asked.append((number, vector.copy()))
    while index.building:
        await asyncio.sleep(0.05)
        index.search(scope, asked[0][1], 1)
    took, right = searched(index, scope, asked)
    print(f"index of {count}: {index.nbytes / 1e6:.1f} MB (RSS {(rss() - before) / 1e6:.1f}), longest add {max(adds) * 1e3:.1f} ms")
    p50, p99 = np.percentile(took, [50, 99]) * 1e3
    print(f"  search p50 {p50:.2f} ms, p99 {p99:.2f} ms, nearest at 0.9 found {right:.4f}")
    await index.close()


def searched(index: ScopedIndex, scope: bytes, asked: list[tuple[int, Vector]]) -> tuple[list[float], float]:
    """Each search is for a vector at cosine 0.9 from a kept one."""
    took = []
    right = 0
    for (number, vector), noise in zip(asked, vectors(3), strict=False):
        across = noise - (noise @ vector) * vector
        query = np.float32(0.9) * vector + np.float32(np.sqrt(1 - 0.81)) * across / np.linalg.norm(across)
        began = time.thread_time()
        found = index.search(scope, query, 4)
        took.append(time.thread_time() - began)
        right += bool(found) and found[0].digest == key("prompt", number)
    return took, right / len(asked)


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--cap", type=size, default=size("512Mi"), help="bytes, or with Ki, Mi, Gi (default 512Mi)")
    parser.add_argument("--scopes", choices=["own", "one", "mixed"], nargs="*", default=["own", "one", "mixed"])
    parser.add_argument("--answer-bytes", type=int, default=800)
    parser.add_argument("--index", default="10000,100000", help="sizes of one scope to search in; empty for none")
    options = parser.parse_args()
    for scopes in options.scopes:
        await measure_store(Load(scopes, options.answer_bytes), options.entries, options.cap)
    for count in (int(text) for text in options.index.split(",") if text):
        await measure_index(count)


if __name__ == "__main__":
    asyncio.run(main())
