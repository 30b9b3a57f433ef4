"""The keys that hold the values of epochs, one for each name: read, made and raised, many in one round trip to each server.

`epochs` calls. Everything raises StoreError; what stands in a key and is no number reads as None.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from inference_cache_contract.keyspace import Keyspace
from inference_cache_sidecar.errors import StoreUnavailable
from inference_cache_sidecar.shared import scripts
from inference_cache_sidecar.shared.calls import SLOW_SECONDS, Calls
from inference_cache_sidecar.shared.hot import HotCalls
from inference_cache_sidecar.shared.link import Command
from inference_cache_sidecar.shared.raises import readable

FLEETING: Final = ("tag:", "entity:")
"""Families with too many names to keep for ever: they live as long as anything stamped with them."""
AT_ONCE: Final = 1000
FEW: Final = 16
"""So many are worth asking for one by one, while the hot calls are given a rest."""
Values = dict[str, int | None]


class EpochKeys:
    def __init__(self, calls: Calls, hot: HotCalls, keys: Keyspace, longest_seconds: float) -> None:
        """`longest_seconds`: the longest that anything stamped may be served."""
        self._calls = calls
        self._hot = hot
        self._keys = keys
        self.use_longest(longest_seconds)

    def use_longest(self, seconds: float) -> None:
        """As the `longest_seconds` from now on."""
        self._fleeting_ms = int(seconds * 2000) + 1000

    async def read(self, names: Sequence[str]) -> Values:
        """None for those that are not there."""
        return await self._asked({name: ("GET", self._keys.epoch(name)) for name in names})

    async def learn(self, names: Sequence[str]) -> Values:
        """Those that are not there are made."""
        return await self._asked({name: self._script(scripts.LEARN, name) for name in names})

    async def raised(self, known: Mapping[str, int]) -> Values:
        """The new values of epochs that are raised above what they are in the store, and above what is known here."""
        return await self._asked({name: self._script(scripts.RAISE, name, value) for name, value in known.items()})

    def _script(self, text: str, name: str, *given: int) -> Command:
        return ("EVAL", text, 1, self._keys.epoch(name), *given, self._fleeting_ms if name.startswith(FLEETING) else 0)

    async def _asked(self, commands: Mapping[str, Command]) -> Values:
        values: Values = {}
        for names in parts(list(commands)):
            replies = await self._replies([(self._keys.epoch(name), commands[name]) for name in names])
            values |= zip(names, map(_number, replies), strict=True)
        return values

    async def _replies(self, commands: Sequence[tuple[bytes, Command]]) -> list[Any]:
        try:
            return await self._hot.run(commands, SLOW_SECONDS)
        except StoreUnavailable:
            if len(commands) > FEW:
                raise
        return [await self._one(command) for _, command in commands]

    async def _one(self, command: Command) -> Any:
        return await self._calls(lambda client: client.execute_command(*command), SLOW_SECONDS, trial=True)  # type: ignore[no-untyped-call]


def parts(names: Sequence[str]) -> Iterator[Sequence[str]]:
    """Of a size that keeps neither the store nor the event loop for long."""
    return (names[start : start + AT_ONCE] for start in range(0, len(names), AT_ONCE))


def _number(value: object) -> int | None:
    return readable(value) if isinstance(value, bytes) else None
