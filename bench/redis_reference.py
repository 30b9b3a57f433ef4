"""What one GET of a kilobyte costs this machine: by redis-py, and by the sidecar's own pipelined connection, 32 at a time.

    python -m bench.redis_reference URL SECONDS

Prints one line of JSON: calls a second and CPU microseconds a call for each. Called by `bench.shared` as a process of its own.
"""

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Final

import uvloop

from inference_cache_sidecar.shared.address import parse_redis_url
from inference_cache_sidecar.shared.hot import HotCalls
from inference_cache_sidecar.shared.servers import Servers

CLIENTS: Final = 32
KEY: Final = b"bench:value"


async def loop(get: Callable[[bytes], Awaitable[object]], seconds: float) -> dict[str, float]:
    done = 0

    async def client(until: float) -> None:
        nonlocal done
        while time.monotonic() < until:
            assert await get(KEY) is not None
            done += 1

    begun, spent = time.monotonic(), time.process_time()
    await asyncio.gather(*(client(begun + seconds) for _ in range(CLIENTS)))
    return {"per_second": done / (time.monotonic() - begun), "cpu_us": (time.process_time() - spent) / done * 1e6}


async def measure(url: str, seconds: float) -> dict[str, dict[str, float]]:
    servers = Servers(parse_redis_url(url))
    hot = HotCalls(servers, 5.0)
    await servers.client.set(KEY, b"x" * 1000)
    try:
        return {"redis-py": await loop(servers.client.get, seconds), "own connection": await loop(hot.get, seconds)}
    finally:
        await hot.close()
        await servers.close()


if __name__ == "__main__":
    print(json.dumps(uvloop.run(measure(sys.argv[1], float(sys.argv[2])))))
