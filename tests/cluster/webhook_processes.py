"""Real webhook processes against a real API server, addressed by URL, each with its own service account's kubeconfig.

The certificates are kept by the same `CertificateKeeper` that the controller runs, in a thread of the test.
"""

import asyncio
import json
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final
from urllib.error import HTTPError
from urllib.request import urlopen

import yaml
from tests.cluster.control_plane import ControlPlane
from tests.cluster.loops import hanging_up
from tests.cluster.servers import Server, until

from inference_cache_contract.pod import API_VERSION, KIND, PLURAL
from inference_cache_operator.certificates.keeping import CertificateKeeper, policy_of
from inference_cache_operator.certificates.objects import ROTATE_ANNOTATION, ClusterObjects
from inference_cache_operator.cluster.api import Cluster
from inference_cache_operator.cluster.connecting import connected
from inference_cache_operator.resource import Resource
from inference_cache_operator.settings import Settings
from inference_cache_operator.webhook.configuration import AGAIN, FIRST, LOOKS_LIKE_VLLM, NOT_YET_INJECTED, PATH
from inference_cache_toolkit.processes import free_port

SECONDS: Final = 90.0
PROJECT: Final = Path(__file__).resolve().parents[2]
SECRET: Final = "webhook-certificates"
ACCOUNTS: Final = ("webhook", "controller")
PATIENT_SECONDS: Final = 25
"""The API server waits so long for a webhook, that no pod passes it by for the machine's being slow; clients wait longer."""
LIST_SECONDS: Final = 15.0
"""A webhook waits so long for its resources, for the same reason."""


@dataclass(slots=True)
class Replica:
    """Of the webhook; or of the operator, which listens at `health` only."""

    server: Server
    port: int
    health: int

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}{PATH}"

    def is_ready(self) -> bool:
        return self.answers("/readyz")[0] == 200

    def answers(self, path: str) -> tuple[int, str]:
        try:
            with urlopen(f"http://127.0.0.1:{self.health}{path}", timeout=30) as answer:
                return answer.status, answer.read().decode()
        except HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError as error:
            return 0, str(error)

    def metric(self, line: str) -> float:
        """Of a sample, as it is written: `name{label="value"}`; 0 where it is not there yet."""
        found = [each.split()[-1] for each in self.answers("/metrics")[1].splitlines() if each.startswith(f"{line} ")]
        return float(found[0]) if found else 0.0


@dataclass(slots=True)
class Installed:
    """A webhook configuration for one namespace, and what belongs to it."""

    plane: ControlPlane
    namespace: str
    """Of the pods; the operator's own is `{namespace}-operator`."""
    name: str
    webhooks: list[Replica]
    settings: Settings
    required: list[Resource] = field(default_factory=list)
    keeper: CertificateKeeper | None = None
    patience: int = PATIENT_SECONDS
    """Seconds that the API server waits for a webhook."""

    @property
    def own_namespace(self) -> str:
        return self.settings.own_namespace

    def configuration(self) -> dict[str, Any]:
        path = f"/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/{self.name}"
        return dict(self.plane.api.request("GET", path))

    def secret(self) -> dict[str, Any]:
        return dict(self.plane.api.request("GET", f"/api/v1/namespaces/{self.own_namespace}/secrets/{SECRET}"))

    def rotate(self, value: str) -> None:
        self.plane.api.request(
            "PATCH",
            f"/api/v1/namespaces/{self.own_namespace}/secrets/{SECRET}",
            {"metadata": {"annotations": {ROTATE_ANNOTATION: value}}},
            "application/merge-patch+json",
        )

    def create_cache(self, name: str = "faq", labels: dict[str, str] | None = None, **spec: Any) -> dict[str, Any]:
        body = {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "metadata": {"name": name},
            "spec": {"selector": {"matchLabels": labels or {"app": "vllm"}}, "model": {"name": "m", "version": "v1"}, **spec},
        }
        return dict(self.plane.api.request("POST", f"/apis/{API_VERSION}/namespaces/{self.namespace}/{PLURAL}", body))

    def create_pod(self, pod: dict[str, Any], *, dry_run: bool = False, namespace: str | None = None) -> dict[str, Any]:
        query = "?dryRun=All" if dry_run else ""
        return dict(self.plane.api.request("POST", f"/api/v1/namespaces/{namespace or self.namespace}/pods{query}", pod))


def vllm_pod(app: str = "vllm", annotations: dict[str, str] | None = None, **container: Any) -> dict[str, Any]:
    vllm = {"name": "vllm", "image": "vllm/vllm-openai:v0.11.0", "args": ["--model=m"], **container}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"generateName": "vllm-", "labels": {"app": app}, "annotations": annotations or {}},
        "spec": {"containers": [vllm]},
    }


def is_injected(pod: dict[str, Any]) -> bool:
    return any(each["name"] == "inference-cache" for each in pod["spec"].get("initContainers", []))


@contextmanager
def installed(
    plane: ControlPlane, namespace: str, folder: Path, replicas: int = 2, patience: int = PATIENT_SECONDS, **changes: Any
) -> Iterator[Installed]:
    """Ready: certificates are there, every replica is, and the API server reaches the first."""
    own, name = f"{namespace}-operator", f"ic-{namespace}"
    settings = replace(
        Settings(own_namespace=own, pod_name="keeper"),
        certificate_secret=SECRET,
        webhook_configuration=name,
        certificate_names=("127.0.0.1",),
        certificate_poll=0.5,
        ca_settle=1.0,
        ca_overlap=3.0,
        **{"list_deadline": LIST_SECONDS, **changes},
    )
    _make_objects(plane, own, name, settings.namespaces)
    webhooks = [_replica(plane, own, folder, index, settings) for index in range(replicas)]
    install = Installed(plane, namespace, name, webhooks, settings, patience=patience)
    try:
        _make_configuration(install)
        with _kept_certificates(install, plane.kubeconfig_for(f"{own}/controller")):
            for webhook in webhooks:
                webhook.server.start()
            for webhook in webhooks:
                webhook.server.wait(webhook.is_ready, SECONDS)
            until(lambda: all("caBundle" in each["clientConfig"] for each in install.configuration()["webhooks"]), "caBundle", SECONDS)
            until(lambda: _is_reached(install), "the API server to reach the webhook", SECONDS)
            yield install
    finally:
        for webhook in webhooks:
            with suppress(AssertionError):
                webhook.server.kill()
        plane.api.request("DELETE", f"/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/{name}")
        plane.api.request("DELETE", f"/api/v1/namespaces/{own}")


def probe(nonce: str) -> dict[str, Any]:
    pod = vllm_pod(annotations={"inferencecache.io/probe": nonce})
    pod["metadata"]["generateName"] = "probe-"
    return pod


def _is_reached(install: Installed) -> bool:
    answer = install.create_pod(probe("start"), dry_run=True, namespace=install.own_namespace)
    return len(answer["metadata"]["annotations"].get("inferencecache.io/probed-by", "").split(",")) == min(len(install.webhooks), 2)


def _make_objects(plane: ControlPlane, own: str, name: str, namespaces: Sequence[str]) -> None:
    crds = [document for file in sorted((PROJECT / "crds").glob("*.yaml")) for document in yaml.safe_load_all(file.read_text())]
    rules = [
        {"apiGroups": ["inferencecache.io"], "resources": ["inferencecaches"], "verbs": ["list", "watch"]},
        {"apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": ["create"]},
    ]
    configurations = {
        "apiGroups": ["admissionregistration.k8s.io"],
        "resources": ["mutatingwebhookconfigurations"],
        "resourceNames": [name],
        "verbs": ["get", "patch"],
    }
    secrets = {"apiGroups": [""], "resources": ["secrets"], "resourceNames": [SECRET]}
    rbac = "rbac.authorization.k8s.io/v1"
    objects: list[dict[str, Any]] = [
        *crds,
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": own}},
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": SECRET, "namespace": own}},
        *[
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": each, "namespace": own}}
            for each in ("webhook", "controller")
        ],
        {"apiVersion": rbac, "kind": "ClusterRole", "metadata": {"name": f"{name}-webhook"}, "rules": [] if namespaces else rules},
        *[_role(each, "webhook", *rules) for each in namespaces],
        *[_binding("RoleBinding", "webhook", own, "webhook", "Role", each) for each in namespaces],
        {"apiVersion": rbac, "kind": "ClusterRole", "metadata": {"name": f"{name}-controller"}, "rules": [configurations]},
        _role(own, "webhook", {**secrets, "verbs": ["get"]}),
        _role(own, "controller", {**secrets, "verbs": ["get", "patch"]}),
        *[_binding("RoleBinding", each, own, each, "Role") for each in ACCOUNTS],
        *[_binding("ClusterRoleBinding", f"{name}-{each}", own, each, "ClusterRole") for each in ACCOUNTS],
    ]
    for body in objects:
        plane.kubectl("apply", "--server-side", "-f", "-", stdin=json.dumps(body))
    until(lambda: plane.api.get(f"/apis/{API_VERSION}/{PLURAL}") is not None, "the CRD", SECONDS)
    until(lambda: plane.api.get(f"/api/v1/namespaces/{own}/serviceaccounts/default") is not None, "the default account", SECONDS)


def _role(namespace: str, name: str, *rules: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": {"name": name, "namespace": namespace},
        "rules": list(rules),
    }


def _binding(kind: str, name: str, namespace: str, account: str, role: str, where: str | None = None) -> dict[str, Any]:
    metadata = {"name": name} if kind == "ClusterRoleBinding" else {"name": name, "namespace": where or namespace}
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": kind,
        "metadata": metadata,
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": role, "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": namespace}],
    }


def _replica(plane: ControlPlane, own: str, folder: Path, index: int, settings: Settings) -> Replica:
    port, health = free_port(), free_port()
    command: Sequence[str | Path] = [
        "env", f"KUBECONFIG={plane.kubeconfig_for(f'{own}/webhook')}",
        sys.executable, "-m", "inference_cache_toolkit", "webhook", "--own-namespace", own, "--pod-name", f"webhook-{index}",
        "--listen", f"127.0.0.1:{port}", "--health", f"127.0.0.1:{health}", "--certificate-secret", SECRET,
        "--certificate-poll", f"{settings.certificate_poll}s", "--freshness-every", f"{settings.freshness_every}s",
        "--stale-after", f"{settings.stale_after}s", "--list-deadline", f"{settings.list_deadline}s",
        "--sidecar-image", "inference-cache-sidecar:test",
        *[word for each in settings.namespaces for word in ("--namespace", each)],
        *(["--artifacts-agent", settings.artifacts_agent] if settings.artifacts_agent else []),
    ]  # fmt: skip
    return Replica(Server(f"webhook-{index}", command, folder / f"webhook-{index}.log"), port, health)


def _make_configuration(install: Installed) -> None:
    looks = {"name": "looks-like-vllm", "expression": LOOKS_LIKE_VLLM}
    again = {"name": "not-yet-injected", "expression": NOT_YET_INJECTED}
    names = [FIRST, AGAIN][: len(install.webhooks)]
    entries = [
        {
            "name": name,
            "clientConfig": {"url": webhook.url},
            "failurePolicy": "Ignore",
            "sideEffects": "NoneOnDryRun",
            "admissionReviewVersions": ["v1"],
            "timeoutSeconds": install.patience,
            "reinvocationPolicy": "Never",
            "matchPolicy": "Equivalent",
            "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"], "scope": "Namespaced"}],
            "namespaceSelector": {
                "matchExpressions": [
                    {"key": "kubernetes.io/metadata.name", "operator": "In", "values": [install.namespace, install.own_namespace]}
                ]
            },
            "matchConditions": [looks] if name == FIRST else [looks, again],
        }
        for name, webhook in zip(names, install.webhooks, strict=False)
    ]
    body = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": install.name},
        "webhooks": entries,
    }
    install.plane.kubectl("apply", "-f", "-", stdin=json.dumps(body))


@contextmanager
def _kept_certificates(install: Installed, kubeconfig: Path) -> Iterator[None]:
    ending, started = threading.Event(), threading.Event()

    async def keep() -> None:
        async with hanging_up(), connected(kubeconfig) as client:
            settings = install.settings
            objects = ClusterObjects(Cluster(client, "test"), settings.own_namespace, SECRET, install.name)
            install.keeper = CertificateKeeper(objects, policy_of(settings), settings.certificate_poll, lambda: tuple(install.required))
            running = asyncio.create_task(install.keeper.run())
            started.set()
            while not ending.is_set() and not running.done():
                await asyncio.sleep(0.05)
            # A cancellation can get lost in a call that is just ending.
            while not running.done():
                running.cancel()
                await asyncio.wait([running], timeout=0.5)
            if not running.cancelled():
                running.result()

    thread = threading.Thread(target=lambda: asyncio.run(keep()), name="certificates")
    thread.start()
    try:
        assert started.wait(SECONDS)
        yield
    finally:
        ending.set()
        thread.join(SECONDS)
