"""Runs the demo: stand-in, sidecar, questions, table. Called by `command` with everything decided."""

import tempfile
from contextlib import AbstractAsyncContextManager, AsyncExitStack, nullcontext
from pathlib import Path

import aiohttp

from inference_cache_toolkit.demo import table
from inference_cache_toolkit.demo.asking import Outcome, ask, first_model
from inference_cache_toolkit.demo.plan import HOST, Plan, credential, say, until_told
from inference_cache_toolkit.demo.replicas import Upstream, several
from inference_cache_toolkit.demo.script import ANSWERS, STEPS
from inference_cache_toolkit.demo.sidecars import sidecar
from inference_cache_toolkit.standin.answers import Writer
from inference_cache_toolkit.standin.server import serving
from inference_cache_toolkit.standin.state import Pace, Standin

PACE = Pace(first_token=0.4, per_token=0.025)
"""Of a mid-sized model on a busy GPU."""


async def run(plan: Plan) -> None:
    """The whole demo. Raises StartError or AnswerError; its servers are gone afterwards in any case."""
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(_upstream(plan))
        model = await _served_model(upstream)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="inference-cache-")))
        if plan.replicas > 1:
            await several(stack, plan, Upstream(upstream, model), folder)
            return
        await stack.enter_async_context(sidecar(plan, upstream, folder / "sidecar.log"))
        session = await stack.enter_async_context(aiohttp.ClientSession(plan.url, headers=credential()))
        say(f"\nthe sidecar is {plan.url}, in front of {'a stand-in for vLLM at ' if plan.upstream is None else ''}{upstream}\n")
        await _ask_all(session, model)
        if not plan.once:
            say(table.hints(plan.url, plan.admin_url, model))
            await until_told()


def _upstream(plan: Plan) -> AbstractAsyncContextManager[str]:
    if plan.upstream is not None:
        return nullcontext(plan.upstream)
    return serving(Standin(models=("demo-model",), writer=Writer(20, known=ANSWERS), pace=PACE), HOST, plan.standin_port)


async def _served_model(upstream: str) -> str:
    """Asked of the server itself, so that a wrong address is noticed at once."""
    async with aiohttp.ClientSession(upstream, headers=credential()) as session:
        return await first_model(session)


async def _ask_all(session: aiohttp.ClientSession, model: str) -> None:
    outcomes: list[Outcome] = []
    say(table.heading())
    for step in STEPS:
        for outcome in await ask(session, step, model):
            outcomes.append(outcome)
            say(table.row(outcome))
    say(f"\n{table.summary(outcomes)}\n")
