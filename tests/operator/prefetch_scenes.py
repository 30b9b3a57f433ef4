"""A resource whose version changes, the pods of its old one, and the pods that fetch ahead, as kubelet tells of them."""

import json
from collections.abc import Mapping
from typing import Any

from inference_cache_contract.pod import CACHE_ANNOTATION, VERSION_ANNOTATION
from inference_cache_operator.audit.pods import Pod, read_pod
from inference_cache_operator.audit.standing import Audited, Standing
from inference_cache_operator.injection.artifacts import artifacts_of
from inference_cache_operator.injection.container import SidecarDefaults
from inference_cache_operator.injection.fetching import prefetching
from inference_cache_operator.prefetch.pods import Content
from inference_cache_operator.resource import Resource
from inference_cache_operator.versions.times import text_of

NOW = 1_800_000_000.0
AGENT = SidecarDefaults("sidecar:1", artifacts_agent="http://agent.ic.svc:9182")
CORRUPT = json.dumps({"reason": "Corrupt", "file": "model.safetensors", "message": "model.safetensors: its SHA-256 is another"})


def artifact(version: str, mount: str = "/models") -> dict[str, Any]:
    return {"source": f"s3://models/faq/{version}{mount}/", "mountPath": mount, "credentialsSecretRef": {"name": "s3"}}


def cache(version: str = "v2", *, claim: str | None = None, count: int = 1, status: Mapping[str, Any] | None = None) -> Resource:
    """`count`: of its artifacts."""
    storage = {"artifactStorage": {"persistentVolumeClaim": {"claimName": claim}}} if claim else {}
    model = {"version": version, "artifacts": [artifact(version, f"/models{number}") for number in range(count)], **storage}
    spec = {"selector": {"matchLabels": {"app": "vllm"}}, "model": model}
    told = {"activeVersion": "v1", "activeArtifacts": [artifact("v1")]} if status is None else status
    return Resource("llm", "faq", "uid", "2026-01-01T00:00:00Z", 1, spec, told)


def content(resource: Resource, defaults: SidecarDefaults = AGENT) -> Content:
    return Content(*prefetching(artifacts_of(resource, resource.version), resource, defaults))


def vllm(node: str = "n1", version: str = "v1", *, name: str = "", ending: bool = False, **spec: Any) -> Audited:
    name = name or f"{version}-{node}"
    metadata: dict[str, Any] = {
        "namespace": "llm",
        "name": name,
        "uid": name,
        "labels": {"app": "vllm"},
        "annotations": {CACHE_ANNOTATION: "faq", VERSION_ANNOTATION: version},
        "creationTimestamp": text_of(NOW - 1000),
        **({"deletionTimestamp": text_of(NOW)} if ending else {}),
    }
    return Audited(read_pod({"metadata": metadata, "spec": {"nodeName": node, **spec} if node else spec}), Standing.INJECTED)


def made(body: Mapping[str, Any], status: Mapping[str, Any] | None = None, *, age: float = 5.0, ending: bool = False) -> Pod:
    """A pod of that body, as the API server has it."""
    metadata = {**body["metadata"], "uid": f"uid-{body['metadata']['name']}", "creationTimestamp": text_of(NOW - age)}
    return read_pod({**body, "metadata": {**metadata, **({"deletionTimestamp": text_of(NOW)} if ending else {})}, "status": status or {}})


def succeeded(body: Mapping[str, Any]) -> dict[str, Any]:
    return {"phase": "Succeeded", "containerStatuses": [_ended(each, {"exitCode": 0}) for each in body["spec"]["containers"]]}


def running(body: Mapping[str, Any]) -> dict[str, Any]:
    told = [{"name": each["name"], "state": {"running": {}}} for each in body["spec"]["containers"]]
    return {"phase": "Running", "containerStatuses": told, "conditions": [{"type": "Ready", "status": "True"}]}


def failed(body: Mapping[str, Any], message: str = CORRUPT) -> dict[str, Any]:
    return {
        "phase": "Running",
        "containerStatuses": [_ended(each, {"exitCode": 1, "message": message}) for each in body["spec"]["containers"]],
    }


def _ended(container: Mapping[str, Any], how: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": container["name"], "state": {"terminated": {"reason": "Error", "finishedAt": text_of(NOW), **how}}}
