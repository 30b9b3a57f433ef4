"""The controller in a thread of the test, its fake sidecars, and Deployments of vLLM, on a real API server with a played kubelet."""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

import aiohttp
from tests.cluster.api import Api
from tests.cluster.errors import NotReady
from tests.cluster.loops import hanging_up
from tests.cluster.servers import until
from tests.cluster.webhook_processes import Installed

from inference_cache_contract.configuration import digest, read_configuration
from inference_cache_contract.pod import API_VERSION, CONFIGURATION_ANNOTATION, PLURAL
from inference_cache_operator.audit.pods import Pod
from inference_cache_operator.cluster.connecting import connected
from inference_cache_operator.cluster.sidecars import SidecarClient
from inference_cache_operator.controller import app
from inference_cache_operator.controller.collaborators import Pace
from inference_cache_operator.settings import Address

SECONDS: Final = 90.0
KEYS: Final = 7
PACE: Final = Pace(changing=0.3, resync=2.0, orphans=2.0, user=1.0)
IMAGE: Final = "inference-cache-sidecar:test"
ANSWER_SECONDS: Final = 20.0
"""For a fake sidecar, which is a thread of a test that may be held up; those that are to be silent say so at once."""


@dataclass(slots=True)
class Sidecars:
    """Answer for every pod: they take up what the pod's annotation says at once, and carry out every order."""

    api: Api
    silent: set[str] = field(default_factory=set)
    """Names of pods whose sidecar does not answer."""
    lazy: bool = False
    """Orders are not carried out for now."""
    executed: dict[str, list[str]] = field(default_factory=dict)
    """By pod name, the ids of orders."""
    port: int = 0

    def resolve(self, pod: Pod) -> str | None:
        return f"http://127.0.0.1:{self.port}/{pod.namespace}/{pod.name}" if pod.ip else None

    def status(self, namespace: str, name: str) -> dict[str, Any] | None:
        pod = self.api.get(f"/api/v1/namespaces/{namespace}/pods/{name}")
        if pod is None or name in self.silent:
            return None
        text = pod["metadata"]["annotations"].get(CONFIGURATION_ANNOTATION, "")
        read = read_configuration(text)
        executed = self.executed.setdefault(name, [])
        if not self.lazy:
            executed += [order.id for order in read.flushes if order.id not in executed]
        done = {"state": "done", "acknowledged": True, "keys": KEYS, "epoch": 1}
        return {
            "configuration": {"digest": digest(text), "refused": []},
            "sharedStore": {"healthy": True, "findings": []},
            "draining": "deletionTimestamp" in pod["metadata"],
            "modelVersion": pod["metadata"]["annotations"].get("inferencecache.io/version", ""),
            "mode": read.spec.get("mode", "Enabled"),
            "flushes": [{"id": each, **done} for each in executed],
        }


def handler(status_at: Callable[[str], dict[str, Any] | None]) -> type[BaseHTTPRequestHandler]:
    """Answers with what `status_at` tells of a request's path."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status = status_at(self.path)
            self.send_response(503 if status is None else 200)
            self.end_headers()
            self.wfile.write(json.dumps(status).encode())

        def log_message(self, *_: Any) -> None:
            return

    return Handler


@contextmanager
def answering(sidecars: Sidecars) -> Iterator[Sidecars]:
    with ThreadingHTTPServer(("127.0.0.1", 0), handler(lambda path: sidecars.status(*path.split("/")[1:3]))) as server:
        sidecars.port = server.server_port
        thread = threading.Thread(target=server.serve_forever, name="sidecars")
        thread.start()
        try:
            yield sidecars
        finally:
            server.shutdown()
            thread.join(SECONDS)


@contextmanager
def controlling(install: Installed, sidecars: Sidecars, pace: Pace = PACE, pod_name: str = "controller-a") -> Iterator[threading.Thread]:
    """Looks after the namespace of `install`."""
    settings = replace(
        install.settings,
        pod_name=pod_name,
        namespaces=(install.namespace,),
        health=Address("127.0.0.1", 0),
        certificates="cert-manager",
        sidecar_image=IMAGE,
    )
    ending, failures = threading.Event(), list[BaseException]()

    async def control() -> None:
        async with hanging_up(), connected(install.plane.kubeconfig) as client, aiohttp.ClientSession() as session:
            asks = SidecarClient(session, sidecars.resolve, ANSWER_SECONDS)
            running = asyncio.create_task(app.serve_on(settings, client, asks, pace))
            while not ending.is_set() and not running.done():
                await asyncio.sleep(0.05)
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running

    def run() -> None:
        try:
            asyncio.run(control())
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run, name=pod_name)
    thread.start()
    try:
        yield thread
    finally:
        ending.set()
        thread.join(SECONDS)
    if failures:
        raise failures[0]


@dataclass(frozen=True, slots=True)
class Cache:
    """One resource and its Deployment, as somebody with kubectl sees them."""

    api: Api
    namespace: str
    name: str = "faq"

    @property
    def path(self) -> str:
        return f"/apis/{API_VERSION}/namespaces/{self.namespace}/{PLURAL}/{self.name}"

    def body(self) -> dict[str, Any]:
        return dict(self.api.request("GET", self.path))

    def status(self) -> dict[str, Any]:
        return dict(self.body().get("status") or {})

    def condition(self, kind: str) -> tuple[str, str]:
        found = next((each for each in self.status().get("conditions", []) if each["type"] == kind), {"status": "", "reason": ""})
        return found["status"], found["reason"]

    def wait(self, kind: str, status: str = "True", reason: str | None = None) -> None:
        def holds() -> bool:
            body = self.body()
            held = body.get("status", {}).get("observedGeneration") == body["metadata"]["generation"]
            found = self.condition(kind)
            return held and found[0] == status and reason in (None, found[1])

        try:
            until(holds, f"{kind}={status} {reason or ''}", SECONDS)
        except NotReady as error:
            raise AssertionError(f"{error}: {json.dumps(self.status(), indent=1)}") from error

    def wait_serving(self, pods: int = 2) -> None:
        """Until it is Ready with so many pods, all of them Ready; one Ready pod is enough for the condition alone."""
        until(lambda: [self.status().get("pods", {}).get(each) for each in ("selected", "ready")] == [pods, pods], "Ready pods", SECONDS)
        self.wait("Ready", "True", "Ready")

    def patch(self, body: dict[str, Any]) -> None:
        self.api.request("PATCH", self.path, body, "application/merge-patch+json")

    def bump(self, version: str) -> None:
        self.patch({"spec": {"model": {"version": version}}})

    def delete(self) -> None:
        self.api.request("DELETE", self.path)

    def pods(self) -> list[dict[str, Any]]:
        listed = self.api.request("GET", f"/api/v1/namespaces/{self.namespace}/pods?labelSelector=app%3Dvllm")["items"]
        return [each for each in listed if "deletionTimestamp" not in each["metadata"]]

    def annotations(self, name: str) -> list[str]:
        return [each["metadata"]["annotations"].get(name, "") for each in self.pods()]

    def modes(self) -> set[str]:
        return {json.loads(text)["spec"].get("mode", "Enabled") for text in self.annotations(CONFIGURATION_ANNOTATION)}


def deployment(name: str = "vllm", replicas: int = 2, annotations: dict[str, str] | None = None, app: str = "vllm") -> dict[str, Any]:
    container = {"name": "vllm", "image": "vllm/vllm-openai:v0.11.0", "args": ["--model=m"], "ports": [{"containerPort": 8000}]}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"deployment": name}},
            "template": {
                "metadata": {"labels": {"app": app, "deployment": name}, "annotations": annotations or {}},
                "spec": {"containers": [container], "terminationGracePeriodSeconds": 1},
            },
        },
    }


def deploy(api: Api, namespace: str, body: dict[str, Any]) -> None:
    api.request("POST", f"/apis/apps/v1/namespaces/{namespace}/deployments", body)
