"""Files of a model in an S3 of the cluster, a resource that wants them, and what of it is seen from outside."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final

from tests.cluster.s3 import BUCKET, NAME
from tests.cluster.story import Cluster, cache, condition, ready

from inference_cache_artifacts.manifest import File, manifest_of
from inference_cache_contract.pod import VERSION_ANNOTATION

WEIGHTS: Final = "weights/a.bin"


def files(version: str) -> dict[str, bytes]:
    return {"config.json": json.dumps({"version": version}).encode(), WEIGHTS: version.encode() * 2_000_000, "empty": b""}


def manifest(version: str) -> str:
    return manifest_of(File(path, len(data), hashlib.sha256(data).hexdigest()) for path, data in files(version).items()).text()


def corrupt(version: str) -> dict[str, bytes]:
    return files(version) | {WEIGHTS: files(version)[WEIGHTS][:-1] + b"x"}


def weights_digest(version: str) -> str:
    return hashlib.sha256(files(version)[WEIGHTS]).hexdigest()


def with_artifacts(version: str, mount_path: str, **model: Any) -> dict[str, Any]:
    """The resource."""
    source = {"source": f"s3://{BUCKET}/{version}/", "mountPath": mount_path, "credentialsSecretRef": {"name": NAME}}
    return cache(version, model={"name": "acme", "version": version, "artifacts": [source], **model})


def of_version(cluster: Cluster, namespace: str, version: str) -> list[dict[str, Any]]:
    return [pod for pod in cluster.pods(namespace) if pod["metadata"].get("annotations", {}).get(VERSION_ANNOTATION) == version]


def artifacts_ready(cluster: Cluster, namespace: str) -> Any:
    return condition(cluster.status(namespace), "ArtifactsReady")


def digest_in(cluster: Cluster, namespace: str, pod: Mapping[str, Any], path: str) -> str:
    told = cluster.kubectl("exec", "-n", namespace, pod["metadata"]["name"], "-c", "server", "--", "sha256sum", path)
    return str(told.split()[0])


def is_served(cluster: Cluster, namespace: str, version: str, replicas: int) -> bool:
    """By so many pods, all of them Ready, and by no other."""
    status, pods = cluster.status(namespace), of_version(cluster, namespace, version)
    served = status.get("activeVersion") == version and condition(status, "Ready").get("reason") == "Ready"
    return served and [ready(pod) for pod in pods] == [True] * replicas and len(cluster.pods(namespace)) == replicas


def phase_of(cluster: Cluster, namespace: str, name: str) -> str:
    return str(cluster.get("pod", name, namespace=namespace)["status"].get("phase"))
