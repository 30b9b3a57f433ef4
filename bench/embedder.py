"""What an embedding costs: one text, batches, through the worker; start and memory.

    python bench/embedder.py [--rounds N]

Each embedder runs in a process of its own, one after the other; compare within one run.
"""

import argparse
import asyncio
import importlib.util
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil

from inference_cache_sidecar.embedder.loading import load_embedder
from inference_cache_sidecar.embedder.protocol import Embedder
from inference_cache_sidecar.embedder.worker import EmbeddingWorker, WorkerLimits
from inference_cache_toolkit import calibration_texts, embedding_model

SHORT = "How do I reset my password?"
QUESTION = "How can I reset my password if I lost my phone?"
LONG = "The committee met again on Tuesday to discuss the budget of the library. " * 16

COLUMNS = {
    "load": "load s",
    "short": "9 tokens p50 ms",
    "question": "14 tokens p50 ms",
    "question_p99": "p99 ms",
    "cpu": "CPU ms",
    "long": "226 tokens p50 ms",
    "batch": "64 questions, texts/s",
    "worker": "worker p50 ms",
    "idle": "RSS idle MB",
    "after": "RSS after MB",
}


def _milliseconds(act: Callable[[], object], rounds: int) -> list[float]:
    took = []
    for _ in range(rounds):
        began = time.perf_counter()
        act()
        took.append((time.perf_counter() - began) * 1e3)
    return took


def _cpu_milliseconds(act: Callable[[], object], rounds: int) -> float:
    began = time.process_time()
    for _ in range(rounds):
        act()
    return (time.process_time() - began) / rounds * 1e3


async def _through_worker(embedder: Embedder, rounds: int) -> float:
    worker = EmbeddingWorker(embedder, WorkerLimits(deadline_seconds=5))
    worker.start()
    took = []
    for _ in range(rounds):
        began = time.perf_counter()
        await worker.embed(QUESTION)
        took.append((time.perf_counter() - began) * 1e3)
    await worker.close()
    return float(np.median(took))


def measure(folder: Path, rounds: int) -> dict[str, float]:
    """In this process."""
    began = time.perf_counter()
    embedder = load_embedder(embedding_model.NAME, folder)
    embedder.embed([QUESTION])
    load = time.perf_counter() - began
    idle = psutil.Process().memory_info().rss / 1e6
    texts = [calibration_texts.TEXTS[at % len(calibration_texts.TEXTS)] for at in range(64)]
    questions = _milliseconds(lambda: embedder.embed([QUESTION]), rounds)
    batches = _milliseconds(lambda: embedder.embed(texts), max(3, rounds // 50))
    return {
        "load": load,
        "short": float(np.median(_milliseconds(lambda: embedder.embed([SHORT]), rounds))),
        "question": float(np.median(questions)),
        "question_p99": float(np.percentile(questions, 99)),
        "cpu": _cpu_milliseconds(lambda: embedder.embed([QUESTION]), rounds),
        "long": float(np.median(_milliseconds(lambda: embedder.embed([LONG]), max(3, rounds // 20)))),
        "batch": len(texts) / (float(np.median(batches)) / 1e3),
        "worker": asyncio.run(_through_worker(embedder, rounds)),
        "idle": idle,
        "after": psutil.Process().memory_info().rss / 1e6,
    }


def _in_own_process(folder: Path, rounds: int) -> dict[str, float]:
    command = [sys.executable, __file__, "--measure", str(folder), "--rounds", str(rounds)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=300)
    measured: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return measured


def _print_row(name: str, measured: dict[str, float]) -> None:
    cells = [f"{measured[key]:{len(title)}.2f}" for key, title in COLUMNS.items()]
    print(f"{name:22}  " + "  ".join(cells), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=400, help="texts timed one by one (default: %(default)s)")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure, options.rounds)))
        return
    print(" " * 24 + "  ".join(COLUMNS.values()))
    with tempfile.TemporaryDirectory() as scratch:
        for precision in embedding_model.PRECISIONS:
            folder = Path(scratch) / precision
            embedding_model.make(folder, precision)
            _print_row(precision, _in_own_process(folder, options.rounds))
    if importlib.util.find_spec("sentence_transformers") is not None:
        _print_row("sentence-transformers", _in_own_process(embedding_model.source_folder(), options.rounds))


if __name__ == "__main__":
    main()
