"""Runs the demo: stand-in, sidecar, questions, table. Called by `command` with everything decided."""

import asyncio
import os
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from inference_cache_contract.endpoints import READYZ
from inference_cache_toolkit.demo import table
from inference_cache_toolkit.demo.asking import Outcome, ask, first_model
from inference_cache_toolkit.demo.script import ANSWERS, STEPS
from inference_cache_toolkit.processes import StartError, answers, free_port, start, stop, wait_for
from inference_cache_toolkit.standin.answers import Writer
from inference_cache_toolkit.standin.server import serving
from inference_cache_toolkit.standin.state import Pace, Standin

HOST = "127.0.0.1"
READY_SECONDS = 30.0
PACE = Pace(first_token=0.4, per_token=0.025)
"""Of a mid-sized model on a busy GPU."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Where the demo's servers listen, and how long it stays."""

    port: int
    standin_port: int
    admin_port: int
    upstream: str | None
    """A real server; None starts the stand-in."""
    once: bool
    """End after the questions."""

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    @property
    def admin_url(self) -> str:
        return f"http://{HOST}:{self.admin_port}"


def settled(plan: Plan) -> Plan:
    """The same plan on ports that are free; says which are others than wanted."""
    ports = {name: getattr(plan, name) for name in ("port", "standin_port", "admin_port")}
    free = {name: free_port(port, HOST) for name, port in ports.items()}
    for name, port in ports.items():
        if free[name] != port:
            say(f"port {port} is taken, {free[name]} is used in its place")
    return Plan(upstream=plan.upstream, once=plan.once, **free)


def say(text: str) -> None:
    print(text, flush=True)


async def run(plan: Plan) -> None:
    """The whole demo. Raises StartError or AnswerError; its servers are gone afterwards in any case."""
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(_upstream(plan))
        model = await _served_model(upstream)
        log = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="inference-cache-"))) / "sidecar.log"
        await stack.enter_async_context(_sidecar(plan, upstream, log))
        session = await stack.enter_async_context(aiohttp.ClientSession(plan.url, headers=_credential()))
        say(f"\nthe sidecar is {plan.url}, in front of {'a stand-in for vLLM at ' if plan.upstream is None else ''}{upstream}\n")
        await _ask_all(session, model)
        if not plan.once:
            say(table.hints(plan.url, plan.admin_url, model))
            say("It stays until you press Ctrl-C.")
            await asyncio.Event().wait()


def _upstream(plan: Plan) -> AbstractAsyncContextManager[str]:
    if plan.upstream is not None:
        return nullcontext(plan.upstream)
    return serving(Standin(models=("demo-model",), writer=Writer(20, known=ANSWERS), pace=PACE), HOST, plan.standin_port)


def _credential() -> dict[str, str]:
    """For a server of one's own that asks for a key."""
    key = os.environ.get("OPENAI_API_KEY")
    return {"Authorization": f"Bearer {key}"} if key else {}


async def _served_model(upstream: str) -> str:
    """Asked of the server itself, so that a wrong address is noticed at once."""
    async with aiohttp.ClientSession(upstream, headers=_credential()) as session:
        return await first_model(session)


@asynccontextmanager
async def _sidecar(plan: Plan, upstream: str, log: Path) -> AsyncIterator[None]:
    """The real command in a process of its own, ready."""
    command = [sys.executable, "-m", "inference_cache_toolkit", "sidecar", "--upstream", upstream]
    command += ["--listen", f"{HOST}:{plan.port}", "--admin", f"{HOST}:{plan.admin_port}"]
    child = start("the sidecar", command, log, os.environ)
    try:
        await asyncio.to_thread(wait_for, child, lambda: answers(plan.admin_url + READYZ), READY_SECONDS)
        yield
        if child.process.poll() is not None:
            raise StartError(f"the sidecar ended by itself:\n{child.tail()}")
    finally:
        stop(child)


async def _ask_all(session: aiohttp.ClientSession, model: str) -> None:
    outcomes: list[Outcome] = []
    say(table.heading())
    for step in STEPS:
        for outcome in await ask(session, step, model):
            outcomes.append(outcome)
            say(table.row(outcome))
    say(f"\n{table.summary(outcomes)}\n")
