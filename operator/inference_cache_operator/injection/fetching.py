"""The init containers that fetch a pod's artifacts, the volume they share with vLLM's container, and where it is mounted there. Pure.

A layer of its own over the pod, with its own record of what to undo: a pod that cannot have the sidecar gets it all the same.
"""

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from inference_cache_contract.pod import GROUP
from inference_cache_operator.injection import delivery, resources
from inference_cache_operator.injection.artifacts import Artifact, trees_in_use
from inference_cache_operator.injection.container import TOKEN_FOLDER, SidecarDefaults, image, security
from inference_cache_operator.injection.delivery import STORE_VOLUME, Delivery
from inference_cache_operator.injection.refusal import Refusal
from inference_cache_operator.resource import Resource

ARTIFACTS_ANNOTATION: Final = f"{GROUP}/artifacts"
"""On a pod that fetches: what `undone` needs."""
CONTAINER: Final = "inference-cache-fetch-"
"""And the artifact's number."""
STORE: Final = "/var/lib/inference-cache/artifacts"
MANIFEST_VARIABLE: Final = "INFERENCE_CACHE_MANIFEST"
_TEMPORARY_VOLUME: Final = "inference-cache-fetch-tmp"
_NO_TOKEN_VOLUME: Final = "inference-cache-fetch-no-token"  # noqa: S105  an empty folder, so that there is no token
_CREDENTIALS_VOLUME: Final = "inference-cache-credentials-"
_CREDENTIALS: Final = "/var/run/inference-cache/credentials-"
_MESSAGE: Final = "/dev/termination-log"
"""Where Kubernetes reads why a container failed, unless told otherwise."""
_OURS: Final = re.compile(f"{CONTAINER}[0-9]+")
_VOLUMES: Final = re.compile(f"{STORE_VOLUME}|{_TEMPORARY_VOLUME}|{_NO_TOKEN_VOLUME}|{delivery.TOKEN_VOLUME}|{_CREDENTIALS_VOLUME}[0-9]+")
_MOST_MANIFEST_BYTES: Final = 100_000
"""Linux takes 128 KiB in one variable."""


def is_fetching(container: Mapping[str, Any]) -> bool:
    """Told by its name, in a pod's spec or status."""
    return _OURS.fullmatch(str(container.get("name") or "")) is not None


def is_volume(volume: Mapping[str, Any]) -> bool:
    return _VOLUMES.fullmatch(str(volume.get("name") or "")) is not None


@dataclass(frozen=True, slots=True)
class Way:
    """What is the same for all containers of a pod."""

    resource: Resource
    defaults: SidecarDefaults
    delivery: Delivery
    guaranteed: bool = False
    has_store: bool = True
    """False: the agent is made to have the files, and that is all."""

    @property
    def fills_store(self) -> bool:
        """Only the agent writes a node's folder."""
        return self.has_store and self.delivery != "HostPath"


def way_of(spec: Mapping[str, Any], resource: Resource, defaults: SidecarDefaults) -> Way:
    """To a pod of this spec, that runs vLLM."""
    return Way(resource, defaults, delivery.delivery_of(resource, defaults, spec), resources.is_guaranteed(spec))


def containers(artifacts: Sequence[Artifact], way: Way, keep: Collection[str] = ()) -> list[dict[str, Any]]:
    """One after the other, so that one connection limit and one memory limit hold for all. Raises Refusal.

    `keep` are trees that other pods use, and that must not make room for these.
    """
    kept = {each.tree for each in artifacts} | set(keep)
    return [_container(index, each, way, sorted(kept - {each.tree})) for index, each in enumerate(artifacts)]


def volumes(artifacts: Sequence[Artifact], way: Way) -> list[dict[str, Any]]:
    return list(_volumes(artifacts, way))


def prefetching(
    artifacts: Sequence[Artifact], resource: Resource, defaults: SidecarDefaults
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Containers and volumes of a pod that fetches ahead: has the agent of its node do it, or fills the claim. Raises Refusal."""
    found = delivery.delivery_of(resource, defaults, {})
    way = Way(resource, defaults, found, has_store=not delivery.by_agent(found))
    made = containers(artifacts, way, others_in_use(way))
    return [{**each, "resources": resources_ahead()} for each in made], volumes(artifacts, way)


def resources_ahead() -> dict[str, dict[str, str]]:
    """Of containers in a pod of their own: a quota on limits of CPU lets them in, and there is room for them on a full node."""
    return {
        "requests": resources.of_fetching(guaranteed=False)["requests"],
        "limits": resources.of_fetching(guaranteed=True)["limits"],
    }


def others_in_use(way: Way) -> frozenset[str]:
    """Trees that pods of another version may use, where pods share a store."""
    return trees_in_use(way.resource) if delivery.is_shared(way.delivery) else frozenset()


def mounts(artifacts: Sequence[Artifact]) -> list[dict[str, Any]]:
    """For vLLM's container."""
    return [
        {"name": STORE_VOLUME, "mountPath": each.mount_path, "subPath": f"trees/{each.tree}/files", "readOnly": True} for each in artifacts
    ]


def _volumes(artifacts: Sequence[Artifact], way: Way) -> Iterator[dict[str, Any]]:
    if way.has_store:
        yield {"name": STORE_VOLUME, **delivery.store(way.delivery, way.resource, way.defaults)}
    yield {"name": _TEMPORARY_VOLUME, "emptyDir": {}}
    yield {"name": _NO_TOKEN_VOLUME, "emptyDir": {}}
    if delivery.by_agent(way.delivery):
        yield delivery.token_volume()
    yield from (_credentials(index, each) for index, each in enumerate(artifacts) if each.secret)


def _container(index: int, artifact: Artifact, way: Way, keep: Sequence[str]) -> dict[str, Any]:
    container = {
        "name": f"{CONTAINER}{index}",
        "image": image(way.resource, way.defaults),
        "args": [_literal(each) for each in _arguments(index, artifact, way, keep)],
        "env": list(_variables(artifact)),
        "resources": resources.of_fetching(guaranteed=way.guaranteed),
        "securityContext": security(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": list(_mounts(index, artifact, way)),
    }
    pull_policy = way.defaults.image_pull_policy
    return container if pull_policy is None else {**container, "imagePullPolicy": pull_policy}


def _arguments(index: int, artifact: Artifact, way: Way, keep: Sequence[str]) -> Iterator[str]:
    yield "fetch"
    yield from artifact.sources
    yield f"--version={artifact.version}"
    yield from delivery.arguments(way.delivery, way.defaults, fills_store=way.fills_store)
    if way.has_store:
        yield f"--store={STORE}"
    yield f"--holder={way.resource.namespace}.{way.resource.name}"
    if artifact.manifest is not None:
        yield f"--manifest=env:{MANIFEST_VARIABLE}"
    elif artifact.manifest_sha256:
        yield f"--manifest-sha256={artifact.manifest_sha256}"
    if not artifact.verify:
        yield "--verify=None"
    if artifact.secret:
        yield f"--credentials-dir={_CREDENTIALS}{index}"
    yield f"--termination-message={_MESSAGE}"
    yield from (f"--keep={each}" for each in keep)


def _variables(artifact: Artifact) -> Iterator[dict[str, Any]]:
    yield {"name": "HOME", "value": "/tmp"}  # noqa: S108  the container's own
    if artifact.manifest is None:
        return
    files = [{"path": each.path, "size": each.size, "sha256": each.sha256} for each in artifact.manifest.files]
    text = _literal(json.dumps({"files": files}, separators=(",", ":"), ensure_ascii=False))
    if len(text.encode()) > _MOST_MANIFEST_BYTES:
        raise Refusal(
            "ManifestTooLarge", "a manifest in the resource is too long for a container: lay it beside the files, and pin it by sha256"
        )
    yield {"name": MANIFEST_VARIABLE, "value": text}


def _literal(text: str) -> str:
    """Kubernetes puts variables in the place of `$(NAME)`."""
    return text.replace("$", "$$")


def _mounts(index: int, artifact: Artifact, way: Way) -> Iterator[dict[str, Any]]:
    if way.has_store:
        yield {"name": STORE_VOLUME, "mountPath": STORE, **({} if way.fills_store else {"readOnly": True})}
    yield {"name": _TEMPORARY_VOLUME, "mountPath": "/tmp"}  # noqa: S108  the container's own
    yield {"name": _NO_TOKEN_VOLUME, "mountPath": TOKEN_FOLDER, "readOnly": True}
    if delivery.by_agent(way.delivery):
        yield delivery.token_mount()
    if artifact.secret:
        yield {"name": f"{_CREDENTIALS_VOLUME}{index}", "mountPath": f"{_CREDENTIALS}{index}", "readOnly": True}


def _credentials(index: int, artifact: Artifact) -> dict[str, Any]:
    secret: dict[str, Any] = {"secretName": artifact.secret}
    if artifact.secret_key:
        secret["items"] = [{"key": artifact.secret_key, "path": artifact.secret_key}]
    return {"name": f"{_CREDENTIALS_VOLUME}{index}", "secret": secret}
