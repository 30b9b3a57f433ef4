"""A model server, its Service and its cache on a cluster, as a user would have them, and traffic through the Service.

Tests build on it; what they assert they see from outside: by HTTP, and by what kubectl says.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

APP: Final = "vllm"


@dataclass(frozen=True, slots=True)
class Cluster:
    """What a test needs of one: kubectl, the way in, and the image that takes vLLM's place."""

    kubectl: Callable[..., str]
    """(*arguments, stdin=None) -> what it printed. Raises where it fails."""
    forward: Callable[[str, str, int], str]
    """(namespace, `service/NAME` or `pod/NAME`, port) -> a URL that can be asked from here."""
    image: str

    def apply(self, *objects: Mapping[str, Any], namespace: str) -> None:
        self.kubectl("apply", "-n", namespace, "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)}))

    def get(self, *what: str, namespace: str) -> Any:
        return json.loads(self.kubectl("get", "-n", namespace, *what, "-o", "json"))

    def pods(self, namespace: str, selector: str = f"app={APP}") -> list[dict[str, Any]]:
        return list(self.get("pods", "-l", selector, namespace=namespace)["items"])

    def status(self, namespace: str, name: str = "acme") -> dict[str, Any]:
        return dict(self.get("inferencecache", name, namespace=namespace).get("status") or {})


@dataclass(frozen=True, slots=True)
class Served:
    """A Deployment's wishes."""

    version: str
    replicas: int = 2
    arguments: Sequence[str] = ()
    annotations: Mapping[str, str] = field(default_factory=dict)

    @property
    def root(self) -> str:
        return f"/models/acme-{self.version}"


def service() -> dict[str, Any]:
    ports = [{"name": "http", "port": 80, "targetPort": "http"}]
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": APP}, "spec": {"selector": {"app": APP}, "ports": ports}}


def deployment(image: str, served: Served, name: str = APP) -> dict[str, Any]:
    """As a user writes one, but for the stand-in that takes vLLM's place."""
    container = {
        "name": "server",
        "image": image,
        "imagePullPolicy": "Never",
        "args": [served.root, "--served-model-name", "acme", *served.arguments],
        "ports": [{"name": "http", "containerPort": 8000}],
        "readinessProbe": {"httpGet": {"path": "/health", "port": "http"}, "periodSeconds": 1},
        "resources": {"requests": {"cpu": "20m", "memory": "64Mi"}},
    }
    template = {
        "metadata": {"labels": {"app": APP}, "annotations": dict(served.annotations)},
        "spec": {"containers": [container], "automountServiceAccountToken": False},
    }
    strategy = {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    spec = {"replicas": served.replicas, "selector": {"matchLabels": {"app": APP}}, "template": template, "strategy": strategy}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec}


def cache(version: str, **spec: Any) -> dict[str, Any]:
    small = {"requests": {"cpu": "50m", "memory": "700Mi"}, "limits": {"memory": "700Mi"}}
    fields = {
        "selector": {"matchLabels": {"app": APP}},
        "model": {"name": "acme", "version": version},
        "store": {"memory": {"maxBytes": "64Mi"}},
        "sidecar": {"resources": small},
        "tenancy": {"from": "Shared"},
        # Whether a rephrased question is found must not depend on how busy the machine is.
        "semantic": {"embedder": {"deadline": "2s"}},
        **spec,
    }
    return {"apiVersion": "inferencecache.io/v1alpha1", "kind": "InferenceCache", "metadata": {"name": "acme"}, "spec": fields}


def traffic(image: str, *arguments: str, name: str = "traffic") -> dict[str, Any]:
    container = {
        "name": "traffic",
        "image": image,
        "imagePullPolicy": "Never",
        "command": ["/workload/traffic.py"],
        # As long as the pod lives, however slow the machine.
        "args": [f"http://{APP}", "--seconds", "86400", *arguments],
    }
    spec = {"containers": [container], "restartPolicy": "Never", "terminationGracePeriodSeconds": 1}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": "traffic"}}, "spec": spec}


@dataclass(frozen=True, slots=True)
class Question:
    """What came of one."""

    at: float
    seconds: float
    stream: bool
    failed: str | None
    hit: bool
    cached: bool
    """It went through a sidecar."""
    by: str
    """The model that gave the answer."""
    pod: str | None
    """The model of the pod that sent it; None where that is not known."""
    made: float | None = None
    """When the model gave the answer, where it says so; seconds since 1970."""

    @property
    def of_another_model(self) -> bool:
        return self.failed is None and self.pod is not None and self.by != self.pod


def questions(cluster: Cluster, namespace: str, name: str = "traffic") -> list[Question]:
    """All that came of the traffic so far; nothing before it has begun."""
    lines = cluster.kubectl("logs", "-n", namespace, name, check=False).splitlines()
    return [_question(json.loads(line)) for line in lines if line.startswith("{") and line.endswith("}")]


def _question(told: Mapping[str, Any]) -> Question:
    fine = {name: told.get(name, empty) for name, empty in (("hit", False), ("cached", False), ("by", ""), ("pod", None), ("made", None))}
    return Question(at=told["at"], seconds=told["seconds"], stream=told["stream"], failed=told.get("failed"), **fine)


def condition(status: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    return next((each for each in status.get("conditions") or () if each["type"] == kind), {})


def ready(pod: Mapping[str, Any]) -> bool:
    conditions = pod.get("status", {}).get("conditions") or ()
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def until(seconds: float, what: str, told: Callable[[], Any]) -> Any:
    """What `told` says once it says something; AssertionError with `what` where it never does."""
    for answer in _asking(seconds, told):
        if answer:
            return answer
    raise AssertionError(f"not within {seconds:g} s: {what}")


def _asking(seconds: float, told: Callable[[], Any]) -> Iterator[Any]:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        yield told()
        time.sleep(0.2)
    yield told()
