"""Writes the hot configuration into the annotations of running pods, all at once."""

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from inference_cache_contract.pod import CONFIGURATION_ANNOTATION
from inference_cache_operator import errors
from inference_cache_operator.audit.pods import Pod
from inference_cache_operator.cluster import paths
from inference_cache_operator.cluster.api import Cluster

AT_ONCE: Final = 32
_log = logging.getLogger(__name__)


async def configure(cluster: Cluster, pods: Iterable[Pod], text: str) -> list[Pod]:
    """Those that have it already are left alone; returns the pods as they are now. Raises ClusterError when all were tried.

    A pod that the API server takes no change of, as a policy of the cluster may have it, is left behind, and holds up no other.
    """
    asked, annotation = list(pods), {CONFIGURATION_ANNOTATION: text}
    # A pod that is being ended would not see it any more.
    behind = [pod for pod in asked if pod.configuration != text and not pod.ending]
    written = await annotate_all(cluster, [(pod, annotation) for pod in behind])
    barred = {pod.uid for pod, done in zip(behind, written, strict=True) if not done}
    return [pod if pod.uid in barred else replace(pod, annotations={**pod.annotations, **annotation}) for pod in asked]


async def annotate_all(cluster: Cluster, changes: Sequence[tuple[Pod, Mapping[str, str]]]) -> list[bool]:
    """As `annotate`, `AT_ONCE` at once. Raises ClusterError when all were tried."""
    turns = asyncio.Semaphore(AT_ONCE)

    async def one(pod: Pod, annotations: Mapping[str, str]) -> bool:
        async with turns:
            return await annotate(cluster, pod, annotations)

    done = list[bool]()
    for outcome in await asyncio.gather(*(one(*each) for each in changes), return_exceptions=True):
        if isinstance(outcome, BaseException):
            raise outcome
        done.append(outcome)
    return done


async def annotate(cluster: Cluster, pod: Pod, annotations: Mapping[str, str]) -> bool:
    """False: the API server takes no such change of this pod. One that has gone needs nothing. Raises ClusterError."""
    body = {"metadata": {"uid": pod.uid, "annotations": dict(annotations)}}
    try:
        await cluster.merge(paths.pod(pod.namespace, pod.name), body)
    except (errors.NotThere, errors.Conflicting):
        return True
    except (errors.BadObject, errors.NotAllowed) as error:
        _log.warning("%s is not annotated: %s", pod.key, error)
        return False
    return True
