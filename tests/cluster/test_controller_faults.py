"""The controller as processes: a dead or frozen leader, and an API server that goes away."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from tests.cluster.control_plane import ControlPlane, fresh_namespace, running_control_plane
from tests.cluster.controller_running import SECONDS, Cache, Sidecars, answering, controlling, deploy, deployment
from tests.cluster.played_kubelet import played_kubelet
from tests.cluster.servers import SLOW, Server, until
from tests.cluster.webhook_processes import Installed, installed

from inference_cache_toolkit.processes import free_port

pytestmark = [pytest.mark.services, pytest.mark.slow]
LEADER_SECONDS = 15.0


@pytest.fixture
def install(control_plane: ControlPlane, namespace: str, tmp_path: Path) -> Iterator[Installed]:
    with installed(control_plane, namespace, tmp_path, replicas=1) as ready, played_kubelet(control_plane.api, namespace):
        yield ready


def replica(install: Installed, name: str, folder: Path) -> Server:
    health = free_port()
    command = [
        "env", f"KUBECONFIG={install.plane.kubeconfig}",
        sys.executable, "-m", "inference_cache_toolkit", "operator", "--own-namespace", install.own_namespace, "--pod-name", name,
        "--namespace", install.namespace, "--health", f"127.0.0.1:{health}", "--certificates", "cert-manager",
        "--sidecar-image", "inference-cache-sidecar:test",
    ]  # fmt: skip
    return Server(name, command, folder / f"{name}.log")


@contextmanager
def running(*servers: Server) -> Iterator[None]:
    try:
        for each in servers:
            each.start()
        yield
    finally:
        for each in servers:
            with suppress(AssertionError):
                each.kill()


def lease(install: Installed) -> dict[str, Any]:
    """What it says; nothing while there is none."""
    path = f"/apis/coordination.k8s.io/v1/namespaces/{install.own_namespace}/leases/inference-cache-operator"
    return dict((install.plane.api.get(path) or {}).get("spec", {}))


def leader(install: Installed) -> str:
    return str(lease(install).get("holderIdentity") or "")


def silent_seconds(install: Installed, fault: Callable[[], None]) -> float:
    """From the leader's last renewal until another took the lease over, as they wrote it down themselves."""
    seen = [lease(install)]
    first = seen[0]["holderIdentity"]
    fault()

    def taken_over() -> bool:
        seen.append(lease(install))
        return seen[-1]["holderIdentity"] not in ("", first)

    until(taken_over, "another leader", LEADER_SECONDS * SLOW)
    last = max(datetime.fromisoformat(each["renewTime"]) for each in seen if each["holderIdentity"] == first)
    return (datetime.fromisoformat(seen[-1]["acquireTime"]) - last).total_seconds()


@pytest.mark.parametrize("fault", ["kill", "pause"])
def test_a_new_leader_takes_over_within_fifteen_seconds(install: Installed, tmp_path: Path, fault: str) -> None:
    replicas = {name: replica(install, name, tmp_path) for name in ("a", "b")}
    cache = Cache(install.plane.api, install.namespace)
    with running(*replicas.values()):
        until(lambda: leader(install) != "", "a leader", SECONDS)
        first = leader(install)
        silent = silent_seconds(install, getattr(replicas[first], fault))
        # For a machine that stands still amid it; what they agreed upon has no such time.
        assert silent < SLOW * LEADER_SECONDS
        assert lease(install)["leaseDurationSeconds"] < LEADER_SECONDS
        install.create_cache()
        cache.wait("Ready", "True", "NoPods")
        if fault == "pause":
            changes = lease(install)["leaseTransitions"]
            replicas[first].resume()
            cache.bump("v2")
            until(lambda: cache.status().get("activeVersion") == "v2", "v2", SECONDS)
            after = lease(install)
            assert after["holderIdentity"] != first
            assert after["leaseTransitions"] == changes


# Python's ssl leaves a socket to the garbage collector if its server dies between connect and handshake.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_it_recovers_by_itself_when_the_api_server_was_away(tmp_path: Path) -> None:
    with (
        running_control_plane(tmp_path / "plane") as plane,
        fresh_namespace(plane.api, "away") as namespace,
        installed(plane, namespace, tmp_path, replicas=1) as install,
        answering(Sidecars(plane.api)) as sidecars,
        controlling(install, sidecars) as controller,
    ):
        cache = Cache(plane.api, namespace)
        with played_kubelet(plane.api, namespace):
            install.create_cache()
            deploy(plane.api, namespace, deployment())
            cache.wait_serving()
            plane.api_server.kill()
            away = time.monotonic() + 12
            until(lambda: time.monotonic() > away, "a while", SECONDS)
            plane.api_server.start()
            plane.wait_ready()
            cache.bump("v2")
            until(lambda: cache.status()["activeVersion"] == "v2", "v2", SECONDS)
            cache.wait_serving()
        assert controller.is_alive()
