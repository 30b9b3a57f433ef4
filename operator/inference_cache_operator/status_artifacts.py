"""The condition ArtifactsReady: whether the pods have their files, and if not which file is in the way. Pure; `status` asks."""

from collections.abc import Iterable, Sequence
from typing import Final

from inference_cache_operator.audit.fetches import fetch_of, fetches
from inference_cache_operator.audit.pods import Pod
from inference_cache_operator.prefetch.outcome import Prefetched, preloading_text, problem_text
from inference_cache_operator.resource import Resource
from inference_cache_operator.status_condition import Condition

TYPE: Final = "ArtifactsReady"
ON_ITS_WAY: Final = frozenset({"Preloading", "Waiting", "Fetching"})
"""Reasons not to be ready that end by themselves; every other one is a failure's."""


def artifacts_condition(resource: Resource, pods: Iterable[Pod], prefetched: Prefetched) -> Condition:
    """`pods` are the selected ones."""
    version = resource.version
    if not resource.artifacts:
        return Condition(TYPE, "True", "NoArtifacts")
    if not prefetched.preloaded:
        return _of_prefetching(version, prefetched)
    staying = [pod for pod in pods if not pod.ending]
    if not staying:
        return Condition(TYPE, "True", "NoPods", "each pod fetches its files before it starts")
    # A pod without the sidecar carries no version, and may have its files all the same.
    ours = [pod for pod in staying if pod.version in ("", version) and fetches(pod)]
    if not ours:
        return Condition(TYPE, "False", "Waiting", f"no pod has begun to fetch version {version!r}")
    return _of_fetching(version, ours)


def _of_prefetching(version: str, prefetched: Prefetched) -> Condition:
    problem = prefetched.problem
    if problem is not None:
        return Condition(TYPE, "False", problem.reason, problem_text(version, problem))
    return Condition(TYPE, "False", "Preloading", preloading_text(version, prefetched))


def _of_fetching(version: str, pods: Sequence[Pod]) -> Condition:
    found = [(pod, fetch_of(pod)) for pod in pods]
    failed = next(((pod, fetch) for pod, fetch in found if fetch.state == "failed"), None)
    if failed is not None:
        pod, fetch = failed
        return Condition(TYPE, "False", fetch.reason, f"version {version!r}: pod {pod.name}: {fetch.message}")
    done = sum(fetch.state == "done" for _, fetch in found)
    if done < len(found):
        return Condition(TYPE, "False", "Fetching", f"version {version!r}: {done} of {len(found)} pods have their files")
    return Condition(TYPE, "True", "Ready")
