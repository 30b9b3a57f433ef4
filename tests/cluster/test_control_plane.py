"""The control plane that other tests build on, and the kubelet that is played on it."""

import base64
import json
import os
import signal
import ssl
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from tests.cluster.certificates import Pair
from tests.cluster.control_plane import ControlPlane, running_control_plane
from tests.cluster.errors import CommandFailed
from tests.cluster.kubeconfig import Kubectl
from tests.cluster.played_kubelet import played_kubelet
from tests.cluster.servers import until

pytestmark = [pytest.mark.services, pytest.mark.slow]
SECONDS = 90.0
PROJECT = Path(__file__).resolve().parents[2]


def deployment(replicas: int) -> dict[str, Any]:
    containers = [{"name": "main", "image": "example.com/main:1"}]
    sidecars = [{"name": "side", "image": "example.com/side:1", "restartPolicy": "Always"}]
    template = {"metadata": {"labels": {"app": "one"}}, "spec": {"initContainers": sidecars, "containers": containers}}
    spec = {"replicas": replicas, "selector": {"matchLabels": {"app": "one"}}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "one"}, "spec": spec}


def pods(plane: ControlPlane, namespace: str) -> list[dict[str, Any]]:
    return list(plane.api.request("GET", f"/api/v1/namespaces/{namespace}/pods")["items"])


def test_a_rollout_goes_through_where_the_kubelet_is_played(control_plane: ControlPlane, namespace: str) -> None:
    with played_kubelet(control_plane.api, namespace):
        control_plane.kubectl("apply", "-n", namespace, "-f", "-", stdin=json.dumps(deployment(3)))
        control_plane.kubectl("rollout", "status", "-n", namespace, "deployment/one", "--timeout=90s")
        control_plane.kubectl("set", "image", "-n", namespace, "deployment/one", "main=example.com/main:2")
        control_plane.kubectl("rollout", "status", "-n", namespace, "deployment/one", "--timeout=90s")
        until(lambda: len(pods(control_plane, namespace)) == 3, "the old pods to be gone", SECONDS)
    images = {pod["status"]["containerStatuses"][0]["image"] for pod in pods(control_plane, namespace)}
    assert images == {"example.com/main:2"}
    sidecars = [pod["status"]["initContainerStatuses"][0] for pod in pods(control_plane, namespace)]
    assert all(sidecar["ready"] and "running" in sidecar["state"] for sidecar in sidecars)


def test_a_played_pod_is_ready_when_the_test_says_so(control_plane: ControlPlane, namespace: str) -> None:
    def ready() -> int:
        shown = control_plane.api.request("GET", f"/apis/apps/v1/namespaces/{namespace}/deployments/one")
        return int(shown.get("status", {}).get("readyReplicas", 0))

    with played_kubelet(control_plane.api, namespace) as kubelet:
        kubelet.becomes_ready = lambda _pod: False
        control_plane.kubectl("apply", "-n", namespace, "-f", "-", stdin=json.dumps(deployment(1)))
        until(lambda: [pod["status"]["phase"] for pod in pods(control_plane, namespace)] == ["Running"], "a running pod", SECONDS)
        assert ready() == 0
        kubelet.becomes_ready = lambda _pod: True
        until(lambda: ready() == 1, "the pod to be ready", SECONDS)


def test_a_service_account_has_no_more_than_it_was_given_and_is_audited(control_plane: ControlPlane, namespace: str) -> None:
    control_plane.kubectl("create", "serviceaccount", "reader", "-n", namespace)
    control_plane.kubectl("create", "role", "reads", "-n", namespace, "--verb=list", "--resource=configmaps")
    control_plane.kubectl("create", "rolebinding", "reads", "-n", namespace, "--role=reads", f"--serviceaccount={namespace}:reader")
    kubectl = Kubectl(control_plane.kubeconfig_for(f"{namespace}/reader"))
    kubectl("get", "configmaps", "-n", namespace)
    with pytest.raises(CommandFailed, match="forbidden"):
        kubectl("get", "secrets", "-n", namespace)
    user = f"system:serviceaccount:{namespace}:reader"
    events = [event for event in control_plane.audit() if event["user"]["username"] == user and "objectRef" in event]
    assert [(event["verb"], event["objectRef"]["resource"], event["responseStatus"]["code"]) for event in events] == [
        ("list", "configmaps", 200),
        ("list", "secrets", 403),
    ]


def test_two_at_once_and_an_api_server_that_comes_back_with_what_it_had(control_plane: ControlPlane, tmp_path: Path) -> None:
    with running_control_plane(tmp_path / "plane") as plane:
        assert plane.url != control_plane.url
        plane.kubectl("create", "configmap", "kept", "--from-literal=a=b")
        plane.api_server.kill()
        assert not plane.api.is_ready()
        starter = threading.Thread(target=plane.api_server.start)
        starter.start()
        starter.join()
        plane.wait_ready()
        assert plane.kubectl("get", "configmap", "kept", "-o", "jsonpath={.data.a}") == "b"


@contextmanager
def refusing_webhook(certificate: Pair) -> Iterator[str]:
    """The URL of an admission webhook that refuses everything."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            review = json.loads(self.rfile.read(int(self.headers["content-length"])))
            answer = {"uid": review["request"]["uid"], "allowed": False, "status": {"message": "not today"}}
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({**review, "response": answer}).encode())

        def log_message(self, *_arguments: object) -> None:
            pass

    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate.certificate, certificate.key)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"https://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_webhook_on_this_machine_is_called(control_plane: ControlPlane, namespace: str) -> None:
    path = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"
    authority = base64.b64encode(control_plane.pki.files.certificate.read_bytes()).decode()
    with refusing_webhook(control_plane.pki.sign(namespace, addresses=["127.0.0.1"])) as url:
        webhook = {
            "name": "refuse.example.com",
            "clientConfig": {"url": url, "caBundle": authority},
            "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}],
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
            "sideEffects": "None",
            "admissionReviewVersions": ["v1"],
        }
        control_plane.api.request("POST", path, {"metadata": {"name": namespace}, "webhooks": [webhook]})
        try:
            until(lambda: "not today" in refusal(control_plane, namespace), "the webhook to be asked", SECONDS)
        finally:
            control_plane.api.request("DELETE", f"{path}/{namespace}")


def refusal(plane: ControlPlane, namespace: str) -> str:
    """Why a ConfigMap may not be created; a webhook takes a moment to be known to the API server."""
    try:
        plane.kubectl("create", "configmap", "-n", namespace, "--dry-run=server", "one")
    except CommandFailed as error:
        return str(error)
    return ""


ENDS_WITHOUT_CLEARING_UP = """
import sys, time
from pathlib import Path
from tests.cluster.control_plane import running_control_plane
with running_control_plane(Path(sys.argv[1])) as plane:
    print(plane.etcd.pid, plane.api_server.pid, plane.controllers.pid, flush=True)
    time.sleep(600)
"""


def test_nothing_outlives_whoever_started_it() -> None:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", ENDS_WITHOUT_CLEARING_UP, f"{folder}/plane"]
        with subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True) as starter:
            assert starter.stdout is not None
            started = [int(word) for word in starter.stdout.readline().split()]
            starter.send_signal(signal.SIGKILL)
        assert len(started) == 3
        until(lambda: not any(is_alive(pid) for pid in started), "the servers to end", SECONDS)


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z" and os.path.lexists(f"/proc/{pid}")
