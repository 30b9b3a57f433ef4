"""CA rotations while pods are created, with real webhook processes and a real API server."""

import base64
import threading
from pathlib import Path
from typing import Any

import pytest
from tests.cluster.control_plane import ControlPlane
from tests.cluster.servers import until
from tests.cluster.webhook_processes import SECONDS, Installed, installed, is_injected, vllm_pod

from inference_cache_operator.certificates.issuing import read_bundle

pytestmark = [pytest.mark.services, pytest.mark.slow]


def bundle_size(install: Installed) -> int:
    return len(read_bundle(base64.b64decode(install.secret()["data"]["ca.crt"])))


def newest(install: Installed) -> bytes:
    return bytes(read_bundle(base64.b64decode(install.secret()["data"]["ca.crt"]))[0].serial_number.to_bytes(20))


def loaded(install: Installed) -> set[float]:
    """How many certificates each webhook has loaded."""
    return {webhook.metric("inference_cache_certificate_loads") for webhook in install.webhooks}


class Creating:
    """Pods, one after the other, until it is ended."""

    def __init__(self, install: Installed) -> None:
        self.injected = 0
        self.others: list[Any] = []
        self._install = install
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="creating pods")

    def __enter__(self) -> "Creating":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join(SECONDS)

    def _run(self) -> None:
        while not self._ending.wait(0.02):
            try:
                pod = self._install.create_pod(vllm_pod(), dry_run=True)
            except OSError as error:
                self.others.append(error)
            else:
                self.injected += is_injected(pod)
                if not is_injected(pod):
                    self.others.append(pod["metadata"])


def test_five_rotations_of_the_ca_fail_no_connection_and_restart_nothing(
    control_plane: ControlPlane, namespace: str, tmp_path: Path
) -> None:
    with installed(control_plane, namespace, tmp_path) as install:
        install.create_cache()
        pids = [webhook.server.pid for webhook in install.webhooks]
        with Creating(install) as creating:
            for number in range(5):
                before = newest(install)
                install.rotate(f"rotation-{number}")
                until(lambda before=before: newest(install) != before and bundle_size(install) == 1, "the rotation", SECONDS)
                # Each reads its certificate in its own time.
                until(lambda loads=number + 2: loaded(install) == {loads}, "the certificates to be loaded", SECONDS)
                count = creating.injected
                until(lambda count=count: creating.injected > count + 20, "pods under the new CA alone", SECONDS)
        assert creating.others == []
        assert creating.injected > 100
        # A handshake that failed would have left its pod to the second replica.
        assert install.webhooks[1].metric('inference_cache_admissions_total{outcome="injected"}') == 0
        assert [webhook.server.pid for webhook in install.webhooks if webhook.server.is_up] == pids
        assert loaded(install) == {6}


def test_a_webhook_without_a_certificate_waits_and_is_not_ready(control_plane: ControlPlane, namespace: str, tmp_path: Path) -> None:
    with installed(control_plane, namespace, tmp_path, replicas=1) as install:
        assert "inference_cache_certificate_expiry_timestamp_seconds" in install.webhooks[0].answers("/metrics")[1]
        secret = install.secret()
        assert secret["data"].keys() == {"ca.crt", "ca.key", "tls.crt", "tls.key"}
        managers = {each["manager"] for each in secret["metadata"]["managedFields"]}
        assert "inference-cache-certificates" in managers
