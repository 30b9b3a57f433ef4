"""Lists of InferenceCaches, over the namespaces that are looked after."""

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

from inference_cache_operator.cluster import paths
from inference_cache_operator.cluster.api import Cluster
from inference_cache_operator.errors import ClusterError

_log = logging.getLogger(__name__)


async def list_caches(cluster: Cluster, namespaces: Sequence[str]) -> list[dict[str, Any]]:
    """Of these namespaces, of all where none is named. Raises ClusterError."""
    return [body for scope in namespaces or (None,) for body in await cluster.list(paths.caches(scope))]


async def kind_is_there(cluster: Cluster, namespaces: Sequence[str]) -> None:
    """Returns once they can be listed: kopf looks once which kinds there are, and would never watch one that comes later."""
    while True:
        try:
            await list_caches(cluster, namespaces)
        except ClusterError as error:
            _log.warning("InferenceCaches cannot be listed yet: %s", error)
            await asyncio.sleep(1.0)
        else:
            return
