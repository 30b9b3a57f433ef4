"""Pods whose resource is gone, or selects them no more, pass everything through: their sidecars stay, the cache does not."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from inference_cache_contract.configuration import Configuration, read_configuration
from inference_cache_contract.errors import SpecErrors
from inference_cache_contract.pod import INJECTED_LABEL
from inference_cache_operator.audit.pods import Pod, read_pod
from inference_cache_operator.cluster import paths
from inference_cache_operator.cluster.api import Cluster
from inference_cache_operator.controller.configuring import configure
from inference_cache_operator.resource import Resource
from inference_cache_operator.selecting import select

_INJECTED: Final = f"{INJECTED_LABEL}=true"
"""A cluster may have many other pods."""


async def release(cluster: Cluster, namespace: str, name: str) -> list[Pod]:
    """All pods of one resource that is gone, as they are now."""
    pods = map(read_pod, await cluster.list(paths.pods(namespace), _INJECTED, cached=True))
    return await _bypass(cluster, [pod for pod in pods if pod.cache == name])


async def release_orphans(cluster: Cluster, namespaces: Iterable[str | None], resources: Iterable[Resource]) -> None:
    """Also what happened while no operator was looking. `namespaces`: None stands for all."""
    living = list(resources)
    for namespace in namespaces:
        # There may be many: only their metadata is read.
        pods = map(read_pod, await cluster.list(paths.pods(namespace), _INJECTED, cached=True, metadata_only=True))
        await _bypass(cluster, [pod for pod in pods if is_orphan(pod, living)])


def is_orphan(pod: Pod, resources: Iterable[Resource]) -> bool:
    selected = select(pod.namespace, pod.labels, resources)
    return pod.cache is not None and (selected is None or selected.winner.name != pod.cache)


def bypassing(text: str | None) -> str:
    """The same configuration in mode Bypass; a spec that cannot be read is dropped."""
    try:
        spec: Mapping[str, Any] = read_configuration(text or "").spec
    except SpecErrors:
        spec = {}
    return Configuration({**spec, "mode": "Bypass"}).text()


async def _bypass(cluster: Cluster, pods: Iterable[Pod]) -> list[Pod]:
    texts: dict[str, list[Pod]] = {}
    for pod in pods:
        texts.setdefault(bypassing(pod.configuration), []).append(pod)
    return [pod for text, alike in texts.items() for pod in await configure(cluster, alike, text)]
