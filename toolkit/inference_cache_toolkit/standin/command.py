"""`inference-cache standin`: the stand-in as a process of its own. Called by the console script."""

import argparse
import asyncio
import contextlib
from collections.abc import Sequence
from pathlib import Path

import orjson
import uvloop

from inference_cache_contract.quantity import parse_duration
from inference_cache_toolkit.standin.answers import DEFAULT_TOKENS, Writer
from inference_cache_toolkit.standin.faults import Fault
from inference_cache_toolkit.standin.server import serving
from inference_cache_toolkit.standin.state import Pace, Standin


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="inference-cache standin", description="A stand-in for vLLM, to try the cache without a model.")
    made.add_argument("--listen", default="127.0.0.1:18000", metavar="HOST:PORT", help="default: %(default)s; port 0 takes a free one")
    made.add_argument(
        "--first-token", type=parse_duration, default=0.3, metavar="TIME", help="time to the first token, e.g. 300ms (the default)"
    )
    made.add_argument("--per-token", type=parse_duration, default=0.02, metavar="TIME", help="time between two tokens; default: 20ms")
    made.add_argument("--tokens", type=int, default=DEFAULT_TOKENS, help="length of an answer in tokens; default: %(default)s")
    made.add_argument("--model", action="append", metavar="NAME", help="a served model name, may be repeated; default: tiny")
    made.add_argument("--root", default="/models/tiny", help="`root` of the model cards: another root gives other answers")
    made.add_argument("--api-key", help="ask for this bearer token on /v1, as vLLM does")
    made.add_argument("--answers", type=Path, metavar="FILE", help="JSON object: last user text to the answer to give word for word")
    made.add_argument("--fault", type=Fault, choices=list(Fault), metavar="NAME", help=", ".join(fault.value for fault in Fault))
    return made


def built(asked: argparse.Namespace) -> Standin:
    known = orjson.loads(asked.answers.read_bytes()) if asked.answers else {}
    return Standin(
        models=tuple(asked.model or ["tiny"]),
        root=asked.root,
        writer=Writer(asked.tokens, known=known),
        pace=Pace(asked.first_token, asked.per_token),
        api_key=asked.api_key,
        fault=asked.fault,
    )


async def _run(standin: Standin, host: str, port: int) -> None:
    async with serving(standin, host, port) as url:
        print(f"stand-in for vLLM on {url}", flush=True)
        await asyncio.Event().wait()


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until interrupted; the exit status."""
    asked = parser().parse_args(arguments)
    host, _, port = asked.listen.rpartition(":")
    with contextlib.suppress(KeyboardInterrupt):
        uvloop.run(_run(built(asked), host, int(port)))
    return 0
