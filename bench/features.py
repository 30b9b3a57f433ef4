"""How fast: 100 rows of features out of the cache, and from the Feast server asked directly, in one run.

    python -m bench.features [--rounds 5] [--requests 300]

All answer the same requests, one client, in turn: each 100 rows drawn from 500 pairs of a user and an item, all of them cached.
`memory`: the replica has seen them lately; `Redis`: every row comes from a real redis-server. Caches and Feast share one core, which only
one of them uses at a time; redis-server and the client have the other. Ends with status 1 if an answer differed.
"""

import argparse
import json
import random
import socket
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Final
from urllib.parse import urlsplit

from tests.services.feast_server import feast_server

from bench.servers import cores
from inference_cache_toolkit.processes import answers, free_port, start, stop, wait_for
from inference_cache_toolkit.redis_server import redis_server

USERS: Final = 2000
ITEMS: Final = 100
ROWS: Final = 100
START_SECONDS: Final = 60.0
STATS: Final = ["user_stats:age", "user_stats:score", "user_stats:city", "user_stats:clicks"]
QUESTIONS: Final = {
    "4 features of one view": (STATS, ("user_id",)),
    "1 feature": (STATS[:1], ("user_id",)),
    "an embedding and its title": (["item_embeddings:embedding", "item_embeddings:title"], ("item_id",)),
    "6 features of two views": ([*STATS, "item_embeddings:embedding", "item_embeddings:title"], ("user_id", "item_id")),
}
PAIRS: Final = 500
"""Of user and item that are asked for together."""


class Client:
    """One connection, one request at a time; nothing that would cost more than the request."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._host = f"{parts.hostname}:{parts.port}"
        self._socket = socket.create_connection((parts.hostname, parts.port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, body: bytes) -> tuple[float, bytes, bytes]:
        """Seconds, head and body of the answer."""
        head = f"POST /get-online-features HTTP/1.1\r\nHost: {self._host}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
        began = time.perf_counter()
        self._socket.sendall(head.encode() + b"\r\n\r\n" + body)
        received = b""
        while b"\r\n\r\n" not in received:
            received += self._more()
        answer_head, _, answer = received.partition(b"\r\n\r\n")
        length = int(answer_head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
        parts, size = [answer], len(answer)
        while size < length:
            parts.append(self._more())
            size += len(parts[-1])
        return time.perf_counter() - began, answer_head, b"".join(parts)

    def _more(self) -> bytes:
        data = self._socket.recv(2**18)
        if not data:
            raise ConnectionError("the server closed the connection")
        return data


@dataclass
class Seen:
    seconds: list[float] = field(default_factory=list)
    p99: list[float] = field(default_factory=list)

    def add(self, window: list[float]) -> None:
        window.sort()
        self.seconds.append(median(window))
        self.p99.append(window[int(len(window) * 0.99)])

    @property
    def p50_ms(self) -> float:
        return median(self.seconds) * 1000

    @property
    def p99_ms(self) -> float:
        return median(self.p99) * 1000


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=300, help="to the cache, each round; a tenth of it to Feast")
    options = parser.parse_args()
    with ExitStack() as stack:
        near, far, feast = _servers(stack)
        right = True
        print(f"{ROWS} cached rows, ms{'':22}{'memory':>10}{'p99':>7}{'Redis':>9}{'p99':>7}{'Feast':>9}{'p99':>7}")
        for name, (features, keys) in QUESTIONS.items():
            right = _measure(name, (near, far), feast, _bodies(features, keys, options.requests), options.rounds) and right
    return 0 if right else 1


def _servers(stack: ExitStack) -> tuple[Client, Client, Client]:
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="features-bench-")))
    measured, beside = cores()
    feast = stack.enter_context(feast_server(folder / "feast", users=USERS, via=tuple(measured)))
    redis = stack.enter_context(redis_server(folder / "redis", via=beside))
    near, far = (_cache(stack, folder, measured, feast, redis.url, extra) for extra in ((), ("--no-near",)))
    return Client(near), Client(far), Client(feast)


def _cache(stack: ExitStack, folder: Path, measured: list[str], feast: str, redis: str, extra: tuple[str, ...]) -> str:
    port = free_port()
    command = [*measured, sys.executable, "-m", "bench.feature_cache", feast, redis, str(port), *extra]
    child = start("feature cache", command, folder / f"cache-{port}.log")
    stack.callback(stop, child)
    url = f"http://127.0.0.1:{port}"
    wait_for(child, lambda: answers(f"{url}/health"), START_SECONDS)
    return url


def _bodies(features: list[str], keys: tuple[str, ...], count: int) -> list[bytes]:
    drawn = random.Random(1)
    pairs = [(drawn.randrange(USERS), f"i{drawn.randrange(ITEMS)}") for _ in range(PAIRS)]
    bodies = []
    for _ in range(count):
        rows = drawn.sample(pairs, ROWS)
        columns: dict[str, list[Any]] = {"user_id": [user for user, _ in rows], "item_id": [item for _, item in rows]}
        bodies.append(json.dumps({"features": features, "entities": {key: columns[key] for key in keys}}).encode())
    return bodies


def _measure(name: str, caches: tuple[Client, Client], feast: Client, bodies: list[bytes], rounds: int) -> bool:
    for cache in caches:
        for body in bodies:
            cache.ask(body)
    few = bodies[: max(1, len(bodies) // 10)]
    seen = [Seen(), Seen(), Seen()]
    for _ in range(rounds):
        for client, asked, column in zip((*caches, feast), (bodies, bodies, few), seen, strict=True):
            column.add([client.ask(body)[0] for body in asked])
    right = all(_is_right(cache, feast, body) for cache in caches for body in few)
    figures = "".join(f"{column.p50_ms:9.2f}{column.p99_ms:7.2f}" for column in seen)
    ratios = ", ".join(f"{seen[2].p50_ms / column.p50_ms:.1f}" for column in seen[:2])
    print(f"{name:40} {figures}  Feast takes {ratios} x{'' if right else '  (ANSWERS DIFFER)'}", flush=True)
    return right


def _is_right(cache: Client, feast: Client, body: bytes) -> bool:
    _, head, answer = cache.ask(body)
    return b"inference-cache; hit" in head and _by_name(answer) == _by_name(feast.ask(body)[2])


def _by_name(answer: bytes) -> dict[str, Any]:
    """Feast orders the features of a view anew at every start."""
    document = json.loads(answer)
    return dict(zip(document["metadata"]["feature_names"], document["results"], strict=True))


if __name__ == "__main__":
    sys.exit(main())
