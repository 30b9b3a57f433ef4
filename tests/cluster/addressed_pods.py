"""Gives pods of a played kubelet addresses of this machine, on which their fake sidecars answer: for an operator that is a process."""

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from tests.cluster.controller_running import Sidecars, handler

from inference_cache_contract.endpoints import ADMIN_PORT

JOIN_SECONDS: Final = 60.0
TRIES: Final = 50


@dataclass(slots=True)
class AddressedPods:
    """Of one namespace."""

    sidecars: Sidecars
    namespace: str
    servers: dict[str, tuple[ThreadingHTTPServer, threading.Thread]] = field(default_factory=dict)
    """By pod uid."""

    def becomes_ready(self, pod: dict[str, Any]) -> bool:
        """For a PlayedKubelet: a pod does once it has such an address."""
        if pod["metadata"]["namespace"] != self.namespace:
            return True
        uid, told = pod["metadata"]["uid"], pod.get("status", {}).get("podIP")
        if told is None:
            return False
        if uid not in self.servers:
            self.servers[uid] = _serve(self.sidecars, pod)
        address = str(self.servers[uid][0].server_address[0])
        if told != address:
            path = f"/api/v1/namespaces/{self.namespace}/pods/{pod['metadata']['name']}/status"
            change = {"metadata": {"uid": uid}, "status": {"podIP": address, "podIPs": [{"ip": address}]}}
            self.sidecars.api.request("PATCH", path, change, "application/merge-patch+json")
        return told == address

    def stop(self) -> None:
        for server, thread in self.servers.values():
            server.shutdown()
            thread.join(JOIN_SECONDS)
            server.server_close()


@contextmanager
def addressed_pods(sidecars: Sidecars, namespace: str) -> Iterator[AddressedPods]:
    pods = AddressedPods(sidecars, namespace)
    try:
        yield pods
    finally:
        pods.stop()


def _serve(sidecars: Sidecars, pod: dict[str, Any]) -> tuple[ThreadingHTTPServer, threading.Thread]:
    name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
    server = _bound(handler(lambda _path: sidecars.status(namespace, name)))
    thread = threading.Thread(target=server.serve_forever, name=f"sidecar of {name}")
    thread.start()
    return server, thread


def _bound(answers: type[BaseHTTPRequestHandler]) -> ThreadingHTTPServer:
    """On an address that nobody else has taken. Raises OSError."""
    for left in reversed(range(TRIES)):
        try:
            return ThreadingHTTPServer(
                (f"127.{random.randint(64, 127)}.{random.randint(0, 255)}.{random.randint(1, 254)}", ADMIN_PORT), answers
            )
        except OSError:
            if left == 0:
                raise
    raise AssertionError("not reached")
