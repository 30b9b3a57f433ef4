"""Leases: who asks upstream for a flight that several replicas want.

A token is made for every lease and is part of its stream's name: a holder that was paused and lost its lease writes where nobody
reads. One task renews all leases of this replica, and looks whether anybody waits for them.
"""

import asyncio
import logging
import re
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from inference_cache_contract.keyspace import Keyspace
from inference_cache_sidecar.coalescing import scripts
from inference_cache_sidecar.coalescing.terms import Terms
from inference_cache_sidecar.errors import StoreError, StoreUnavailable, whereabouts
from inference_cache_sidecar.shared.hot import HotCalls
from inference_cache_sidecar.shared.link import Command

_VALUE: Final = re.compile(rb"([0-9a-f]{32})([oc])([+.])")
_log = logging.getLogger(__name__)


@dataclass(eq=False, slots=True)
class Lease:
    """Held by this replica, as far as it knows. Times are monotonic seconds."""

    key: bytes
    stream: bytes
    token: str
    until: float
    """Others may have it from then on."""
    ended_lately: bool
    """A flight of this key has just ended: its answer may be stored."""
    waited_for: float = 0.0
    """When others were last seen to wait."""
    writing: bool = False
    """There is a stream to be kept alive."""
    stirred: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when anything has changed."""


@dataclass(frozen=True, slots=True)
class Others:
    """The lease of another flight, most likely another replica's."""

    key: bytes
    stream: bytes
    token: str
    may_join: bool


class Leases:
    """`close` forgets them all; what is not released runs out."""

    def __init__(self, hot: HotCalls, keys: Keyspace, terms: Terms, clock: Callable[[], float] = time.monotonic) -> None:
        self._hot = hot
        self._keys = keys
        self._terms = terms
        self._clock = clock
        self._leases: set[Lease] = set()
        self._keeping: asyncio.Task[None] | None = None
        self._returning: set[asyncio.Task[None]] = set()

    def holds(self, lease: Lease) -> bool:
        return lease in self._leases and self._clock() < lease.until

    def is_waited_for(self, lease: Lease) -> bool:
        """Somebody was there within two renewals and a bit."""
        return lease.waited_for > 0 and self._clock() - lease.waited_for < 2.5 * self._terms.renew_seconds

    async def acquire(self, flight: bytes) -> Lease | Others:
        """Raises StoreError. A lease that the store was too late with counts as had: the next look says whether it is."""
        key, token, begun = self._keys.flight(flight), secrets.token_hex(scripts.TOKEN_LENGTH // 2), self._clock()
        try:
            value = await self._script(scripts.ACQUIRE, key, token, _ms(self._terms.lease_seconds))
        except StoreUnavailable as error:
            if not isinstance(error.__cause__, TimeoutError):
                raise
            value = b""
        except asyncio.CancelledError:
            # It may be had all the same: nobody is to wait for a flight that never was.
            self._give_back(Lease(key, b"", token, begun, False))
            raise
        if value in (b"", b"-"):
            return self._kept(Lease(key, self._stream(flight, token), token, begun + self._terms.lease_seconds, value == b"-"))
        match = _VALUE.fullmatch(value) if isinstance(value, bytes) else None
        holder = match[1].decode() if match else ""
        return Others(key, self._stream(flight, holder), holder, match is not None and match[2] == b"o")

    async def wait(self, others: Others) -> bool:
        """Say that somebody here still waits; False if the holder has gone. Raises StoreError."""
        return bool(await self._script(scripts.WAIT, others.key, others.token))

    async def close_to_others(self, lease: Lease) -> None:
        """Nobody who has not joined may any more. Raises StoreError."""
        await self._script(scripts.CLOSE, lease.key, lease.token)

    async def release(self, lease: Lease, *, anyhow: bool) -> bool:
        """False, and still held, if somebody waits and it is not to be released anyhow. Raises StoreError."""
        given = await self._script(scripts.RELEASE, lease.key, lease.token, _ms(self._terms.ended_seconds), "1" if anyhow else "0")
        if given:
            self.forget(lease)
        return bool(given)

    def forget(self, lease: Lease) -> None:
        """Renew it no more."""
        self._leases.discard(lease)

    async def close(self) -> None:
        self._leases.clear()
        tasks = [*self._returning, *([self._keeping] if self._keeping else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _give_back(self, lease: Lease) -> None:
        async def give_back() -> None:
            with suppress(StoreError):
                await self.release(lease, anyhow=True)

        task = asyncio.create_task(give_back())
        self._returning.add(task)
        task.add_done_callback(self._returning.discard)

    def _kept(self, lease: Lease) -> Lease:
        self._leases.add(lease)
        if self._keeping is None or self._keeping.done():
            self._keeping = asyncio.create_task(self._keep())
            self._keeping.add_done_callback(self._kept_all)
        return lease

    def _kept_all(self, task: asyncio.Task[None]) -> None:
        if self._keeping is task:
            self._keeping = None
        if not task.cancelled() and (failure := task.exception()) is not None:
            _log.error("leases are not renewed: %s", whereabouts(failure))

    async def _keep(self) -> None:
        while self._leases:
            await asyncio.sleep(self._terms.look_seconds)
            now = self._clock()
            renewed_before = now + self._terms.lease_seconds - self._terms.renew_seconds
            due = [lease for lease in self._leases if lease.until <= renewed_before]
            unasked = [lease for lease in self._leases if lease.until > renewed_before and not self.is_waited_for(lease)]
            await asyncio.gather(self._look(unasked), *map(self._renew, due))

    async def _look(self, leases: list[Lease]) -> None:
        if not leases:
            return
        begun = self._clock()
        try:
            values = await self._hot.get_many([lease.key for lease in leases])
        except StoreError:
            return
        for lease, value in zip(leases, values, strict=True):
            self._learn(lease, value, begun)

    async def _renew(self, lease: Lease) -> None:
        begun, ms = self._clock(), _ms(self._terms.lease_seconds)
        commands: list[tuple[bytes, Command]] = [(lease.key, (b"EVAL", scripts.RENEW, 1, lease.key, lease.token, ms))]
        if lease.writing:
            commands.append((lease.stream, (b"PEXPIRE", lease.stream, _ms(self._terms.stream_seconds))))
        try:
            value, *_ = await self._hot.run(commands)
        except StoreError:
            if begun >= lease.until:
                self._lose(lease)
            return
        if self._learn(lease, value, begun):
            lease.until = begun + self._terms.lease_seconds

    def _learn(self, lease: Lease, value: object, now: float) -> bool:
        """False if it is another's, or nobody's."""
        match = _VALUE.fullmatch(value) if isinstance(value, bytes) else None
        if match is None or match[1].decode() != lease.token:
            self._lose(lease)
            return False
        if match[3] == b"+":
            lease.waited_for = now
            lease.stirred.set()
        return True

    def _lose(self, lease: Lease) -> None:
        self.forget(lease)
        lease.stirred.set()

    def _stream(self, flight: bytes, token: str) -> bytes:
        return self._keys.flight_stream(flight, token)

    async def _script(self, text: str, key: bytes, *arguments: str | int) -> object:
        (reply,) = await self._hot.run([(key, (b"EVAL", text, 1, key, *arguments))])
        return reply


def _ms(seconds: float) -> int:
    return max(1, int(seconds * 1000))
