"""Epochs that all replicas of a cache share: durable in the store, confirmed within a lease, safe against what the store may lose.

Stores, the keeper and the feature cache read them, flushes raise them. How it stays safe:

- Every confirmation first registers this replica, then reads the stream of raises. Whoever raises an epoch writes it, announces it with
  its value in the stream, then waits until every replica registered lately knows of it, or its lease has run out: a replica that
  registers later reads the stream after the raise. A raise that is lost meanwhile is noticed by who made it, and made good.
- A value is known only while the last confirmation is younger than the lease, by a clock that goes on while the process stands still.
  When a lease had run out, all that is held is read again: who waited for this replica waits no longer.
- A key that is missing (evicted, expired) is made with the current time before use, so that it never equals an older value. A key that
  is behind what is held or was announced has lost a write, and is raised.
- If a raise that was known here is gone from the stream (an older snapshot, a failover that lost writes), flushes may be lost that no
  key tells of: the cache's own epoch is raised. A replica that finds another server than before holds still for a while, so that those
  who know more come first.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from inference_cache_contract.epochs import CACHE, Stamp
from inference_cache_contract.keyspace import Keyspace, name_digest
from inference_cache_sidecar.errors import StoreError, StoreUnavailable
from inference_cache_sidecar.shared.calls import SLOW_SECONDS, Calls
from inference_cache_sidecar.shared.epoch_keys import FLEETING, EpochKeys, parts
from inference_cache_sidecar.shared.hot import HotCalls
from inference_cache_sidecar.shared.raises import Raises, Read, ordinal
from inference_cache_sidecar.shared.roll import Roll
from inference_cache_sidecar.tasks import ended

CONFIRMATIONS_A_LEASE: Final = 4
MAX_HELD: Final = 65_536
ACKNOWLEDGEMENT_POLL_SECONDS: Final = 0.02
PATIENCE_SECONDS: Final = 10.0
"""A flush that cannot be acknowledged so long after all leases is given up."""
DRIFT_SECONDS: Final = 0.05
"""How far two clocks may run apart within a lease."""
LISTEN_REST_SECONDS: Final = 0.01
"""After a raise elsewhere was read: where many are raised, several are read at once."""
SETTLE_SECONDS: Final = 2 * SLOW_SECONDS
"""How long a replica may take at most to find a server that has come back: a call that hangs, a pause, the next call."""
SWEEP_SECONDS: Final = 10.0
"""Between readings of all that is held, for keys that the store lost without anybody raising anything."""
SINCE_BOOT: Final = partial(time.clock_gettime, getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
"""Unlike `monotonic`, it goes on while the machine is suspended."""
LEARN_ATTEMPTS: Final = 2
"""The first answer may be older than a raise that was read meanwhile, the second is not."""
UNREADABLE: Final = -1
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Agreement:
    """What the replicas agree by."""

    keys: Keyspace
    replica: str
    """Unlike any other's."""
    lease_seconds: float
    longest_seconds: float
    """The longest that anything stamped may be served."""


class SharedEpochs:
    """Implements `Epochs`. `run` keeps it confirmed."""

    def __init__(self, calls: Calls, hot: HotCalls, agreement: Agreement, clock: Callable[[], float] = SINCE_BOOT) -> None:
        """`clock` must go on while the process is stopped, or the machine."""
        self._calls = calls
        self._hot = hot
        self._agreement = agreement
        self._keys = agreement.keys
        self._clock = clock
        self._lapse_seconds = agreement.lease_seconds + DRIFT_SECONDS
        self._stored = EpochKeys(calls, hot, agreement.keys, agreement.longest_seconds)
        self._raises = Raises(calls, agreement.keys.raises())
        self._roll = Roll(calls, agreement.keys.replicas(), agreement.replica, self._lapse_seconds, clock)
        self._held: dict[str, int] = {}
        self._names: dict[bytes, str] = {}
        """Held names by digest."""
        self._lasting: set[str] = set()
        """Held names that stand for much."""
        self._touched: dict[str, float] = {}
        self._owed: dict[str, int] = {}
        """Raised here, but not yet in the store."""
        self._server = b""
        self._witnessed = b""
        """The server that the store itself was told of."""
        self._gaps = 0
        """How often raises may have been missed."""
        self._made_good = b""
        """The raise that covers for the lost ones."""
        self._valid_until = 0.0
        self._settled_at = 0.0
        self._swept_at = 0.0
        self._read_back_at = 0.0
        """When the last reading began that found all raises that were known here."""
        self._wake = asyncio.Event()
        self._confirming = asyncio.Lock()
        self.losses = 0
        """How often the store was found to have lost raises."""

    @property
    def confirmed(self) -> bool:
        return self._clock() < self._valid_until

    def use_longest(self, seconds: float) -> None:
        """The longest that anything stamped may be served, from now on."""
        self._agreement = replace(self._agreement, longest_seconds=seconds)
        self._stored.use_longest(seconds)

    @property
    def lease_seconds(self) -> float:
        return self._agreement.lease_seconds

    def current(self, name: str) -> int | None:
        return self._held.get(name) if self._clock() < self._valid_until else None

    async def stamps(self, names: Sequence[str]) -> tuple[Stamp, ...] | None:
        if not self.confirmed:
            return None
        now = self._clock()
        old = [name for name in names if name not in self._held or (name in self._touched and self._touched[name] < now)]
        if old:
            try:
                await self._learn(old)
            except StoreError:
                return None
        stamped = tuple((name, self._held.get(name)) for name in names)
        if not self.confirmed or any(value is None or name in self._owed for name, value in stamped):
            return None
        return tuple((name, value) for name, value in stamped if value is not None)

    def raise_epoch(self, name: str) -> int:
        value = max(self._known(name) + 1, time.time_ns() // 1_000_000)
        self._hold(name, value)
        self._owed[name] = value
        self._wake.set()
        return value

    async def raise_everywhere(self, name: str) -> int:
        """Raises StoreError; what was stamped before is then out of reach here, and elsewhere once the store has been told."""
        (value,) = await self.raise_all_everywhere([name])
        return value

    async def raise_all_everywhere(self, names: Sequence[str]) -> list[int]:
        """Several at once, acknowledged together. Raises StoreError."""
        raised = {name: self.raise_epoch(name) for name in names}
        async with self._confirming:
            await self._follow_servers()
            await self._pay()
            losses, last = self.losses, self._raises.announced
        await self._acknowledged(losses, last)
        return [self._held.get(name, value) for name, value in raised.items()]

    async def run(self) -> None:
        """Confirm again and again. Never ends by itself."""
        listening = asyncio.create_task(self._listen())
        try:
            while True:
                self._wake.clear()
                await self._confirm_or_say()
                try:
                    async with asyncio.timeout(self.lease_seconds / CONFIRMATIONS_A_LEASE):
                        await self._wake.wait()
                except TimeoutError:
                    continue
        finally:
            await ended([listening])

    async def _confirm_or_say(self) -> None:
        before = self.confirmed
        try:
            await self.confirm()
        except StoreError as error:
            await self._calls.servers.drop_idle()
            if before:
                _log.warning("the epochs cannot be confirmed (%s): nothing is served from the cache after %g s", error, self.lease_seconds)
        else:
            if not before and self.confirmed:
                _log.info("the epochs are confirmed, up to raise %s", self._raises.seen.decode())

    async def confirm(self) -> None:
        """Read what was raised; afterwards values count for a lease. Raises StoreError."""
        async with self._confirming:
            begun = self._clock()
            await self._follow_servers()
            await self._roll.register(self._raises.seen, self._server)
            read = await self._raises.read()
            await self._look_at_server(read)
            given_up = self._cache_raised(read)
            self._heed(read)
            if read.lost:
                await self._make_good(given_up)
            await self._reread(self._worth_reading(read))
            self._raises.take_in(read)
            await self._pay()
            self._read_back_at = begun
            if read.raises:
                await self._roll.register(self._raises.seen, self._server)
            if self._clock() >= self._settled_at:
                self._valid_until = max(self._valid_until, begun + self.lease_seconds)
                await self._witness()

    async def _listen(self) -> None:
        """A raise elsewhere is noticed at once; that it was is only a reason to read."""
        while True:
            try:
                found = await self._calls(
                    lambda client: client.xread({self._keys.raises(): self._raises.seen}, block=1000, count=1), SLOW_SECONDS * 2
                )
            except StoreError:
                await asyncio.sleep(self.lease_seconds / CONFIRMATIONS_A_LEASE)
                continue
            if found:
                seen = self._raises.seen
                await self._confirm_or_say()
                await asyncio.sleep(self.lease_seconds / CONFIRMATIONS_A_LEASE if self._raises.seen == seen else LISTEN_REST_SECONDS)

    async def _follow_servers(self) -> None:
        if await self._calls(lambda _: self._calls.servers.follow_master(), SLOW_SECONDS, trial=True):
            self._hot.reconnect()

    async def _look_at_server(self, read: Read) -> None:
        """Another server than the one whose epochs were in order last may know less: others must have time to say so."""
        if read.server == self._server:
            return
        known: object = self._server or await self._calls(lambda client: client.get(self._keys.server()), SLOW_SECONDS, trial=True)
        if known is None and not read.raises:
            self._roll.trust()
        elif known != read.server:
            settling = max(self.lease_seconds, SETTLE_SECONDS)
            _log.info("the shared store is another server than before: holding still for %g s", settling)
            self._valid_until = 0.0
            self._settled_at = self._clock() + settling
            self._roll.doubt()
            self._hot.reconnect()
        self._server = read.server

    async def _witness(self) -> None:
        if self._witnessed != self._server:
            await self._calls(lambda client: client.set(self._keys.server(), self._server), SLOW_SECONDS, trial=True)
            self._witnessed = self._server

    def _heed(self, read: Read) -> None:
        """What was raised is out of reach from now on, whatever fails next."""
        self._gaps += read.gap
        for each in read.raises:
            name = self._names.get(each.digest)
            if name is not None:
                self._hold(name, max(self._held[name], each.value))

    def _cache_raised(self, read: Read) -> bytes | None:
        """Where the cache's own epoch was raised after all that was known here."""
        known = max(ordinal(self._raises.seen), ordinal(self._raises.announced))
        cache, held = name_digest(CACHE).encode(), self._held.get(CACHE, 0)
        later = [each for each in read.raises if each.digest == cache and each.value > held and ordinal(each.place) > known]
        return later[-1].place if later else None

    async def _make_good(self, given_up: bytes | None) -> None:
        """Raises are lost, and nobody can say of which names: everything stored so far is given up, if it was not already."""
        _log.warning("the shared store has lost flushes (an older snapshot, a failover, an eviction): all entries are given up")
        self._valid_until = 0.0
        if given_up is None:
            self.raise_epoch(CACHE)
            await self._pay()
        self._made_good = given_up or self._raises.announced
        self.losses += 1

    def _worth_reading(self, read: Read) -> list[str]:
        """What was raised, of what is held, and the few names that stand for much; everything, where raises may have been missed."""
        if read.gap or not self.confirmed or self._clock() >= self._swept_at + SWEEP_SECONDS:
            self._swept_at = self._clock()
            self._witnessed = b""
            return list(self._held)
        return list(self._lasting | {self._names[each.digest] for each in read.raises if each.digest in self._names})

    async def _reread(self, names: Sequence[str]) -> None:
        """Raises StoreError."""
        before = {name: self._held.get(name) for name in names if name not in self._owed}
        for name, value in (await self._stored.read(list(before))).items():
            # What was raised or learned meanwhile is not older than this.
            if self._held.get(name) == before[name]:
                self._believe(name, value)

    def _believe(self, name: str, value: int | None) -> None:
        if value is None:
            self._forget(name)
        elif value < self._known(name):
            # A write was lost: nobody may believe the older value.
            self.raise_epoch(name)
        else:
            self._hold(name, value)

    async def _learn(self, names: Sequence[str]) -> None:
        """Values of names that are not held yet, or have not been touched for long. Raises StoreError."""
        gaps, behind = self._gaps, names
        for _ in range(LEARN_ATTEMPTS):
            values = await self._stored.learn(behind)
            if self._gaps != gaps:
                raise StoreUnavailable("raises may have been missed while epochs were read")
            told = {name: UNREADABLE if value is None else value for name, value in values.items() if name not in self._owed}
            behind = [name for name, value in told.items() if value < self._known(name)]
            for name in told.keys() - behind:
                self._hold(name, told[name])
            if not behind:
                break
        for name in behind:
            self.raise_epoch(name)
        for name in names:
            if name.startswith(FLEETING):
                self._touched[name] = self._clock() + self._agreement.longest_seconds / 4

    async def _pay(self) -> None:
        """Write and announce what was raised here. Raises StoreError."""
        for part in parts(list(self._owed)):
            debts = {name: self._owed[name] for name in part}
            values = await self._stored.raised({name: self._known(name) - 1 for name in part})
            raised = [(name, max(value or 0, debts[name])) for name, value in values.items()]
            for name, value in raised:
                self._hold(name, max(value, self._known(name)))
            await self._raises.announce(raised)
            for name, debt in debts.items():
                if self._owed[name] == debt:
                    del self._owed[name]

    async def _acknowledged(self, losses: int, raised: bytes) -> None:
        """Until every replica knows of `raised`, or its lease has run out. Raises StoreUnavailable where that cannot be said."""
        begun = since = self._clock()
        while self._clock() < begun + self._lapse_seconds + PATIENCE_SECONDS:
            if losses != self.losses:
                losses, raised, since = self.losses, self._made_good, self._clock()
            if self._read_back_at >= since + self._lapse_seconds or await self._roll.all_know(raised, self._server):
                return
            if ordinal(self._raises.seen) < ordinal(raised) or self._clock() >= since + self._lapse_seconds:
                self._wake.set()
            await asyncio.sleep(ACKNOWLEDGEMENT_POLL_SECONDS)
        raise StoreUnavailable("nobody can say whether all replicas know of the flush")

    def _known(self, name: str) -> int:
        """What its value is at least."""
        return max(self._held.get(name, 0), self._raises.floor(name))

    def _hold(self, name: str, value: int) -> None:
        self._held[name] = value
        self._names[name_digest(name).encode()] = name
        if not name.startswith(FLEETING):
            self._lasting.add(name)
        if len(self._held) > MAX_HELD:
            for old in [held for held in self._held if held.startswith(FLEETING) and held not in self._owed][: MAX_HELD // 2]:
                self._forget(old)

    def _forget(self, name: str) -> None:
        self._held.pop(name, None)
        self._names.pop(name_digest(name).encode(), None)
        self._touched.pop(name, None)
        self._lasting.discard(name)


def new_replica_name() -> str:
    """Unlike any other's, and not to be guessed from outside."""
    return secrets.token_hex(8)
