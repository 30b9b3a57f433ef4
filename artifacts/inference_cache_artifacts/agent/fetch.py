"""One fetch that a pod has asked for: who asked, how far it is, how it ended."""

import math
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from inference_cache_artifacts.agent.relay import Abandoned, Relay
from inference_cache_artifacts.counting import Snapshot
from inference_cache_artifacts.handover.protocol import Failure, Standing
from inference_cache_artifacts.progress import Outcome


@dataclass(frozen=True, slots=True)
class _Ended:
    at: float
    """By the monotonic clock."""
    failure: Failure | None


class Latest:
    """A Display that remembers."""

    every_seconds: Final = 0.5

    def __init__(self) -> None:
        self.now = Snapshot()

    def show(self, now: Snapshot) -> None:
        self.now = now

    def note(self, event: str, fields: dict[str, object]) -> None:
        """The pod tells of its own."""

    def end(self, now: Snapshot, outcome: Outcome) -> None:
        self.now = now


class Fetch:
    """`finish` is called by its thread, once; the event loop looks. Remembered for a while: what is large is the thread's alone."""

    def __init__(self, fetch_id: str, namespace: str, tree: str, files: int, relay: Relay) -> None:
        """`files`: how many the pod's own manifest names."""
        self.id: Final = fetch_id
        self.namespace: Final = namespace
        self.tree: Final = tree
        self.files: Final = files
        self.relay: Final = relay
        self.latest: Final = Latest()
        self.given_up: Final = threading.Event()
        self.began: Final = time.monotonic()
        self._ended: _Ended | None = None
        self._over = threading.Event()

    @property
    def is_running(self) -> bool:
        return self._ended is None

    @property
    def ended_at(self) -> float:
        """By the monotonic clock; infinite while it runs."""
        return math.inf if self._ended is None else self._ended.at

    def check(self) -> None:
        """By any thread. Raises Abandoned."""
        if self.given_up.is_set():
            raise Abandoned("the pod that asked for it went away, or the agent ends; what was fetched is kept")

    def finish(self, failure: Failure | None) -> None:
        self._ended = _Ended(time.monotonic(), failure)
        self._over.set()

    def wait(self, seconds: float) -> None:
        """By a thread: until it has ended, or for so long."""
        self._over.wait(max(0.0, seconds))

    def standing(self) -> Standing:
        ended, progress = self._ended, self.latest.now.fields()
        if ended is None:
            return Standing("running", progress)
        return Standing("done", progress) if ended.failure is None else Standing("failed", progress, ended.failure)


def furthest(standings: Iterable[Standing]) -> Standing | None:
    return max(standings, key=lambda each: each.progress.get("bytes") or 0, default=None)
