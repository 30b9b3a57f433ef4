"""Fetches that pods have asked for: begun, looked after, remembered for a while. Used in the event loop; each has its own thread."""

import asyncio
import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from inference_cache_artifacts.agent.fetch import Fetch, furthest
from inference_cache_artifacts.agent.live import Used
from inference_cache_artifacts.agent.relay import Relay
from inference_cache_artifacts.agent.settings import Settings
from inference_cache_artifacts.errors import Missing
from inference_cache_artifacts.handover.protocol import Ask, Standing

TIDY_SECONDS: Final = 1.0
_END_SECONDS: Final = 2.0
_SHARE: Final = 4
"""A namespace has one part of so many."""
_PODS_FOR_EACH: Final = 4
_MOST_REMEMBERED: Final = 64
"""Of a namespace, of those that have ended."""


class Busy(Exception):
    """As many as may be are being fetched, or the agent ends: ask again."""


class Fetches:
    def __init__(self, settings: Settings, begun: Callable[[Fetch, Ask], None]) -> None:
        """`begun` starts a fetch's thread. Raises RuntimeError where there can be no more."""
        self._settings = settings
        self._begun = begun
        self._all: dict[str, Fetch] = {}
        self._is_ending = False

    def begin(self, namespace: str, ask: Ask) -> Fetch:
        """Raises Busy."""
        self.check_open()
        files = 0 if ask.manifest is None else len(ask.manifest.files)
        check_room(namespace, ask.tree, files, [each for each in self._all.values() if each.is_running], self._settings)
        relay = Relay(asyncio.get_running_loop(), self._settings.patience)
        fetch = Fetch(secrets.token_hex(16), namespace, ask.tree, files, relay)
        try:
            self._begun(fetch, ask)
        except RuntimeError as error:
            raise Busy(f"no fetch can begin just now ({error})") from None
        self._all[fetch.id] = fetch
        self._forget_oldest(namespace)
        return fetch

    def find(self, namespace: str, fetch_id: str) -> Fetch:
        """Whose pod is heard of by that. Raises Missing, Busy."""
        self.check_open()
        fetch = self._all.get(fetch_id)
        if fetch is None or fetch.namespace != namespace:
            raise Missing("there is no such fetch")
        fetch.relay.heard()
        return fetch

    def check_open(self) -> None:
        """No pod is told that its fetch failed because the agent is started again. Raises Busy."""
        if self._is_ending:
            raise Busy("the agent ends")

    def standing(self, fetch: Fetch) -> Standing:
        """Of one that waits for another's: how far that one is."""
        own = fetch.standing()
        if own.state != "running":
            return own
        return furthest(each.standing() for each in self._of(fetch.namespace, fetch.tree) if each.is_running) or own

    def of_tree(self, namespace: str, tree: str) -> Standing | None:
        """How far the furthest is; of those that have ended, the last."""
        found = list(self._of(namespace, tree))
        running = furthest(each.standing() for each in found if each.is_running)
        return running or max(found, key=lambda each: each.ended_at).standing() if found else None

    def trees(self) -> Used:
        """Of all that run."""
        running = [each for each in self._all.values() if each.is_running]
        return {each.namespace: frozenset(other.tree for other in running if other.namespace == each.namespace) for each in running}

    def give_up(self, fetch: Fetch) -> None:
        fetch.given_up.set()
        fetch.relay.end()

    def tidy(self) -> None:
        """Gives up what nobody asks about any more, and forgets what has ended."""
        now, patience = time.monotonic(), self._settings.patience
        for fetch_id, fetch in list(self._all.items()):
            if fetch.is_running and now - fetch.relay.heard_at > patience.given_up:
                self.give_up(fetch)
            if not fetch.is_running and now - fetch.ended_at > patience.remembered:
                del self._all[fetch_id]

    async def end(self) -> None:
        """Breaks all of them off, and waits a little: what they have journalled stays."""
        self._is_ending = True
        for fetch in self._all.values():
            self.give_up(fetch)
        until = time.monotonic() + _END_SECONDS
        for fetch in list(self._all.values()):
            await asyncio.to_thread(fetch.wait, until - time.monotonic())

    def _of(self, namespace: str, tree: str) -> Iterable[Fetch]:
        return (each for each in self._all.values() if (each.namespace, each.tree) == (namespace, tree))

    def _forget_oldest(self, namespace: str) -> None:
        """A pod that asks about one that is forgotten asks for its tree again."""
        ended = [each for each in self._all.values() if each.namespace == namespace and not each.is_running]
        for fetch in sorted(ended, key=lambda each: each.ended_at)[:-_MOST_REMEMBERED]:
            del self._all[fetch.id]


def check_room(namespace: str, tree: str, files: int, running: Sequence[Fetch], settings: Settings) -> None:
    """Whether one more may run beside those. Pods that wait for the same tree are many, and cost little. Raises Busy."""
    own = [each for each in running if each.namespace == namespace]
    for among, share in ((running, 1), (own, _SHARE)):
        if len({(namespace, tree), *((each.namespace, each.tree) for each in among)}) > max(1, settings.most_fetches // share):
            raise Busy(f"{max(1, settings.most_fetches // share)} trees are being fetched already")
        if len(among) >= max(1, settings.most_fetches * _PODS_FOR_EACH // share):
            raise Busy(f"{len(among)} pods are being served already")
    for among, share in ((running, 1), (own, 2)):
        if files and among and files + sum(each.files for each in among) > settings.most_files // share:
            raise Busy("manifests of too many files are being worked on already")


async def look_after(fetches: Fetches) -> None:
    """Until it is cancelled."""
    while True:
        fetches.tidy()
        await asyncio.sleep(TIDY_SECONDS)
