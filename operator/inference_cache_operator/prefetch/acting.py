"""Makes and deletes the pods that fetch ahead, some at a time."""

import asyncio
import logging
from collections.abc import Awaitable, Iterable, Sequence
from typing import Any, Final, TypeVar

from inference_cache_operator import errors
from inference_cache_operator.audit.fetches import shortened
from inference_cache_operator.audit.pods import Pod
from inference_cache_operator.cluster import paths
from inference_cache_operator.cluster.api import Cluster
from inference_cache_operator.prefetch.deciding import Plan
from inference_cache_operator.prefetch.nodes import OnNode
from inference_cache_operator.prefetch.pods import NODE_ANNOTATION

T = TypeVar("T")
AT_ONCE: Final = 16
REFUSED: Final = "PrefetchRefused"
"""The API server takes no such pod, or is too busy."""
_log = logging.getLogger(__name__)


async def carry_out(cluster: Cluster, namespace: str, plan: Plan) -> OnNode | None:
    """Returns what the API server has against a pod, if it has: the next round tries it again. Raises NotLeading."""
    for some in _batches(plan.delete):
        await _all(_delete(cluster, pod) for pod in some)
    for some in _batches(plan.create):
        refusals = await _all(_create(cluster, namespace, body) for body in some)
        refused = next((each for each in refusals if each is not None), None)
        if refused is not None:
            # It would have the same against the next ones.
            return refused
    return None


async def _create(cluster: Cluster, namespace: str, body: dict[str, Any]) -> OnNode | None:
    try:
        await cluster.create(paths.pods(namespace), body)
    except errors.Conflicting:
        return None
    except (errors.ClusterUnreachable, errors.TooMany) as error:
        return OnNode(_node(body), "Waiting", REFUSED, shortened(str(error)))
    except errors.ClusterError as error:
        return OnNode(_node(body), "Failed", REFUSED, shortened(error.said))
    return None


def _node(body: dict[str, Any]) -> str:
    return str(body["metadata"]["annotations"][NODE_ANNOTATION])


async def _delete(cluster: Cluster, pod: Pod) -> None:
    try:
        await cluster.delete(paths.pod(pod.namespace, pod.name), {"preconditions": {"uid": pod.uid}})
    except (errors.NotThere, errors.Conflicting):
        return
    except errors.ClusterError as error:
        _log.warning("%s stays: %s", pod.key, error)


async def _all(calls: Iterable[Awaitable[T]]) -> list[T]:
    """Raises when all were tried."""
    found = list[T]()
    for outcome in await asyncio.gather(*calls, return_exceptions=True):
        if isinstance(outcome, BaseException):
            raise outcome
        found.append(outcome)
    return found


def _batches(some: Sequence[Any]) -> list[Sequence[Any]]:
    return [some[start : start + AT_ONCE] for start in range(0, len(some), AT_ONCE)]
