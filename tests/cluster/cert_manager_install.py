"""The chart with certificates by a real cert-manager, on a control plane without nodes; its pods' commands run as processes."""

import base64
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.cluster.addressed_pods import addressed_pods
from tests.cluster.cert_manager import CertManager, running_cert_manager
from tests.cluster.chart import Helm
from tests.cluster.chart_processes import SecretVolume, process
from tests.cluster.control_plane import ControlPlane, fresh_namespace, running_control_plane
from tests.cluster.controller_running import Sidecars
from tests.cluster.played_kubelet import played_kubelet
from tests.cluster.rights import refused
from tests.cluster.servers import started, until
from tests.cluster.service_proxy import ServiceProxy, service_proxy
from tests.cluster.webhook_processes import Replica, vllm_pod

SECONDS: Final = 300.0
OWN, LLM, OTHER = "caches", "llm-a", "llm-b"
"""Namespaces: the release's, and two of models; pods of the first only get addresses."""
LEAF, AUTHORITY = "inference-cache-certificates", "inference-cache-certificates-ca"
LOADS: Final = "inference_cache_certificate_loads"
OPTIONS: Final = ("--set", "certificates.source=cert-manager,operator.extraArgs={--template-wait=2s}")


@dataclass(slots=True)
class Install:
    """Running: one operator, and both webhooks."""

    plane: ControlPlane
    helm: Helm
    options: Sequence[str]
    cert_manager: CertManager
    webhooks: list[Replica]
    operator: Replica
    volume: SecretVolume

    def configuration(self) -> dict[str, Any]:
        """Of the webhooks."""
        (only,) = self.plane.api.request("GET", "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations")["items"]
        return dict(only)

    def entries(self) -> list[dict[str, Any]]:
        return list(self.configuration()["webhooks"])

    def bundles(self) -> list[bytes]:
        return [base64.b64decode(each["clientConfig"].get("caBundle", "")) for each in self.entries()]

    def create_pod(self, namespace: str = LLM, app: str = "vllm") -> dict[str, Any]:
        """As a dry run."""
        return dict(self.plane.api.request("POST", f"/api/v1/namespaces/{namespace}/pods?dryRun=All", vllm_pod(app)))

    def loads(self) -> list[float]:
        """How many certificates each webhook has served."""
        return [each.metric(LOADS) for each in self.webhooks]

    def failed_open(self) -> list[str]:
        """How often the API server could not call a webhook: samples of its metrics."""
        lines = self.plane.kubectl("get", "--raw", "/metrics").splitlines()
        return [each for each in lines if each.startswith("apiserver_admission_webhook_fail_open_count")]

    def refusals(self) -> list[Any]:
        """Of what the operator and its webhooks asked."""
        users = [f"system:serviceaccount:{OWN}:inference-cache-{each}" for each in ("operator", "webhook")]
        asked = {user: [each for each in self.plane.audit() if each["user"]["username"] == user and "objectRef" in each] for user in users}
        assert all(asked.values()), {user: len(events) for user, events in asked.items()}
        return [refusal for events in asked.values() for refusal in refused(events)]


@contextmanager
def running_install(folder: Path, helm: Path, *options: str) -> Iterator[Install]:
    """On a control plane of its own; `options` are Helm's."""
    with ExitStack() as stack:
        proxy = stack.enter_context(service_proxy())
        plane = stack.enter_context(running_control_plane(folder / "plane", api_server_flags=[proxy.api_server_flag(folder)]))
        for name in (OWN, LLM, OTHER):
            stack.enter_context(fresh_namespace(plane.api, name))
        cert_manager = stack.enter_context(running_cert_manager(plane, OWN, folder / "cert-manager.log"))
        pods = stack.enter_context(addressed_pods(Sidecars(plane.api), LLM))
        stack.enter_context(played_kubelet(plane.api)).becomes_ready = pods.becomes_ready
        chart, values = Helm(helm, plane.kubeconfig), (*OPTIONS, *options)
        chart.install(OWN, *values)
        cert_manager.wait(lambda: bool(cert_manager.secret(LEAF)))
        volume = SecretVolume(folder / "tls")
        volume.put(cert_manager.secret(LEAF))
        (operator, *_), behind = (pods_of(plane, component) for component in ("operator", "webhook"))
        webhooks = [process(plane, each, folder, [f"--tls-folder={volume.folder}"]) for each in behind]
        made = Install(plane, chart, values, cert_manager, webhooks, process(plane, operator, folder), volume)
        route(proxy, plane, behind, webhooks)
        stack.enter_context(started(*(each.server for each in (made.operator, *webhooks))))
        for each in (made.operator, *webhooks):
            each.server.wait(each.is_ready, SECONDS)
        yield made


def pods_of(plane: ControlPlane, component: str) -> list[dict[str, Any]]:
    """The chart's, as its Deployments' controller makes them: two of each component."""
    path = f"/api/v1/namespaces/{OWN}/pods?labelSelector=app.kubernetes.io%2Fcomponent%3D{component}"
    until(lambda: len(plane.api.request("GET", path)["items"]) == 2, f"pods of the {component}", SECONDS)
    return list(plane.api.request("GET", path)["items"])


def route(proxy: ServiceProxy, plane: ControlPlane, pods: list[dict[str, Any]], webhooks: list[Replica]) -> None:
    """Each webhook behind the Service that selects its pod."""
    services = plane.api.request("GET", f"/api/v1/namespaces/{OWN}/services")["items"]
    for service in services:
        for pod, webhook in zip(pods, webhooks, strict=True):
            if service["spec"]["selector"].items() <= pod["metadata"]["labels"].items():
                proxy.routes[f"{service['spec']['clusterIP']}:443"] = webhook.port
    assert len(proxy.routes) == 2
