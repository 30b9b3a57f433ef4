"""What keeps a pod from being injected, and what its owner should know. Pure."""

import unicodedata
from collections.abc import Iterator, Mapping
from typing import Any, Final

from inference_cache_contract.pod import SIDECAR_CONTAINER, VERSION_ANNOTATION
from inference_cache_operator.injection import arguments, fetching
from inference_cache_operator.injection.container import VOLUMES, at
from inference_cache_operator.injection.finding import Found, annotations_of, containers_of
from inference_cache_operator.injection.refusal import Refusal
from inference_cache_operator.resource import Resource

_PREFIX_CACHING: Final = ("--enable-prefix-caching", "--no-enable-prefix-caching")
_REASONS: Final = {
    "--uds": ("UnixSocket", "vLLM listens on a Unix socket (--uds), not on a port: leave --uds out"),
    "--grpc": ("Grpc", "vLLM serves gRPC (--grpc), which is not cached: leave --grpc out"),
    "--headless": ("MultiNodeWorker", "vLLM runs --headless and serves nothing: select only the pods that answer requests"),
    "--enable-ssl-refresh": ("TlsInVllm", "vLLM ends TLS itself: leave it to a gateway or mesh, and --ssl-… out"),
    "--data-parallel-multi-port-external-lb": (
        "MultiPortDataParallel",
        "vLLM serves each data-parallel rank on a port of its own: use --data-parallel-external-lb or --data-parallel-hybrid-lb",
    ),
}
_SSL: Final = "--ssl-"
_LONGEST_VERSION: Final = 128
_MOST_ANNOTATION_BYTES: Final = 250_000
"""Kubernetes takes 256 KiB; other webhooks, and our own `undo`, want some."""


def check_pod(pod: Mapping[str, Any]) -> None:
    """Raises Refusal."""
    spec = pod.get("spec") or {}
    if spec.get("hostNetwork"):
        raise Refusal("HostNetwork", "the pod uses its node's network, where ports are everybody's: leave hostNetwork out")
    if (spec.get("os") or {}).get("name") == "windows":
        raise Refusal("Windows", "the pod runs on Windows, where neither vLLM nor the sidecar does")
    if any(each.get("name") == SIDECAR_CONTAINER for each in containers_of(pod, "containers", "initContainers")):
        raise Refusal("NameTaken", f"the pod has a container named {SIDECAR_CONTAINER} that is not ours: give it another name")
    if any(each.get("name") in VOLUMES for each in spec.get("volumes") or ()):
        raise Refusal("NameTaken", f"the pod has a volume named as one of ours ({', '.join(VOLUMES)}): give it another name")


def check_names_for_artifacts(pod: Mapping[str, Any]) -> None:
    """Also where there is nothing to fetch: ours are told by their names. Raises Refusal."""
    taken = [each for each in containers_of(pod, "containers", "initContainers") if fetching.is_fetching(each)]
    taken += [each for each in (pod.get("spec") or {}).get("volumes") or () if fetching.is_volume(each)]
    if taken:
        raise Refusal("NameTaken", f"the pod has {taken[0].get('name')}, a name that is kept for artifacts: give it another one")


def check_arguments(found: Found) -> None:
    """Raises Refusal."""
    for name in arguments.flags(found.command.arguments):
        reason = _REASONS["--enable-ssl-refresh"] if name.startswith(_SSL) else _REASONS.get(name)
        if reason is not None:
            raise Refusal(*reason)
    if any(word.text == "--" for word in found.command.arguments):
        raise Refusal("CommandUnknown", "vLLM's arguments contain `--`, behind which no option can be added: leave it out")


def check_version(version: str) -> None:
    """A template's own word for it: what fits the CRD's, so that the sidecar takes it too. Raises Refusal."""
    if len(version) > _LONGEST_VERSION or any(unicodedata.category(each)[0] in "CZ" and each != " " for each in version):
        raise Refusal(
            "Version",
            f"the annotation {VERSION_ANNOTATION} is {version[:_LONGEST_VERSION]!r}: write at most {_LONGEST_VERSION} characters, "
            "without line ends, tabs or other blanks than spaces",
        )


def check_annotations(annotations: Mapping[str, str]) -> None:
    """Raises Refusal where Kubernetes would take no pod with so many."""
    if sum(len(name.encode()) + len(text.encode()) for name, text in annotations.items()) > _MOST_ANNOTATION_BYTES:
        raise Refusal("ConfigurationTooLarge", "the resource's spec is too large for an annotation (256 KiB): make it shorter")


def says_prefix_caching(found: Found) -> bool:
    return any(name in _PREFIX_CACHING for name in arguments.flags(found.command.arguments))


def warnings(pod: Mapping[str, Any], vllm: Mapping[str, Any], found: Found, resource: Resource) -> tuple[str, ...]:
    return tuple(_warnings(pod, vllm, found, resource))


def _warnings(pod: Mapping[str, Any], vllm: Mapping[str, Any], found: Found, resource: Resource) -> Iterator[str]:
    if (vllm.get("lifecycle") or {}).get("preStop"):
        yield (
            f"container {found.name!r} has a preStop hook of its own, which stays: it must wait until nothing is in flight, "
            "or answers may be cut off when the pod ends"
        )
    wanted = at(resource.spec, "prefixCaching", "enabled")
    said = [name for name in arguments.flags(found.command.arguments) if name in _PREFIX_CACHING]
    if isinstance(wanted, bool) and said and wanted != (said[-1] == _PREFIX_CACHING[0]):
        yield f"spec.prefixCaching.enabled is {str(wanted).lower()}, but container {found.name!r} says {said[-1]}, which stays"
    if (pod.get("spec") or {}).get("resources"):
        yield "spec.resources is set for the whole pod: the sidecar gets no resources of its own, so leave it room there"
    if "sidecar.istio.io/status" in annotations_of(pod) and (pod.get("spec") or {}).get("containers"):
        yield "Istio was injected before the cache: probes that its agent answers reach vLLM through the sidecar"
