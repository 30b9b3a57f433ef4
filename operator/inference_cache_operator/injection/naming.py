"""Names for what a pod gets injected, so that an outdated injection is told from a current one. Pure.

Two digests with a dot between. The first is over what the resource asks for: where it differs, pods are replaced. The second is over what
this installation makes of it (its image, its defaults, the form of the injection): where only that differs, as after an upgrade of the
operator, new pods get it and running ones stay.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from inference_cache_operator.injection import artifacts, container, fetching, resources
from inference_cache_operator.injection.container import SidecarDefaults
from inference_cache_operator.injection.ports import Addresses
from inference_cache_operator.injection.refusal import Refusal
from inference_cache_operator.resource import Resource

_FORM: Final = 1
"""Raised when pods are edited in another way than before, so that those injected before count as outdated."""
_FETCHING_FORM: Final = 1
"""Raised when artifacts are brought into pods in another way than before."""
_NOWHERE: Final = Addresses(port=0, moved=0, listen_host="", upstream_host="", any_host="")
_NO_STAMP: Final = container.Stamp(version="", revision="", drain_token="")
_ANY_RESOURCES: Final[Mapping[str, str]] = {"cpu": "1", "memory": "1Gi"}
"""In the place of the installation's; another value here rolls the pods of every cluster."""


def injection_digest(resource: Resource, defaults: SidecarDefaults) -> str:
    """Names what every pod of this resource gets, less what differs from pod to pod and what reaches running sidecars. Raises nothing."""
    return f"{_digest(_asked(resource))}.{_digest(_made(resource, defaults))}"


def asked_part(digest: str) -> str:
    """The half of it that the resource decides."""
    return digest.partition(".")[0]


def installation_digest(defaults: SidecarDefaults) -> str:
    """Names what this installation injects: the same in a webhook and in a controller that agree."""
    anything = Resource(namespace="", name="", uid="", created="", generation=0, spec={})
    agents = [defaults.artifacts_agent, defaults.artifacts_folder]
    return _digest([_made(anything, defaults), defaults.ignored_names, _FETCHING_FORM, agents])


def says_no_prefix_caching(resource: Resource) -> bool:
    return container.at(resource.spec, "prefixCaching", "enabled") is False


def _asked(resource: Resource) -> dict[str, Any]:
    """Told from the spec alone, not by what we make of it: another version of this program must say the same."""
    spec = resource.spec
    return {
        "cache": resource.cache_name,
        "image": container.at(spec, "sidecar", "image") or "",
        "resources": _or_reason(
            lambda: resources.resources(
                _ANY_RESOURCES, container.at(spec, "sidecar", "resources"), container.at(spec, "store", "memory", "maxBytes")
            )
        ),
        "secrets": _or_reason(lambda: list(container.secrets(resource))),
        "features": container.has_features(resource),
        "drain": resource.rollout.drain_seconds,
        "noPrefixCaching": says_no_prefix_caching(resource),
        **_artifacts_asked(resource),
    }


def _artifacts_asked(resource: Resource) -> dict[str, Any]:
    """Nothing where there are none: pods that fetch nothing must not be replaced because others could."""
    version = resource.version_of_new_pods
    if resource.artifacts_of(version) in ((), []):
        return {}
    asked = _or_reason(lambda: sorted([each.digest, each.secret, each.secret_key] for each in artifacts.artifacts_of(resource, version)))
    return {"artifacts": asked, "claim": resource.artifact_claim}


def _made(resource: Resource, defaults: SidecarDefaults) -> dict[str, Any]:
    return {
        "form": _FORM,
        "sidecar": _or_reason(lambda: container.sidecar(resource, defaults, _NOWHERE, _NO_STAMP)),
        "volumes": container.volumes(),
        "drain": resource.rollout.drain_seconds,
        "arguments": says_no_prefix_caching(resource),
        **_artifacts_made(resource, defaults),
    }


def _artifacts_made(resource: Resource, defaults: SidecarDefaults) -> dict[str, Any]:
    """Not by which way files come: running pods have theirs, and nobody need make them anew because agents came or went."""
    way = fetching.Way(resource, defaults, "Pod", guaranteed=True)

    def made() -> object:
        found = artifacts.artifacts_of(resource, resource.version_of_new_pods)
        return [fetching.containers(found, way), fetching.volumes(found, way), fetching.mounts(found)]

    return {"fetching": _or_reason(made)} if resource.artifacts_of(resource.version_of_new_pods) else {}


def _or_reason(make: Callable[[], object]) -> object:
    try:
        return make()
    except Refusal as refusal:
        return refusal.message


def _digest(document: object) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:16]
