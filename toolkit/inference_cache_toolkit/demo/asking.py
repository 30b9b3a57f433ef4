"""Asks one question through the sidecar and notes how it was answered. Called by `conductor`."""

import asyncio
import time
from dataclasses import dataclass

import aiohttp

from inference_cache_toolkit.cache_status import CacheStatus, read_cache_status
from inference_cache_toolkit.demo.script import Step


class AnswerError(Exception):
    """The answer was not what a client can use; the message says what came."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one caller was answered."""

    step: Step
    status: CacheStatus
    seconds: float
    """Until the last byte."""

    @property
    def asked_upstream(self) -> bool:
        return not self.status.hit and not self.status.collapsed


async def ask(session: aiohttp.ClientSession, step: Step, model: str) -> list[Outcome]:
    """The outcome of every caller of this step."""
    return list(await asyncio.gather(*(_ask_once(session, step, model) for _ in range(step.callers))))


async def _ask_once(session: aiohttp.ClientSession, step: Step, model: str) -> Outcome:
    begin = time.perf_counter()
    async with session.post("/v1/chat/completions", json=step.body(model)) as answer:
        body = await answer.read()
        seconds = time.perf_counter() - begin
        status = read_cache_status(answer.headers.get("Cache-Status"))
        if answer.status != 200 or status is None:
            raise AnswerError(f"{step.question!r} was answered with status {answer.status}: {body[:300].decode(errors='replace')}")
    return Outcome(step, status, seconds)


async def first_model(session: aiohttp.ClientSession) -> str:
    """The name of the first model that upstream serves."""
    async with session.get("/v1/models") as answer:
        if answer.status != 200:
            raise AnswerError(f"/v1/models was answered with status {answer.status}")
        return str((await answer.json())["data"][0]["id"])
