"""A Redis in a namespace of a node, its address in a Secret, and a look into what a cache keeps there."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

import redis
from tests.cluster.story import Cluster, ready, until
from tests.images import building

from inference_cache_contract.keyspace import Keyspace

NAME: Final = "redis"
PORT: Final = 6379
START_SECONDS: Final = 120.0
SPEC: Final[Mapping[str, Any]] = {
    "memory": {"maxBytes": "64Mi"},
    "redis": {"urlSecretRef": {"name": NAME, "key": "url"}, "deadline": "2s"},
}
"""A resource's `store` that uses it. Whether an answer is found there must not depend on how busy the machine is."""


@dataclass(frozen=True, slots=True)
class SharedStore:
    client: "redis.Redis"
    cache: Keyspace

    def entries(self, version: str) -> frozenset[bytes]:
        """Keys of the entries of a model version."""
        return frozenset(self.client.scan_iter(match=self.cache.entries_of(version), count=1000))


def shared_store(cluster: Cluster, load: Callable[..., object], namespace: str, cache: str = "acme") -> SharedStore:
    """Started, and asked from here."""
    image = building.redis()
    load(image.archive)
    cluster.apply(*_objects(image.reference), namespace=namespace)
    until(START_SECONDS, "Redis is Ready", lambda: all(map(ready, cluster.pods(namespace, f"app={NAME}"))))
    address = urlsplit(cluster.forward(namespace, f"service/{NAME}", PORT))
    client = redis.Redis(host=address.hostname or "", port=address.port or PORT)
    until(START_SECONDS, "Redis answers", lambda: _answers(client))
    return SharedStore(client, Keyspace(f"{namespace}/{cache}"))


def _answers(client: "redis.Redis") -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False


def _objects(image: str) -> list[dict[str, Any]]:
    container = {
        "name": NAME,
        "image": image,
        "imagePullPolicy": "Never",
        "ports": [{"containerPort": PORT}],
        "readinessProbe": {"tcpSocket": {"port": PORT}, "periodSeconds": 1},
    }
    labels = {"app": NAME}
    pod = {"containers": [container], "terminationGracePeriodSeconds": 1, "automountServiceAccountToken": False}
    return [
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": NAME}, "stringData": {"url": f"redis://{NAME}:{PORT}/0"}},
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": NAME}, "spec": {"selector": labels, "ports": [{"port": PORT}]}},
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": NAME, "labels": labels}, "spec": pod},
    ]
