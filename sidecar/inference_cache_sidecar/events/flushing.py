"""What an event makes unreachable: the epochs it raises, and the bytes that are deleted after. `building` makes it, `handling` calls it.

The bytes of a model version are deleted in the background. Those of a tag or a category are left to expire: to find them everything
would have to be read, and events may come by the hundred.
"""

import logging
from collections.abc import Callable
from typing import Final

from inference_cache_contract.epochs import entity_epoch
from inference_cache_sidecar.events.payloads import Event
from inference_cache_sidecar.events.raising import RaiseAll
from inference_cache_sidecar.flush import FlushRequest, described, epoch_name

_RARE: Final = ("version", "adapter", "category", "all")
_log = logging.getLogger(__name__)


class EventFlushes:
    """`purge` deletes the bytes of a version in the background; `ordered` counts a flush by what it names."""

    def __init__(
        self, raised: RaiseAll, purge: Callable[[FlushRequest], None], ordered: Callable[[str], None], *, with_features: bool
    ) -> None:
        """`with_features`: there is a feature cache, whose rows an event may concern."""
        self._raised = raised
        self._purge = purge
        self._ordered = ordered
        self._with_features = with_features

    async def apply(self, event: Event) -> None:
        """When this returns, nothing that the event concerns is served any more. Raises StoreError; may be called again."""
        raised = set(await self._raised(epochs_of(event, with_features=self._with_features)))
        for request in event.flushes:
            if epoch_name(request) in raised:
                self._ordered(request.target)
                if request.target in _RARE:
                    _log.info("flush of %s by an event of %s", described(request), event.channel)
                if request.target == "version":
                    self._purge(request)


def epochs_of(event: Event, *, with_features: bool) -> list[str]:
    flushes = [epoch_name(request) for request in event.flushes]
    entities = [entity_epoch(entity.join_key, entity.value) for entity in event.entities if with_features]
    return [name for name in (*flushes, *entities) if name is not None]
