"""Talks to a sidecar's admin port: one order, and meanwhile how far its purge is. Called by `command`."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
import orjson

from inference_cache_contract.endpoints import FLUSH, STATUS

POLL_SECONDS: Final = 0.5
ANSWER_SECONDS: Final = 10.0
"""For everything but the flush itself, which takes as long as it takes."""
SILENT_SECONDS: Final = 30.0
"""A sidecar that does not tell its status for so long is given up."""


class FlushError(Exception):
    """The order did not come to an answer; the message is for a person, on one line."""


@dataclass(frozen=True, slots=True)
class Order:
    admin_url: str
    token: str
    body: Mapping[str, str | bool]


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    document: Mapping[str, Any]
    """JSON as it came."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the sidecar's latest purge is, which may be that of an earlier flush."""

    name: str
    scanned: int
    deleted: int


Show = Callable[[Progress | None], None]


async def order(what: Order, show: Show) -> Reply:
    """The answer to it; `show` is called now and then until it comes. Raises FlushError."""
    async with _session(what.admin_url) as session:
        ordering = asyncio.create_task(_post(session, what))
        try:
            await _watch(session, what.admin_url, ordering, show)
            return await ordering
        finally:
            ordering.cancel()
            await asyncio.gather(ordering, return_exceptions=True)


async def told(admin_url: str) -> Mapping[str, Any]:
    """The sidecar's status. Raises FlushError."""
    async with _session(admin_url) as session:
        return await _status(session, admin_url)


@asynccontextmanager
async def _session(url: str) -> AsyncIterator[aiohttp.ClientSession]:
    """Raises FlushError for what goes wrong with the connection."""
    try:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ANSWER_SECONDS)) as session:
            yield session
    except TimeoutError as error:
        raise FlushError(f"{url} does not answer in time") from error
    except aiohttp.InvalidURL as error:
        raise FlushError(f"{url} is no address") from error
    except aiohttp.ClientConnectorError as error:
        raise FlushError(f"{url} cannot be reached: {_reason(error)}") from error
    except (aiohttp.ClientError, OSError) as error:
        raise FlushError(f"{url} broke off: {error or type(error).__name__}") from error


def _reason(error: aiohttp.ClientConnectorError) -> str:
    cause = error.__cause__
    number = cause.errno if isinstance(cause, OSError) else None
    return os.strerror(number) if number is not None and number > 0 else str(cause or error)


async def _post(session: aiohttp.ClientSession, what: Order) -> Reply:
    endless = aiohttp.ClientTimeout(total=None, sock_connect=ANSWER_SECONDS)
    headers = {"Authorization": f"Bearer {what.token}"}
    async with session.post(
        what.admin_url + FLUSH, json=dict(what.body), headers=headers, timeout=endless, allow_redirects=False
    ) as answer:
        return Reply(answer.status, _document(answer, await answer.read()))


async def _watch(session: aiohttp.ClientSession, url: str, ordering: "asyncio.Task[Reply]", show: Show) -> None:
    """Until there is an answer. Raises FlushError if the sidecar falls silent."""
    heard = time.monotonic()
    while not (await asyncio.wait({ordering}, timeout=POLL_SECONDS))[0]:
        try:
            status = await _status(session, url)
        except (aiohttp.ClientError, OSError, FlushError) as error:
            if time.monotonic() > heard + SILENT_SECONDS:
                raise FlushError(f"the sidecar has not told its status for {SILENT_SECONDS:g} s") from error
            continue
        heard = time.monotonic()
        show(_progress(status))


async def _status(session: aiohttp.ClientSession, url: str) -> Mapping[str, Any]:
    async with session.get(url + STATUS, allow_redirects=False) as answer:
        if answer.status != 200:
            raise FlushError(f"{answer.url} answered with status {answer.status}: is this a sidecar's admin port?")
        return _document(answer, await answer.read())


def _document(answer: aiohttp.ClientResponse, body: bytes) -> Mapping[str, Any]:
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        document = None
    if not isinstance(document, dict):
        raise FlushError(f"{answer.url} answered with status {answer.status} and no JSON: is this a sidecar's admin port?")
    return document


def _progress(status: Mapping[str, Any]) -> Progress | None:
    """Of a purge that goes on; None where there is none, or the sidecar does not tell."""
    purge = status.get("purge")
    if not isinstance(purge, dict) or purge.get("done"):
        return None
    return Progress(str(purge.get("name", "")), int(purge.get("scanned", 0)), int(purge.get("deleted", 0)))
