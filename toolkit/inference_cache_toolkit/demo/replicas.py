"""The demo with several sidecars: what one stored, another answers; a flush at one is a flush at all. Called by `conductor`."""

import asyncio
import itertools
import os
import secrets
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import aiohttp

from inference_cache_contract.endpoints import ADMIN_TOKEN_VARIABLE, FLUSH, REDIS_URL_VARIABLE
from inference_cache_toolkit.demo import table
from inference_cache_toolkit.demo.asking import AnswerError, ask
from inference_cache_toolkit.demo.plan import Plan, credential, say, until_told
from inference_cache_toolkit.demo.script import SHARED, TOLD, Step
from inference_cache_toolkit.demo.sidecars import sidecar
from inference_cache_toolkit.redis_server import redis_server

VERSION: Final = "v1"
FOLLOWED_SECONDS: Final = 1.0
"""Another replica finds by similarity what one stored no later than this."""


@dataclass(frozen=True, slots=True)
class Upstream:
    url: str
    model: str


@dataclass(frozen=True, slots=True)
class Replica:
    name: str
    plan: Plan
    session: aiohttp.ClientSession


async def several(stack: AsyncExitStack, plan: Plan, upstream: Upstream, folder: Path) -> None:
    """Raises StartError or AnswerError; `stack` ends what it started."""
    redis = stack.enter_context(redis_server(folder / "redis"))
    token = os.environ.get(ADMIN_TOKEN_VARIABLE) or secrets.token_urlsafe(16)
    variables = {REDIS_URL_VARIABLE: redis.url, ADMIN_TOKEN_VARIABLE: token}
    replicas = []
    for number in range(plan.replicas):
        own, name = plan.of_replica(number), f"sidecar {number + 1}"
        flags = ("--model-version", VERSION, "--cache-name", "demo")
        await stack.enter_async_context(sidecar(own, upstream.url, folder / f"{name}.log", flags, variables))
        session = await stack.enter_async_context(aiohttp.ClientSession(own.url, headers=credential()))
        replicas.append(Replica(name, own, session))
    say(f"\n{len(replicas)} sidecars share {redis.url}: {', '.join(f'{one.name} is {one.plan.url}' for one in replicas)}\n")
    say(" " * 11 + table.heading())
    await _share(replicas, upstream.model)
    await _flush(replicas[0], token)
    for replica, step in zip(replicas, itertools.cycle(TOLD), strict=False):
        await _ask(replica, step, upstream.model)
    if not plan.once:
        say(f"\nTo flush again: {ADMIN_TOKEN_VARIABLE}={token} inference-cache flush --admin {plan.admin_url} --version {VERSION}\n")
        await until_told()


async def _share(replicas: list[Replica], model: str) -> None:
    for step in TOLD:
        await _ask(replicas[0], step, model)
    await asyncio.sleep(FOLLOWED_SECONDS)
    for replica in replicas[1:]:
        for step in SHARED:
            await _ask(replica, step, model)


async def _ask(replica: Replica, step: Step, model: str) -> None:
    for outcome in await ask(replica.session, step, model):
        say(f"{replica.name:<10} {table.row(outcome)}")


async def _flush(replica: Replica, token: str) -> None:
    """By the admin API of one, for all."""
    begun = time.perf_counter()
    headers = {"Authorization": f"Bearer {token}"}
    async with (
        aiohttp.ClientSession() as session,
        session.post(replica.plan.admin_url + FLUSH, json={"version": VERSION}, headers=headers) as answer,
    ):
        told = await answer.json()
        if answer.status != 200:
            raise AnswerError(f"the flush was answered with status {answer.status}")
    say(f"\nversion {VERSION} flushed at {replica.name}: {told['flushed']} entries in {table.duration(time.perf_counter() - begun)}\n")
