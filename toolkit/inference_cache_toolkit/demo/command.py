"""`inference-cache demo`: reads the command line, runs the demo, ends cleanly. Called by the console script."""

import argparse
import asyncio
import contextlib
import signal
import sys
from collections.abc import Sequence

import aiohttp

from inference_cache_contract.endpoints import ADMIN_PORT, SERVING_PORT
from inference_cache_toolkit.demo.asking import AnswerError
from inference_cache_toolkit.demo.conductor import run
from inference_cache_toolkit.demo.plan import Plan, settled
from inference_cache_toolkit.processes import StartError

STANDIN_PORT = 18000


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="inference-cache demo", description="Ask a few questions through the cache and show where answers come from."
    )
    made.add_argument(
        "--upstream", type=server_url, metavar="URL", help="a server with OpenAI's API, e.g. vLLM; default: a stand-in is started"
    )
    made.add_argument(
        "--replicas",
        type=int,
        default=1,
        choices=range(1, 5),
        metavar="N",
        help="sidecars; two or more share a Redis; default: 1",
    )
    made.add_argument("--once", action="store_true", help="end after the questions")
    made.add_argument("--port", type=int, default=SERVING_PORT, help="of the sidecar; default: %(default)s")
    made.add_argument("--admin-port", type=int, default=ADMIN_PORT, help="default: %(default)s")
    made.add_argument("--standin-port", type=int, default=STANDIN_PORT, help="default: %(default)s")
    return made


def server_url(text: str) -> str:
    """A server's address, also where somebody gave the one that clients use."""
    if not text.startswith(("http://", "https://")):
        raise argparse.ArgumentTypeError(f"{text!r} is no http:// address")
    return text.rstrip("/").removesuffix("/v1")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; the exit status."""
    asked = parser().parse_args(arguments)
    plan = settled(Plan(asked.port, asked.standin_port, asked.admin_port, asked.upstream, asked.once, asked.replicas))
    try:
        asyncio.run(_until_told(plan))
    except (StartError, AnswerError, aiohttp.ClientError) as error:
        print(f"inference-cache demo: {error}", file=sys.stderr)
        return 1
    return 0


async def _until_told(plan: Plan) -> None:
    """Run, and end by Ctrl-C or a supervisor's SIGTERM in the same orderly way."""
    task, loop = asyncio.current_task(), asyncio.get_running_loop()
    assert task is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await run(plan)
