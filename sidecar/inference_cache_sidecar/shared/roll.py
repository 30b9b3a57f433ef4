"""Which replicas live, and which of them know of a raise: whom a flush waits for. `epochs` calls.

A replica that has not confirmed its epochs for a lease serves nothing, and is not waited for. Whether it has is told by the store's
clock, which may leap, so that what was seen from here counts too. The store may lose the roll: it counts again when all that live
have had the time to register.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from inference_cache_sidecar.errors import StoreError
from inference_cache_sidecar.shared import scripts
from inference_cache_sidecar.shared.calls import SLOW_SECONDS, Calls
from inference_cache_sidecar.shared.raises import ordinal

GONE_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class _Registered:
    at_ms: int
    """By the store's clock."""
    seen: bytes
    """The last raise that this replica knows."""
    server: bytes
    """Where it read that."""


class Roll:
    def __init__(self, calls: Calls, key: bytes, replica: str, lapse_seconds: float, clock: Callable[[], float]) -> None:
        """`lapse_seconds`: after so long without a word a replica serves nothing."""
        self._calls = calls
        self._key = key
        self._replica = replica.encode()
        self._lapse_seconds = lapse_seconds
        self._clock = clock
        self._whole_since = math.inf
        self._changed: dict[bytes, tuple[bytes, float]] | None = None
        """What each had registered at the last look, and since when; None before the first."""

    def doubt(self) -> None:
        """Replicas may live that are not on the roll."""
        self._whole_since = self._clock()

    def trust(self) -> None:
        """None may."""
        self._whole_since = -math.inf

    async def register(self, seen: bytes, server: bytes) -> None:
        """Say that this replica lives, and up to which raise, read from which server, it knows. Raises StoreError."""
        kept, flat = await self._script(scripts.REGISTER, self._replica, seen, server, int(GONE_SECONDS * 1000))
        if not kept:
            self.doubt()
        self._look_at(_by_name(flat))

    async def all_know(self, raised: bytes, server: bytes) -> bool:
        """Whether all that may serve anything have read `raised` from `server`, this replica among them. False where nobody can say."""
        try:
            now_ms, flat = await self._script(scripts.REPLICAS)
        except StoreError:
            return False
        roll = _by_name(flat)
        self._look_at(roll)
        if self._clock() < self._whole_since + self._lapse_seconds or self._replica not in roll:
            return False
        known = [_read(value) for name, value in roll.items() if name == self._replica or not self._has_lapsed(name, value, int(now_ms))]
        return all(each.server == server and ordinal(each.seen) >= ordinal(raised) for each in known)

    def _look_at(self, roll: Mapping[bytes, bytes]) -> None:
        before = self._changed or {}
        then = -math.inf if self._changed is None else self._clock()
        self._changed = {
            name: before[name] if name in before and before[name][0] == value else (value, then) for name, value in roll.items()
        }

    def _has_lapsed(self, name: bytes, value: bytes, now_ms: int) -> bool:
        """By the store's clock, and by ours."""
        if _read(value).at_ms >= now_ms - self._lapse_seconds * 1000:
            return False
        return self._changed is not None and self._clock() >= self._changed[name][1] + self._lapse_seconds

    async def _script(self, text: str, *arguments: bytes | str | int) -> Any:
        return await self._calls(lambda client: client.eval(text, 1, self._key, *arguments), SLOW_SECONDS, trial=True)


def _by_name(flat: Sequence[bytes]) -> dict[bytes, bytes]:
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _read(value: bytes) -> _Registered:
    """What cannot be read was registered long ago."""
    at, seen, server, *_ = [*value.split(b" "), b"", b""]
    if not (at.isdigit() and seen.replace(b"-", b"", 1).isdigit()):
        return _Registered(0, b"0-0", b"")
    return _Registered(int(at), seen, server)
