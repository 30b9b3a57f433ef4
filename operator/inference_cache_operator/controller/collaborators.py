"""What the reconciler works with; the composition root makes it, tests make it of fakes."""

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from inference_cache_operator.audit.repair import USER_SECONDS
from inference_cache_operator.audit.standing import Audited, Injector
from inference_cache_operator.cluster.api import Cluster
from inference_cache_operator.cluster.sidecars import SidecarClient
from inference_cache_operator.controller.index import Index
from inference_cache_operator.prefetch.outcome import Prefetched
from inference_cache_operator.resource import Resource
from inference_cache_operator.versions.state import State


class Prefetches(Protocol):
    async def look(self, resource: Resource, state: State, audited: Sequence[Audited]) -> Prefetched:
        """Brings the wanted version's files to the nodes, and tells how far they are. Raises ClusterError, NotLeading."""
        ...


class FetchedByPods:
    """Every pod fetches for itself before it starts: there is nothing to wait for before pods are replaced."""

    async def look(self, resource: Resource, state: State, audited: Sequence[Audited]) -> Prefetched:
        return Prefetched()


async def _not_reached() -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Pace:
    """How soon a resource is looked at again, in seconds."""

    acknowledging: float = 0.3
    """While sidecars take up a configuration."""
    changing: float = 1.0
    """While anything else is on its way."""
    resync: float = 10.0
    orphans: float = 60.0
    user: float = USER_SECONDS
    silence: float = 30.0
    """A pod that should be gone for longer and does not answer serves nothing any more."""


@dataclass(frozen=True, slots=True)
class Collaborators:
    cluster: Cluster
    sidecars: SidecarClient
    injector: Injector
    index: Index
    webhook_reached: Callable[[], Awaitable[bool]] = _not_reached
    """A probe pod passed by webhooks that inject what is expected of them."""
    prefetcher: Prefetches = field(default_factory=FetchedByPods)
    default_image: str = ""
    instance: str = ""
    """This operator's pod, for events."""
    pace: Pace = field(default_factory=Pace)
    now: Callable[[], float] = time.time
