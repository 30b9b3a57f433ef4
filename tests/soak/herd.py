"""A herd at full length: 100 callers ask the same while 5 s of answer are generated. Prints what the callers saw.

    herd.py [--callers 100] [--seconds 5] [--rounds 3]

Every caller has a connection of its own; sidecar and stand-in run in processes of their own.
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

import uvloop
from soak import Sidecar, say, started
from traffic import chat

TOKENS = 16
"""Of a stand-in's answer; the first comes after two fifths of the time."""


@dataclass(frozen=True)
class Heard:
    first: float
    last: float
    joined: bool
    whole: bool


async def listen(port: int, request: bytes) -> Heard:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    body = await reader.read(1 << 16)
    first = time.monotonic()
    while not body.endswith(b"0\r\n\r\n"):
        body += await reader.read(1 << 16)
    writer.close()
    return Heard(first, time.monotonic(), b"collapsed" in head, b"data: [DONE]" in body)


async def herd(sidecar: Sidecar, callers: int, number: int) -> dict[str, object]:
    """One round: all ask at once."""
    request = chat(f"What is a herd of {number}?", stream=True)
    began = time.monotonic()
    heard = await asyncio.gather(*(listen(sidecar.port, request) for _ in range(callers)))
    leader = next(each for each in heard if not each.joined)
    lags = sorted(each.first - leader.first for each in heard if each.joined)
    return {
        "callers": callers,
        "answered_whole": sum(each.whole for each in heard),
        "leader_first_token_s": round(leader.first - began, 3),
        "last_caller_done_s": round(max(each.last for each in heard) - began, 3),
        "followers_behind_leader_ms": {"median": round(statistics.median(lags) * 1000, 1), "max": round(lags[-1] * 1000, 1)},
    }


def calls(upstream: str) -> int:
    with urlopen(f"{upstream}/standin/calls", timeout=5) as answer:
        return int(json.load(answer)["calls"].get("/v1/chat/completions", 0))


def main() -> int:
    parser = argparse.ArgumentParser(description="Many equal questions during one long answer.")
    parser.add_argument("--callers", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=5.0, help="of one generation; default: %(default)s")
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    first, each = asked.seconds * 0.4, asked.seconds * 0.6 / TOKENS
    pace = (f"{round(first * 1000)}ms", f"{round(each * 1000)}ms")
    with tempfile.TemporaryDirectory() as folder, started("64Mi", Path(folder), pace) as sidecar:
        for number in range(asked.rounds):
            before = calls(sidecar.upstream)
            told = uvloop.run(herd(sidecar, asked.callers, number))
            say(json.dumps({"upstream_calls": calls(sidecar.upstream) - before, **told}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
