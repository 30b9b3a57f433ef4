"""Epochs that all replicas of a cache share: durable in the store, confirmed within a lease, safe against what the store may lose.

Stores, the keeper and the feature cache read them, flushes raise them. How it stays safe:

- Every confirmation first registers this replica, then reads the stream of raises. Whoever raises an epoch writes it, announces it in
  the stream, then waits until every replica registered lately knows of it, or its lease has run out: a replica that registers later
  reads the stream after the raise.
- A value is known only while the last confirmation is younger than the lease, by a clock that goes on while the process stands still.
- A key that is missing (evicted, expired) is made with the current time before use, so that it never equals an older value.
- If the stream has gone back or is missing (an older snapshot, a failover that lost writes), flushes may be lost that no key tells of:
  the cache's own epoch is raised. A replica that finds another server than before holds still for a lease, so that those who know more
  come first.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from inference_cache_contract.epochs import CACHE, Stamp
from inference_cache_contract.keyspace import Keyspace, name_digest
from inference_cache_sidecar.errors import StoreError, StoreUnavailable
from inference_cache_sidecar.shared import scripts
from inference_cache_sidecar.shared.calls import SLOW_SECONDS, Calls
from inference_cache_sidecar.shared.hot import HotCalls
from inference_cache_sidecar.shared.link import Command
from inference_cache_sidecar.tasks import ended

CONFIRMATIONS_A_LEASE: Final = 4
RAISES_KEPT: Final = 4096
MAX_HELD: Final = 65_536
GONE_SECONDS: Final = 60.0
ACKNOWLEDGEMENT_POLL_SECONDS: Final = 0.02
DRIFT_SECONDS: Final = 0.05
"""How far two clocks may run apart within a lease."""
SWEEP_SECONDS: Final = 10.0
"""Between readings of all that is held, for keys that the store lost without anybody raising anything."""
LEARN_ATTEMPTS: Final = 5
_FLEETING: Final = ("tag:", "entity:")
"""Families with too many names to keep for ever: they live as long as anything stamped with them."""
_BEGINNING: Final = b"0-0"
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

    def __init__(self, calls: Calls, hot: HotCalls, agreement: Agreement, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` must go on while the process is stopped."""
        self._calls = calls
        self._hot = hot
        self._agreement = agreement
        self._keys = agreement.keys
        self._clock = clock
        self._held: dict[str, int] = {}
        self._names: dict[bytes, str] = {}
        """Held names by digest."""
        self._touched: dict[str, float] = {}
        self._owed: dict[str, int] = {}
        """Raised here, but not yet in the store."""
        self._seen = _BEGINNING
        self._server = b""
        self._witnessed = b""
        """The server that the store itself was told of."""
        self._valid_until = 0.0
        self._settled_at = 0.0
        self._swept_at = 0.0
        self._wake = asyncio.Event()
        self._confirming = asyncio.Lock()
        self.losses = 0
        """How often the store was found to have lost raises."""

    @property
    def confirmed(self) -> bool:
        return self._clock() < self._valid_until

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
        value = max(self._held.get(name, 0) + 1, time.time_ns() // 1_000_000)
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
        for name in names:
            self.raise_epoch(name)
        raised = await self._pay(list(names))
        await self._acknowledged(raised)
        return [self._held[name] for name in names]

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
            if before:
                _log.warning("the epochs cannot be confirmed (%s): nothing is served from the cache after %g s", error, self.lease_seconds)
        else:
            if not before and self.confirmed:
                _log.info("the epochs are confirmed, up to raise %s", self._seen.decode())

    async def confirm(self) -> None:
        """Read what was raised; afterwards values count for a lease. Raises StoreError."""
        async with self._confirming:
            begun = self._clock()
            await self._calls(lambda _: self._calls.servers.follow_master(), SLOW_SECONDS, trial=True)
            await self._register()
            run_id, last, trimmed, raised = await self._read()
            await self._look_at_server(run_id)
            if _ordinal(last) < _ordinal(self._seen):
                await self._recover()
                last = self._seen
            await self._reread(self._held if trimmed or self._sweep_is_due() else self._to_reread(raised))
            self._seen = last or self._seen
            await self._pay(list(self._owed))
            if self._clock() < self._settled_at:
                return
            self._valid_until = max(self._valid_until, begun + self.lease_seconds)
            if self._witnessed != run_id:
                await self._calls(lambda client: client.set(self._keys.server(), run_id), SLOW_SECONDS)
                self._witnessed = run_id
            if raised or trimmed:
                await self._register()

    async def _listen(self) -> None:
        """A raise elsewhere is noticed at once; that it was is only a reason to read."""
        while True:
            try:
                found = await self._calls(
                    lambda client: client.xread({self._keys.raises(): self._seen}, block=1000, count=1), SLOW_SECONDS * 2
                )
            except StoreError:
                await asyncio.sleep(self.lease_seconds / CONFIRMATIONS_A_LEASE)
                continue
            if found:
                seen = self._seen
                await self._confirm_or_say()
                if self._seen == seen:
                    await asyncio.sleep(self.lease_seconds / CONFIRMATIONS_A_LEASE)

    async def _register(self) -> None:
        gone = int(GONE_SECONDS * 1000)
        await self._script(scripts.REGISTER, self._keys.replicas(), self._agreement.replica, self._seen, gone)

    async def _read(self) -> tuple[bytes, bytes, bool, list[bytes]]:
        run_id, last, trimmed, raised = await self._script(scripts.READ, self._keys.raises(), self._seen, RAISES_KEPT)
        return run_id, last or _BEGINNING, bool(trimmed), raised

    async def _look_at_server(self, run_id: bytes) -> None:
        """Another server than the one whose epochs were in order last may know less: others must have time to say so."""
        if run_id == self._server:
            return
        known = self._server or await self._hot.get(self._keys.server()) or run_id
        if known != run_id:
            _log.info("the shared store is another server than before: holding still for %g s", self.lease_seconds)
            self._valid_until = 0.0
            self._settled_at = self._clock() + self.lease_seconds
        self._server = run_id

    async def _recover(self) -> None:
        """Raises are lost, and nobody can say of which names: everything stored so far is given up."""
        self.losses += 1
        _log.warning("the shared store has lost flushes (an older snapshot, a failover, an eviction): all entries are given up")
        self._valid_until = 0.0
        self.raise_epoch(CACHE)
        await self._pay([CACHE])

    def _to_reread(self, raised: Iterable[bytes]) -> list[str]:
        """What was raised, of what is held; and the few names that stand for much."""
        names = {self._names[digest] for digest in raised if digest in self._names}
        return [*names, *(name for name in self._held if not name.startswith(_FLEETING) and name not in names)]

    def _sweep_is_due(self) -> bool:
        if self._clock() < self._swept_at + SWEEP_SECONDS:
            return False
        self._swept_at = self._clock()
        return True

    async def _reread(self, names: Iterable[str]) -> None:
        """Raises StoreError."""
        wanted = [name for name in names if name not in self._owed]
        for name, value in zip(wanted, await self._values(wanted), strict=True):
            held = self._held.get(name, 0)
            if value is None:
                self._forget(name)
            elif value < held:
                # A write was lost: nobody may believe the older value.
                self.raise_epoch(name)
            else:
                self._hold(name, value)

    async def _values(self, names: Sequence[str]) -> list[int | None]:
        replies = await self._hot.get_many([self._keys.epoch(name) for name in names])
        return [_number(reply) for reply in replies]

    async def _learn(self, names: Sequence[str]) -> None:
        """Values of names that are not held yet, or have not been touched for long. Raises StoreError."""
        for _ in range(LEARN_ATTEMPTS):
            seen = self._seen
            values = await self._scripts(scripts.LEARN, [(name, (self._ttl_ms(name),)) for name in names])
            if self._seen == seen:
                break
        else:
            raise StoreUnavailable("epochs are raised faster than they can be read")
        for name, value in zip(names, values, strict=True):
            number = _number(value)
            if number is None or number < self._held.get(name, 0):
                self.raise_epoch(name)
            elif name not in self._owed:
                self._hold(name, number)
            if name.startswith(_FLEETING):
                self._touched[name] = self._clock() + self._agreement.longest_seconds / 4

    async def _pay(self, names: Sequence[str]) -> bytes:
        """Write and announce what was raised here; the last announcement's id. Raises StoreError."""
        if not names:
            return self._seen
        values = await self._scripts(scripts.RAISE, [(name, (self._held.get(name, 0) - 1, self._ttl_ms(name))) for name in names])
        raised: bytes = await self._script(scripts.ANNOUNCE, self._keys.raises(), self._seen, RAISES_KEPT, *map(name_digest, names))
        for name, value in zip(names, values, strict=True):
            number = _number(value)
            if number is not None:
                self._hold(name, max(number, self._held.get(name, 0)))
            self._owed.pop(name, None)
        return raised

    async def _acknowledged(self, raised: bytes) -> None:
        """Until every replica knows of `raised`, or its lease has run out."""
        end = self._clock() + self.lease_seconds + DRIFT_SECONDS
        while (left := end - self._clock()) > 0:
            try:
                now, fields = await self._script(scripts.REPLICAS, self._keys.replicas())
            except StoreError:
                fields = []
            if fields and self._all_know(raised, int(now), dict(zip(fields[::2], fields[1::2], strict=True))):
                return
            self._wake.set()
            await asyncio.sleep(min(left, ACKNOWLEDGEMENT_POLL_SECONDS))

    def _all_know(self, raised: bytes, now: int, registered: dict[bytes, bytes]) -> bool:
        """Not to be said where this replica itself is missing: the store has lost who lives."""
        if self._agreement.replica.encode() not in registered:
            return False
        oldest = now - (self.lease_seconds + DRIFT_SECONDS) * 1000
        known = [value.split(b" ", 1) for value in registered.values()]
        return all(int(at) < oldest or _ordinal(seen) >= _ordinal(raised) for at, seen in known)

    def _ttl_ms(self, name: str) -> int:
        return int(self._agreement.longest_seconds * 2000) + 1000 if name.startswith(_FLEETING) else 0

    def _hold(self, name: str, value: int) -> None:
        self._held[name] = value
        self._names[name_digest(name).encode()] = name
        if len(self._held) > MAX_HELD:
            for old in [held for held in self._held if held.startswith(_FLEETING) and held not in self._owed][: MAX_HELD // 2]:
                self._forget(old)

    def _forget(self, name: str) -> None:
        self._held.pop(name, None)
        self._names.pop(name_digest(name).encode(), None)
        self._touched.pop(name, None)

    async def _scripts(self, text: str, arguments: Sequence[tuple[str, tuple[int, ...]]]) -> list[Any]:
        """A script for each of several epochs, in one round trip to each server."""
        keys = [self._keys.epoch(name) for name, _ in arguments]
        commands: list[tuple[bytes, Command]] = [
            (key, (b"EVAL", text, 1, key, *given)) for key, (_, given) in zip(keys, arguments, strict=True)
        ]
        return await self._hot.run(commands, SLOW_SECONDS)

    async def _script(self, text: str, key: bytes, *arguments: bytes | str | int) -> Any:
        return await self._calls(lambda client: client.eval(text, 1, key, *arguments), SLOW_SECONDS, trial=True)


def new_replica_name() -> str:
    """Unlike any other's, and not to be guessed from outside."""
    return secrets.token_hex(8)


def _ordinal(stream_id: bytes) -> tuple[int, int]:
    milliseconds, _, sequence = stream_id.partition(b"-")
    return int(milliseconds or 0), int(sequence or 0)


def _number(value: object) -> int | None:
    try:
        return int(value) if isinstance(value, bytes | str) else None
    except ValueError:
        return None
