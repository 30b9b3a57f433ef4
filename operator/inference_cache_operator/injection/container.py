"""The sidecar's container and the volumes it needs. Pure."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from inference_cache_contract import endpoints, pod
from inference_cache_contract.spec_table import variable_of
from inference_cache_operator.injection import resources
from inference_cache_operator.injection.ports import Addresses
from inference_cache_operator.injection.refusal import Refusal
from inference_cache_operator.injection.revision import IGNORED_NAMES
from inference_cache_operator.resource import Resource

NO_TOKEN_VOLUME: Final = "inference-cache-no-token"  # noqa: S105  an empty folder, so that there is no token
TOKEN_FOLDER: Final = "/var/run/secrets/kubernetes.io/serviceaccount"  # noqa: S105  where Kubernetes would mount one
VOLUMES: Final = (pod.CONFIGURATION_VOLUME, pod.TEMPORARY_VOLUME, NO_TOKEN_VOLUME)
VERSION_VARIABLE: Final = variable_of("--model-version")
FEATURES_PORT_NAME: Final = "ic-features"
USER: Final = 65532
ARTIFACTS_FOLDER: Final = "/var/lib/inference-cache/agent"
_SECRET_KEY: Final = re.compile(r"[-._a-zA-Z0-9]{1,253}")
_SECRETS: Final = (
    (("store", "redis", "urlSecretRef"), endpoints.REDIS_URL_VARIABLE, "url"),
    (("store", "redis", "encryptionKeySecretRef"), endpoints.ENCRYPTION_KEYS_VARIABLE, "key"),
    (("tenancy", "keySecretRef"), endpoints.TENANCY_KEY_VARIABLE, "key"),
    (("sidecar", "adminTokenSecretRef"), endpoints.ADMIN_TOKEN_VARIABLE, "token"),
    (("invalidation", "kafka", "usernameSecretRef"), endpoints.KAFKA_USERNAME_VARIABLE, "username"),
    (("invalidation", "kafka", "passwordSecretRef"), endpoints.KAFKA_PASSWORD_VARIABLE, "password"),
)
"""Where the spec names a secret, the variable that brings it, and the key where the spec names none."""


def _default_resources() -> Mapping[str, str]:
    return {"cpu": "1", "memory": "1Gi"}


@dataclass(frozen=True, slots=True)
class SidecarDefaults:
    """What the operator's installation says of sidecars; a resource's spec.sidecar beats it."""

    image: str
    image_pull_policy: str | None = None
    resources: Mapping[str, str] = field(default_factory=_default_resources)
    """Quantities by name, used as requests and as limits alike; of CPU only where the pod is Guaranteed."""
    log_level: str = "info"
    ignored_names: tuple[str, ...] = IGNORED_NAMES
    """Patterns of variables and options of vLLM that change no answer, and so no revision."""
    artifacts_agent: str = ""
    """URL of the agent of a pod's own node; empty: there are none, and pods fetch for themselves."""
    artifacts_folder: str = ARTIFACTS_FOLDER
    """Of the nodes, in which agents keep a folder for each namespace."""


@dataclass(frozen=True, slots=True)
class Stamp:
    """What is unlike in every pod."""

    version: str
    revision: str
    drain_token: str = field(repr=False)
    guaranteed: bool = True
    """The pod's quality of service is Guaranteed, and is to stay so."""


def sidecar(resource: Resource, defaults: SidecarDefaults, where: Addresses, stamp: Stamp) -> dict[str, Any]:
    """A native sidecar: an init container that runs as long as the pod, started before and ended after vLLM. Raises Refusal."""
    container = {
        "name": pod.SIDECAR_CONTAINER,
        "image": image(resource, defaults),
        "args": _arguments(resource, defaults, where),
        "restartPolicy": "Always",
        "ports": _ports(resource),
        "env": _variables(resource, stamp),
        "resources": _resources(resource, defaults, stamp),
        "readinessProbe": _readiness(where),
        "securityContext": security(),
        "volumeMounts": _mounts(),
    }
    if defaults.image_pull_policy is not None:
        container["imagePullPolicy"] = defaults.image_pull_policy
    return container


def volumes() -> list[dict[str, Any]]:
    configuration = {
        "path": pod.CONFIGURATION_FILE.rsplit("/", 1)[1],
        "fieldRef": {"fieldPath": f"metadata.annotations['{pod.CONFIGURATION_ANNOTATION}']"},
    }
    return [
        {"name": pod.CONFIGURATION_VOLUME, "downwardAPI": {"items": [configuration]}},
        {"name": pod.TEMPORARY_VOLUME, "emptyDir": {}},
        {"name": NO_TOKEN_VOLUME, "emptyDir": {}},
    ]


def has_features(resource: Resource) -> bool:
    return bool(at(resource.spec, "features", "upstream"))


def at(raw: object, *names: str) -> Any:
    """What stands at a path of the spec; None where anything on the way is missing."""
    for name in names:
        raw = raw.get(name) if isinstance(raw, Mapping) else None
    return raw


def image(resource: Resource, defaults: SidecarDefaults) -> str:
    """Raises Refusal."""
    named = str(at(resource.spec, "sidecar", "image") or defaults.image)
    if not named or named != named.strip():
        raise Refusal(
            "SidecarImage", f"{named!r} is no image for the sidecar: set spec.sidecar.image, or that of the operator's installation"
        )
    return named


def _arguments(resource: Resource, defaults: SidecarDefaults, where: Addresses) -> list[str]:
    features = [f"--features={where.any_host}:{endpoints.FEATURES_PORT}"] if has_features(resource) else []
    return [
        "sidecar",
        f"--listen={where.listen_host}:{where.port}",
        f"--upstream=http://{where.upstream_host}:{where.moved}",
        f"--admin={where.any_host}:{endpoints.ADMIN_PORT}",
        *features,
        f"--configuration={pod.CONFIGURATION_FILE}",
        "--supervise",
        f"--cache-name={resource.cache_name}",
        f"--log-level={defaults.log_level}",
    ]


def _ports(resource: Resource) -> list[dict[str, Any]]:
    """Never the one that clients know: it stays declared by vLLM's container, so that everything finds it where it was."""
    features = [{"name": FEATURES_PORT_NAME, "containerPort": endpoints.FEATURES_PORT}] if has_features(resource) else []
    return [{"name": pod.ADMIN_PORT_NAME, "containerPort": endpoints.ADMIN_PORT}, *features]


def _variables(resource: Resource, stamp: Stamp) -> list[dict[str, Any]]:
    return [
        {"name": VERSION_VARIABLE, "value": stamp.version},
        {"name": endpoints.REVISION_VARIABLE, "value": stamp.revision},
        {"name": endpoints.DRAIN_TOKEN_VARIABLE, "value": stamp.drain_token},
        *secrets(resource),
    ]


def secrets(resource: Resource) -> Iterator[dict[str, Any]]:
    """As variables. Optional: the cache goes on without, since a missing secret must not stop inference. Raises Refusal."""
    for path, variable, default in _SECRETS:
        reference = at(resource.spec, *path)
        if at(reference, "name"):
            key = str(reference.get("key") or default)
            if _SECRET_KEY.fullmatch(key) is None:
                raise Refusal("SecretReference", f"spec.{'.'.join(path)}.key: {key!r} cannot be a key of a Secret: write one that is")
            yield {"name": variable, "valueFrom": {"secretKeyRef": {"name": str(reference["name"]), "key": key, "optional": True}}}


def _resources(resource: Resource, defaults: SidecarDefaults, stamp: Stamp) -> dict[str, Any]:
    given = at(resource.spec, "sidecar", "resources")
    wanted = resources.resources(defaults.resources, given, at(resource.spec, "store", "memory", "maxBytes"))
    return wanted if stamp.guaranteed else resources.modest(wanted, given)


def _readiness(where: Addresses) -> dict[str, Any]:
    """A pod whose port is dead must not be Ready; a port that only the pod itself reaches cannot be asked from outside."""
    if where.reachable:
        return {"tcpSocket": {"port": where.port}, "periodSeconds": 5, "timeoutSeconds": 3}
    return {"httpGet": {"path": endpoints.READYZ, "port": endpoints.ADMIN_PORT}, "periodSeconds": 5, "timeoutSeconds": 3}


def security() -> dict[str, Any]:
    """As the Pod Security standard `restricted` wants it."""
    return {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "privileged": False,
        "readOnlyRootFilesystem": True,
        "runAsGroup": USER,
        "runAsNonRoot": True,
        "runAsUser": USER,
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def _mounts() -> list[dict[str, Any]]:
    return [
        {"name": pod.CONFIGURATION_VOLUME, "mountPath": pod.CONFIGURATION_FOLDER, "readOnly": True},
        {"name": pod.TEMPORARY_VOLUME, "mountPath": "/tmp"},  # noqa: S108  the container's own
        {"name": NO_TOKEN_VOLUME, "mountPath": TOKEN_FOLDER, "readOnly": True},
    ]
