"""Events from Redis pub/sub. Every replica hears each of them; what is published while one is not connected, it never hears.

Nothing is acknowledged, so nothing is tried again either: a flush that the store did not take is in force here, and told to the others
as soon as the store answers.
"""

import asyncio
import logging
import random
import time
from collections.abc import Mapping
from typing import Any, Final

from redis.asyncio import Redis

from inference_cache_sidecar.errors import StoreError, StoreUnavailable, whereabouts
from inference_cache_sidecar.events.handling import EventHandler
from inference_cache_sidecar.events.retrying import Backoff
from inference_cache_sidecar.shared.calls import SLOW_SECONDS, translated
from inference_cache_sidecar.shared.servers import Servers
from inference_cache_sidecar.tasks import ended

SOURCE: Final = "pubsub"
"""The label of its counts."""
HELD: Final = 1024
"""Events that are handled at once; while they are, the server keeps what follows, as far as its limit for clients goes."""
SILENCE_SECONDS: Final = 5.0
"""After which the server is asked for a sign; without one for as long again, another connection is made."""
POLL_SECONDS: Final = 1.0
LONGEST_WAIT_SECONDS: Final = 2.0
"""Between two attempts to connect: meanwhile events are lost."""
_log = logging.getLogger(__name__)


class PubsubEvents:
    def __init__(self, servers: Servers, channels: Mapping[str, str], handler: EventHandler) -> None:
        """`channels`: what each is about, by the name it has in the store."""
        self._servers = servers
        self._channels = {name.encode(): channel for name, channel in channels.items()}
        self._handler = handler
        self._counts = handler.counts
        self._reconnecting = Backoff(longest_seconds=LONGEST_WAIT_SECONDS)
        self._handling: set[asyncio.Task[Any]] = set()

    async def run(self) -> None:
        """Listen until cancelled, whatever happens to the store. A task that `building` owns."""
        try:
            while True:
                try:
                    with translated():
                        await self._listen()
                except Exception as error:
                    self._counts.interruptions.add(SOURCE)
                    seconds = self._reconnecting.next_seconds()
                    told = str(error) if isinstance(error, StoreError) else whereabouts(error)
                    _log.warning("events by pub/sub are interrupted, and what is published is lost (%s): next try in %.1f s", told, seconds)
                    await asyncio.sleep(seconds)
        finally:
            await ended(self._handling)

    async def _listen(self) -> None:
        async with asyncio.timeout(SLOW_SECONDS):
            client = await self._client()
        async with client.pubsub(ignore_subscribe_messages=True) as pubsub:
            async with asyncio.timeout(SLOW_SECONDS):
                await pubsub.subscribe(*self._channels)
            _log.info("events are heard by pub/sub")
            await self._hear(pubsub)

    async def _client(self) -> Redis:
        """Of any server: in a Cluster each passes on what is published at another."""
        return random.choice(await self._servers.masters())  # noqa: S311  no secret

    async def _hear(self, pubsub: Any) -> None:
        heard, asked = time.monotonic(), False
        while True:
            message = await pubsub.get_message(timeout=POLL_SECONDS)
            silence = time.monotonic() - heard
            if message is not None:
                heard, asked = time.monotonic(), False
                self._reconnecting.reset()
                await self._take(message)
            elif silence > 2 * SILENCE_SECONDS:
                raise StoreUnavailable("the shared store gives no sign")
            elif silence > SILENCE_SECONDS and not asked:
                asked = True
                await pubsub.ping()

    async def _take(self, message: Mapping[str, Any]) -> None:
        channel = self._channels.get(message["channel"] or b"") if message["type"] == "message" else None
        if channel is None:
            return
        task = asyncio.create_task(self._handler.handle(channel, message["data"]))
        self._handling.add(task)
        task.add_done_callback(self._handling.discard)
        if len(self._handling) >= HELD:
            await asyncio.wait(self._handling, return_when=asyncio.FIRST_COMPLETED)
