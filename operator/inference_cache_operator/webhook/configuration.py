"""The MutatingWebhookConfiguration: what the chart writes and what the controller adds to it. Pure; a test compares the chart's copy.

Every pod is offered to two groups of webhook replicas, one entry after the other: where the first is frozen or gone, the API server
lets the pod pass after the timeout, and the second injects it. Both are `Ignore`. Resources with artifacts have a `Fail` entry each
behind the two: it is asked only if neither has injected the pod.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

from inference_cache_contract.pod import GROUP, INJECTION_ANNOTATION, SIDECAR_CONTAINER
from inference_cache_operator.resource import Resource

FIRST: Final = f"pods.{GROUP}"
AGAIN: Final = f"pods-again.{GROUP}"
REQUIRED_PREFIX: Final = "required-"
PATH: Final = "/mutate"
REQUIRED_PATH: Final = "/mutate-required"
TIMEOUT_SECONDS: Final = 5
"""More than a webhook takes to give up on its own calls; twice it is what a pod waits at worst."""
FIELD_MANAGER: Final = "inference-cache-certificates"

LOOKS_LIKE_VLLM: Final = (
    "(has(object.metadata.annotations) && object.metadata.annotations.exists(name, name.startsWith('inferencecache.io/'))) || "
    "object.spec.containers.exists(c, (has(c.image) && c.image.contains('vllm')) || "
    "(has(c.command) && c.command.exists(text, text.contains('vllm'))) || "
    "(has(c.args) && c.args.exists(text, text.contains('vllm'))) || "
    "(has(c.env) && c.env.exists(e, has(e.value) && e.value.contains('vllm')) && "
    "((has(c.command) && c.command.exists(text, text.contains('$'))) || (has(c.args) && c.args.exists(text, text.contains('$'))))))"
)
"""CEL: only such pods are sent to the webhook. Whatever injection understands must pass it. The chart holds the same text."""
NOT_YET_INJECTED: Final = (
    f"!(has(object.metadata.annotations) && '{INJECTION_ANNOTATION}' in object.metadata.annotations && "
    f"has(object.spec.initContainers) && object.spec.initContainers.exists(c, c.name == '{SIDECAR_CONTAINER}'))"
)
"""CEL: of all entries but the first. The chart holds the same text."""


def required_name(resource: Resource) -> str:
    """Of the `Fail` entry of a resource with artifacts."""
    return f"{REQUIRED_PREFIX}{hashlib.sha256(resource.cache_name.encode()).hexdigest()[:16]}.{GROUP}"


def wanted_entries(present: Mapping[str, Any], bundle: str | None, required: Sequence[Resource]) -> list[dict[str, Any]]:
    """What of the configuration is ours: caBundle (base64) of the chart's entries, and whole `Fail` entries. None: caBundle is not ours."""
    entries = {entry["name"]: entry for entry in present.get("webhooks") or ()}
    caught = {} if bundle is None else {"caBundle": bundle}
    charts = [{"name": name, "clientConfig": dict(caught)} for name in (FIRST, AGAIN) if name in entries and caught]
    pattern = entries.get(AGAIN) or entries.get(FIRST)
    if pattern is None:
        return []
    resources = sorted((each for each in required if each.artifacts and not each.deleting), key=lambda each: each.cache_name)
    return charts + [_required_entry(each, pattern["clientConfig"], caught) for each in resources]


def apply_body(present: Mapping[str, Any], entries: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """For server-side apply; None if nothing would change. It changes the object that was read, and never makes one."""
    if _is_applied(present, entries):
        return None
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": present["metadata"]["name"], "uid": present["metadata"]["uid"]},
        "webhooks": list(entries),
    }


def pruning_body(present: Mapping[str, Any], entries: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """For a merge patch: without `Fail` entries that are not wanted any more; None if there are none.

    Server-side apply could not take one away that cert-manager has written a caBundle into: its rest would be left, and be refused.
    """
    ours = {entry["name"] for entry in entries}
    there = present.get("webhooks") or ()
    kept = [entry for entry in there if entry["name"] in ours or not _is_required(entry["name"])]
    if len(kept) == len(there):
        return None
    return {"metadata": {"resourceVersion": present["metadata"]["resourceVersion"]}, "webhooks": kept}


def bundle_is_known(present: Mapping[str, Any], bundle: str) -> bool:
    """All our entries have it."""
    ours = [entry for entry in present.get("webhooks") or () if entry["name"].endswith(f".{GROUP}")]
    return bool(ours) and all(entry["clientConfig"].get("caBundle") == bundle for entry in ours)


def _required_entry(resource: Resource, client: Mapping[str, Any], caught: Mapping[str, str]) -> dict[str, Any]:
    return {
        "name": required_name(resource),
        "clientConfig": {**_addressed(client), **caught},
        "failurePolicy": "Fail",
        "sideEffects": "NoneOnDryRun",
        "admissionReviewVersions": ["v1"],
        "timeoutSeconds": TIMEOUT_SECONDS,
        "reinvocationPolicy": "Never",
        "matchPolicy": "Equivalent",
        "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"], "scope": "Namespaced"}],
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": resource.namespace}},
        "objectSelector": dict(resource.selector),
        "matchConditions": [
            {"name": "looks-like-vllm", "expression": LOOKS_LIKE_VLLM},
            {"name": "not-yet-injected", "expression": NOT_YET_INJECTED},
        ],
    }


def _addressed(client: Mapping[str, Any]) -> dict[str, Any]:
    """The same server, asked by the path that may refuse."""
    trusted = {"caBundle": client["caBundle"]} if client.get("caBundle") else {}
    if service := client.get("service"):
        return {"service": {**service, "path": REQUIRED_PATH}, **trusted}
    return {"url": str(client["url"]).rsplit("/", 1)[0] + REQUIRED_PATH, **trusted}


def _is_required(name: str) -> bool:
    return name.startswith(REQUIRED_PREFIX) and name.endswith(f".{GROUP}")


def _is_applied(present: Mapping[str, Any], entries: Sequence[Mapping[str, Any]]) -> bool:
    there = {entry["name"]: entry for entry in present.get("webhooks") or ()}
    return all(_holds(there.get(entry["name"]), entry) for entry in entries)


def _holds(present: Any, wanted: Any) -> bool:
    """What is wanted is there; more may be, such as defaults."""
    if isinstance(wanted, Mapping):
        return isinstance(present, Mapping) and all(_holds(present.get(name), value) for name, value in wanted.items())
    if isinstance(wanted, list):
        return isinstance(present, list) and len(present) == len(wanted) and all(map(_holds, present, wanted))
    return bool(present == wanted)
