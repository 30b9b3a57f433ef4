"""The thread of a fetch: the engine at work in the namespace's store, with sources that the pod reads. And what needs no thread."""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Collection
from typing import Final

from inference_cache_artifacts.agent.fetch import Fetch
from inference_cache_artifacts.agent.keeping import Keeper
from inference_cache_artifacts.agent.relay import Abandoned
from inference_cache_artifacts.agent.relaying import RelayedSource
from inference_cache_artifacts.agent.settings import Settings
from inference_cache_artifacts.counting import Counted
from inference_cache_artifacts.errors import ArtifactError, BadRequest, DiskFailed, NoSpace
from inference_cache_artifacts.fetching import fetch as bring
from inference_cache_artifacts.handover.protocol import Ask, Failure
from inference_cache_artifacts.holding import hold_alone
from inference_cache_artifacts.means import Means
from inference_cache_artifacts.names import plain_url
from inference_cache_artifacts.progress import Outcome, Progress
from inference_cache_artifacts.request import Limits, Request
from inference_cache_artifacts.store import trees
from inference_cache_artifacts.store.layout import Store
from inference_cache_artifacts.store.trees import Tree
from inference_cache_artifacts.store.using import HOLDER

log = logging.getLogger(__name__)
_ATTEMPTS: Final = 5
_OF_THE_NODE: Final = (NoSpace.reason, DiskFailed.reason)
_MOST_SOURCES: Final = 64
_MOST_VERSION_BYTES: Final = 256
_MOST_LOGGED: Final = 500


def request_of(ask: Ask, limits: Limits, namespace: str) -> Request:
    """Raises BadRequest."""
    if not 1 <= len(ask.sources) <= _MOST_SOURCES:
        raise BadRequest(f"1 to {_MOST_SOURCES} sources can be asked for")
    if len(ask.version.encode(errors="replace")) > _MOST_VERSION_BYTES:
        raise BadRequest(f"a version has {_MOST_VERSION_BYTES} bytes at most")
    if ask.holder and not (HOLDER.fullmatch(ask.holder) and ask.holder.startswith(f"{namespace}.")):
        raise BadRequest(f"{ask.holder[:_MOST_LOGGED]!r} cannot be the name of a user of trees in the namespace {namespace}")
    request = Request(ask.sources, ask.version, ask.manifest, ask.manifest_sha256, ask.verify, limits=limits, keep=frozenset(ask.keep))
    if request.tree_name != ask.tree:
        raise BadRequest(f"{ask.tree[:_MOST_LOGGED]!r} is not the name of the tree that is asked for")
    return request


class Bringer:
    def __init__(self, settings: Settings, keeper: Keeper, loop: asyncio.AbstractEventLoop) -> None:
        self._settings = settings
        self._keeper = keeper
        self._loop = loop

    def store(self, namespace: str) -> Store:
        return Store(self._settings.root / namespace)

    def there(self, namespace: str, ask: Ask) -> Tree | None:
        """A tree that needs no fetch, marked for who asks. Raises BadRequest, NoSpace, DiskFailed."""
        request = request_of(ask, self._settings.limits, namespace)
        store = self.store(namespace)
        tree = trees.find(store, request.tree_name)
        return tree if tree is not None and _hold(store, tree, ask) else None

    def begin(self, fetch: Fetch, ask: Ask) -> None:
        """Raises RuntimeError where no thread can start."""
        threading.Thread(target=self._run, args=(fetch, ask), name=f"fetch {fetch.id[:8]}", daemon=True).start()

    def _run(self, fetch: Fetch, ask: Ask) -> None:
        log.info("begun namespace=%s tree=%s version=%r", fetch.namespace, ask.tree, ask.version)
        with Counted([fetch.latest]) as progress:
            outcome = self._outcome(fetch, ask, progress)
            progress.ended(outcome)
        _log_end(fetch, outcome)
        fetch.finish(None if outcome.is_well else Failure(outcome.reason, outcome.message, outcome.file))
        self._soon(fetch.relay.end)

    def _outcome(self, fetch: Fetch, ask: Ask, progress: Progress) -> Outcome:
        try:
            tree = self._held(fetch, ask, progress)
            progress.planned(tree.count, tree.size, tree.size)
            return Outcome(tree=tree.name, path=str(tree.files))
        except ArtifactError as error:
            if fetch.relay.is_lost and error.reason not in _OF_THE_NODE:
                error = Abandoned(str(error), error.file)
            return Outcome(error.reason, error.file, str(error))
        # An edge: whatever goes wrong, the pod is told so, and the agent goes on.
        except Exception as error:
            log.exception("a fetch broke: namespace=%s tree=%s", fetch.namespace, fetch.tree)
            return Outcome("Failed", None, f"the agent has a fault ({type(error).__name__})")

    def _held(self, fetch: Fetch, ask: Ask, progress: Progress) -> Tree:
        request, store = request_of(ask, self._settings.limits, fetch.namespace), self.store(fetch.namespace)
        means = Means(self._opener(fetch, ask), self._make_room, fetch.check)
        for _ in range(_ATTEMPTS):
            tree = bring(request, store, progress, means)
            if _hold(store, tree, ask):
                return tree
        raise NoSpace(f"{tree.files}: is removed again and again to make room for others")

    def _opener(self, fetch: Fetch, ask: Ask) -> Callable[[str, object], RelayedSource]:
        return lambda url, _: RelayedSource(fetch.relay, ask.sources.index(url), plain_url(url))

    def _make_room(self, store: Store, keep: Collection[str], needed_bytes: int) -> int:
        return self._keeper.make_room(store, keep, needed_bytes, self._loop)

    def _soon(self, act: Callable[[], None]) -> None:
        try:
            self._loop.call_soon_threadsafe(act)
        except RuntimeError:
            log.debug("the agent has ended")


def _hold(store: Store, tree: Tree, ask: Ask) -> bool:
    return not ask.holder or hold_alone(store, tree, ask.holder, ask.keep)


def _log_end(fetch: Fetch, outcome: Outcome) -> None:
    # What pods say is one line here, and not a long one.
    told = "done" if outcome.is_well else f"{outcome.reason}: {outcome.message[:_MOST_LOGGED]!r}"
    seconds, received = time.monotonic() - fetch.began, fetch.latest.now.received_bytes
    log.info("ended namespace=%s tree=%s bytes=%d seconds=%.1f: %s", fetch.namespace, fetch.tree, received, seconds, told)
