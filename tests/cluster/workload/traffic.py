#!/usr/bin/env python3
"""Asks through a Service all the time, and prints what came of each question as a line of JSON. Runs inside a container.

A visit is one connection: it first asks the pod which model it serves, then puts questions to it. An answer begins with the model that
gave it, so that one of another model is known by sight.
"""

import argparse
import asyncio
import itertools
import json
import random
import re
import secrets
import sys
import time

import aiohttp

SUBJECTS = (
    "reset my password", "change my address", "cancel my order", "return a parcel", "pay by card", "find my invoice", "close my account",
    "book a seat", "change the language", "invite a friend", "export my data", "contact support", "update the app", "pair my watch",
    "print a label", "redeem a voucher", "read my statement", "block a caller", "share a folder", "restore a backup",
)  # fmt: skip
QUESTIONS = tuple(f"How do I {subject}?" for subject in SUBJECTS)
DATE = re.compile(r"[0-9]+\.[0-9]{3}")


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser()
    made.add_argument("url", help="of the Service")
    made.add_argument("--model", default="acme")
    made.add_argument("--visits-at-once", type=int, default=4)
    made.add_argument("--questions-a-visit", type=int, default=4)
    made.add_argument("--pause", type=float, default=0.1, help="seconds between two questions of a visit")
    made.add_argument("--fresh", type=float, default=0.0, metavar="SHARE", help="of questions that nobody asked before, in [0, 1]")
    made.add_argument("--seconds", type=float, default=600.0, help="ends by itself after so long")
    return made


class Visit:
    """Knows over which connection it talks: a new one may lead to another pod."""

    def __init__(self, asked: argparse.Namespace) -> None:
        self.asked = asked
        self.connections = 0
        self.model = ""
        self.known_for = -1
        tracing = aiohttp.TraceConfig()
        tracing.on_connection_create_end.append(self._connected)
        connector = aiohttp.TCPConnector(limit=1)
        self.session = aiohttp.ClientSession(connector=connector, trace_configs=[tracing], timeout=aiohttp.ClientTimeout(total=120))

    async def _connected(self, *_: object) -> None:
        self.connections += 1

    async def put(self, question: str, stream: bool) -> None:
        begun = time.time()
        outcome = {"at": begun, "stream": stream}
        try:
            outcome |= await self._put(question, stream)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError, KeyError) as error:
            outcome |= {"failed": f"{type(error).__name__}: {error}"}
        print(json.dumps(outcome | {"seconds": round(time.time() - begun, 4)}), flush=True)

    async def _put(self, question: str, stream: bool) -> dict[str, object]:
        if self.known_for != self.connections or not self.model:
            async with self.session.get(f"{self.asked.url}/v1/models") as answer:
                answer.raise_for_status()
                self.model = (await answer.json())["data"][0]["root"]
            self.known_for = self.connections
        body = {"model": self.asked.model, "stream": stream, "messages": [{"role": "user", "content": question}]}
        async with self.session.post(f"{self.asked.url}/v1/chat/completions", json=body) as answer:
            status = answer.headers.get("Cache-Status", "")
            if answer.status != 200:
                return {"failed": f"status {answer.status}: {(await answer.text())[:100]}"}
            text = streamed(await answer.read()) if stream else (await answer.json())["choices"][0]["message"]["content"]
        elsewhere = self.known_for != self.connections
        by, second, *_ = text.split(" ")
        made = float(second) if DATE.fullmatch(second) else None
        return {"hit": "; hit" in status, "cached": bool(status), "by": by, "made": made, "pod": None if elsewhere else self.model}


def streamed(body: bytes) -> str:
    """Raises ValueError for a stream without its end."""
    lines = [line.removeprefix("data: ") for line in body.decode().splitlines() if line.startswith("data: ")]
    if not lines or lines[-1] != "[DONE]":
        raise ValueError("the stream broke off")
    return "".join(json.loads(line)["choices"][0]["delta"].get("content") or "" for line in lines[:-1] if json.loads(line)["choices"])


def next_question(fresh: float) -> str:
    known = random.choice(QUESTIONS)
    return f"{known.removesuffix('?')} with code {secrets.token_hex(6)}?" if random.random() < fresh else known


async def visiting(asked: argparse.Namespace, until: float, turns: "itertools.count[int]") -> None:
    while time.time() < until:
        visit = Visit(asked)
        async with visit.session:
            for _ in range(asked.questions_a_visit):
                await visit.put(next_question(asked.fresh), stream=next(turns) % 2 == 0)
                await asyncio.sleep(asked.pause)


async def main() -> None:
    asked = parser().parse_args()
    turns = itertools.count()
    async with asyncio.TaskGroup() as group:
        for _ in range(asked.visits_at_once):
            group.create_task(visiting(asked, time.time() + asked.seconds, turns))


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
