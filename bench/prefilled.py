"""A sidecar that starts with a full store: all entries in one scope, the first ones with the vectors of real questions.

    python -m bench.prefilled --entries 10000 --vectors FILE.npy --upstream URL [the sidecar's other flags]

Says `FILLED` once it is. It is put together by `app.running` as always; only the entries are not asked for one by one, but
copied from one that was. Vectors beyond those in the file lie at a cosine of `NEAR` around them, as a topic's questions do.
"""

import argparse
import asyncio
import gc
import logging
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import aiohttp
import numpy as np
import numpy.typing as npt
import uvloop
from aiohttp.test_utils import make_mocked_request

from bench import questions
from inference_cache_contract.endpoints import Endpoint
from inference_cache_sidecar.app import Running, running
from inference_cache_sidecar.command import build_settings, read_layers
from inference_cache_sidecar.index.protocol import Vector
from inference_cache_sidecar.placing import Place
from inference_cache_sidecar.settings import Settings

FILLED: Final = "filled"
READY_POLLS: Final = 1200
NEAR: Final = 0.7
Matrix = npt.NDArray[np.float32]
_REQUEST: Final = make_mocked_request("POST", questions.CHAT, headers=questions.HEADERS)


def place(sidecar: Running, prompt: str) -> Place:
    """Where the answer to `prompt` belongs, if the bench asks it."""
    found = sidecar.parts.placer.place(_REQUEST, Endpoint.CHAT, questions.body(prompt))
    assert isinstance(found, Place), found
    return found


def vectors(real: Matrix, seed: int = 1) -> Iterator[Vector]:
    """The real ones, then made-up ones without end; unit rows."""
    yield from real
    random = np.random.default_rng(seed)
    while True:
        noise = random.standard_normal(real.shape, dtype=np.float32)
        noise -= np.sum(noise * real, axis=1, keepdims=True) * real
        noise /= np.linalg.norm(noise, axis=1, keepdims=True)
        yield from np.float32(NEAR) * real + np.float32(np.sqrt(1 - NEAR**2)) * noise


async def ready(sidecar: Running) -> None:
    for _ in range(READY_POLLS):
        if sidecar.parts.identity.confirmed and (sidecar.embedder is None or sidecar.embedder.state == "ready"):
            return
        await asyncio.sleep(0.05)
    raise TimeoutError("the sidecar did not get ready")


async def ask(sidecar: Running, prompt: str) -> None:
    url = f"http://{sidecar.listen}{questions.CHAT}"
    async with aiohttp.ClientSession() as session, session.post(url, data=questions.body(prompt), headers=questions.HEADERS) as answer:
        answer.raise_for_status()
        await answer.read()


async def fill(sidecar: Running, real: Matrix, entries: int) -> None:
    """Question 0 is asked; its entry, under other questions, makes the others."""
    await ready(sidecar)
    await ask(sidecar, questions.stored(0))
    where = place(sidecar, questions.stored(0))
    first = await sidecar.store.get(where.scope, where.digest)
    assert first is not None
    for number, vector in zip(range(entries), vectors(real), strict=False):
        where = place(sidecar, questions.stored(number))
        assert where.scope == first.scope
        assert await sidecar.store.put(replace(first, digest=where.digest, prompt=where.query.prompt), vector)
    while sidecar.index.building:
        await asyncio.sleep(0.05)
        sidecar.index.search(first.scope, real[0], 1)
    assert sidecar.store.stats().entries == sidecar.store.stats().vectors == entries


async def serve(settings: Settings, real: Matrix, entries: int) -> None:
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    async with running(settings) as sidecar:
        await fill(sidecar, real, entries)
        # As `app.run` has it once it serves.
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 50)
        print(FILLED, flush=True)
        await stopped.wait()


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0], add_help=False, allow_abbrev=False)
    parser.add_argument("--entries", type=int, required=True)
    parser.add_argument("--vectors", type=Path, required=True)
    own, flags = parser.parse_known_args(arguments)
    logging.basicConfig(level=logging.WARNING)
    settings = build_settings(read_layers(flags, os.environ)[0])
    uvloop.run(serve(settings, np.load(own.vectors)[: own.entries], own.entries))


if __name__ == "__main__":
    main(sys.argv[1:])
