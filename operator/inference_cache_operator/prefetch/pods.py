"""The pods that fetch ahead: one for a node, or one for a claim. Pure; `deciding` says which there are to be."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from inference_cache_contract.pod import API_VERSION, GROUP, INJECT_ANNOTATION, KIND
from inference_cache_operator.audit.pods import Pod
from inference_cache_operator.resource import Resource

PREFETCH_LABEL: Final = f"{GROUP}/prefetch"
"""Its resource's uid."""
CONTENT_ANNOTATION: Final = f"{GROUP}/prefetches"
"""Names what it fetches, and how."""
NODE_ANNOTATION: Final = f"{GROUP}/prefetch-node"
LEFT_ALONE: Final = {INJECT_ANNOTATION: "false", "sidecar.istio.io/inject": "false", "linkerd.io/inject": "disabled"}
"""Annotations by which nobody puts a sidecar into a pod that is to end."""
_LIKE: Final = ("serviceAccountName", "imagePullSecrets", "priorityClassName")
_GROUPS: Final = ("fsGroup", "fsGroupChangePolicy", "supplementalGroups", "seLinuxOptions")
"""Of a pod's security context: what lets it write to a claim as the other pods do."""
_ON_ANY: Final = {"operator": "Exists", "effect": "NoSchedule"}
"""A pod that stays on a cordoned or tainted node must not hold up all others."""
_LONGEST_STEM: Final = 40


@dataclass(frozen=True, slots=True)
class Content:
    """What is fetched, as containers and volumes."""

    containers: Sequence[Mapping[str, Any]] = field(repr=False)
    volumes: Sequence[Mapping[str, Any]] = field(repr=False)

    @property
    def digest(self) -> str:
        return _digest([self.containers, self.volumes])


@dataclass(frozen=True, slots=True)
class Place:
    node: str
    """Empty: any of `nodes`."""
    like: Mapping[str, Any] = field(default_factory=dict)
    """What lets a pod onto this node, as a pod that is there has it: parts of its spec."""
    nodes: tuple[str, ...] = ()


def places(pods: Iterable[Pod]) -> dict[str, Place]:
    """By node, of the pods that stay; where several are on a node, like the oldest."""
    found: dict[str, Place] = {}
    for pod in sorted(pods, key=lambda each: (each.created, each.name)):
        node = node_name(pod)
        if node and not pod.ending:
            found.setdefault(node, Place(node, _like(pod.body["spec"])))
    return found


def claim_place(pods: Iterable[Pod]) -> dict[str, Place]:
    """One, of no node: any of those will do that run the pods; like the oldest of them."""
    found = places(pods)
    first = next(iter(found.values()), None)
    return {} if first is None else {"": Place("", first.like, tuple(sorted(found)))}


def prefetch_pod(resource: Resource, content: Content, place: Place) -> dict[str, Any]:
    """Passes Pod Security `restricted` where its containers do. The same body every time, so that it is never made twice."""
    *before, last = content.containers
    digest = content.digest
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": _name(resource, digest, place),
            "namespace": resource.namespace,
            "labels": {PREFETCH_LABEL: resource.uid},
            "annotations": {**LEFT_ALONE, CONTENT_ANNOTATION: digest, NODE_ANNOTATION: place.node},
            "ownerReferences": [_owner(resource)],
        },
        "spec": {
            **place.like,
            "affinity": {"nodeAffinity": _only_on(place.nodes or (place.node,))},
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "restartPolicy": "OnFailure",
            "terminationGracePeriodSeconds": 10,
            "initContainers": list(before),
            "containers": [last],
            "volumes": list(content.volumes),
        },
    }


def is_prefetching(pod: Mapping[str, Any]) -> bool:
    """Such a pod is nobody's vLLM, whatever a selector says."""
    return PREFETCH_LABEL in ((pod.get("metadata") or {}).get("labels") or {})


def content_of(pod: Pod) -> str:
    return pod.annotations.get(CONTENT_ANNOTATION, "")


def node_of(pod: Pod) -> str:
    return pod.annotations.get(NODE_ANNOTATION, "")


def node_name(pod: Pod) -> str:
    """Where it is; empty: it has no node yet."""
    return str((pod.body.get("spec") or {}).get("nodeName") or "")


def may_run(pod: Pod, place: Place) -> bool:
    """Whether a pod that fetches is, or can come, where it is to be."""
    return not place.nodes or not set(place.nodes).isdisjoint([node_name(pod)] if node_name(pod) else _let_onto(pod))


def _like(spec: Mapping[str, Any]) -> dict[str, Any]:
    given = spec.get("securityContext") or {}
    security = {name: given[name] for name in _GROUPS if given.get(name) is not None}
    return {
        **{name: spec[name] for name in _LIKE if spec.get(name)},
        "tolerations": [*(spec.get("tolerations") or ()), _ON_ANY],
        "securityContext": {**security, "runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
    }


def _name(resource: Resource, content: str, place: Place) -> str:
    stem = resource.name[:_LONGEST_STEM].replace(".", "-").rstrip("-")
    return f"{stem}-prefetch-{_digest([resource.uid, content, place.node, place.like])[:10]}"


def _owner(resource: Resource) -> dict[str, Any]:
    """By which it goes with its resource, and no ReplicaSet takes it for its own."""
    return {"apiVersion": API_VERSION, "kind": KIND, "name": resource.name, "uid": resource.uid, "controller": True}


def _only_on(nodes: Iterable[str]) -> dict[str, Any]:
    """Left to the scheduler, so that a node without room is waited for. A term names one node: Kubernetes takes no more."""
    terms = [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]} for node in nodes]
    return {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}


def _let_onto(pod: Pod) -> list[str]:
    """The nodes of `_only_on`."""
    affinity = (pod.body.get("spec") or {}).get("affinity") or {}
    required = (affinity.get("nodeAffinity") or {}).get("requiredDuringSchedulingIgnoredDuringExecution") or {}
    fields = [each for term in required.get("nodeSelectorTerms") or () for each in term.get("matchFields") or ()]
    return [str(value) for each in fields for value in each.get("values") or ()]


def _digest(document: object) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:16]
