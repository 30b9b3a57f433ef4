"""The webhook as processes, on a real API server."""

import json
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest
from tests.cluster.control_plane import ControlPlane, fresh_namespace, running_control_plane
from tests.cluster.servers import Server, until
from tests.cluster.webhook_processes import SECONDS, Installed, Replica, installed, is_injected, probe, vllm_pod

from inference_cache_contract.pod import API_VERSION, PLURAL, VERSION_ANNOTATION
from inference_cache_operator.certificates.issuing import issue_ca, issue_leaf
from inference_cache_operator.resource import read_resource
from inference_cache_operator.webhook.configuration import TIMEOUT_SECONDS
from inference_cache_toolkit.processes import free_port

pytestmark = [pytest.mark.services, pytest.mark.slow]


@pytest.fixture
def install(control_plane: ControlPlane, namespace: str, tmp_path: Path) -> Iterator[Installed]:
    with installed(control_plane, namespace, tmp_path) as ready:
        yield ready


def is_denied(install: Installed, pod: dict[str, Any]) -> bool:
    try:
        install.create_pod(pod)
    except HTTPError as error:
        error.close()
        return True
    return False


def test_a_resource_and_its_pod_one_right_after_the_other_are_injected_a_hundred_times(install: Installed) -> None:
    uninjected = 0
    for number in range(100):
        install.create_cache(f"faq-{number}", {"app": f"vllm-{number}"})
        uninjected += not is_injected(install.create_pod(vllm_pod(f"vllm-{number}")))
    assert uninjected == 0
    assert install.webhooks[0].metric('inference_cache_admissions_total{outcome="injected"}') == 100
    assert install.webhooks[1].metric('inference_cache_admissions_total{outcome="unchanged"}') == 0


def test_a_pod_that_no_resource_selects_stays_as_it_is(install: Installed) -> None:
    install.create_cache(labels={"app": "other"})
    assert not is_injected(install.create_pod(vllm_pod()))


def test_every_pod_is_injected_while_one_replica_is_frozen(control_plane: ControlPlane, namespace: str, tmp_path: Path) -> None:
    with installed(control_plane, namespace, tmp_path, patience=2 * TIMEOUT_SECONDS) as install:
        install.create_cache()
        for frozen in install.webhooks:
            frozen.server.pause()
            try:
                assert all(is_injected(install.create_pod(vllm_pod())) for _ in range(3))
            finally:
                frozen.server.resume()


def test_with_all_webhooks_dead_every_pod_is_admitted_and_those_unlike_vllm_are_not_even_delayed(install: Installed) -> None:
    install.create_cache()
    for webhook in install.webhooks:
        webhook.server.kill()
    assert not is_injected(install.create_pod(vllm_pod()))
    start = time.monotonic()
    for _ in range(200):
        install.create_pod(vllm_pod(image="nginx:1", args=["-g", "daemon off;"]))
    assert time.monotonic() - start < 120


def test_frozen_webhooks_do_not_hold_up_pods_unlike_vllm(install: Installed) -> None:
    for webhook in install.webhooks:
        webhook.server.pause()
    start = time.monotonic()
    for _ in range(20):
        install.create_pod(vllm_pod(image="nginx:1", args=["-g", "daemon off;"]))
    # A single one that waited for them all would take TIMEOUT_SECONDS.
    assert time.monotonic() - start < 20 * TIMEOUT_SECONDS / 2


def test_a_probe_is_answered_by_both_replicas_on_a_dry_run(install: Installed) -> None:
    answer = install.create_pod(probe("n"), dry_run=True, namespace=install.own_namespace)
    answers = [each.split("=") for each in answer["metadata"]["annotations"]["inferencecache.io/probed-by"].split(",")]
    assert [name for name, _ in answers] == ["webhook-0", "webhook-1"]
    assert len({offer for _, offer in answers}) == 1


def test_a_refused_pod_is_admitted_unchanged_and_one_event_says_why(install: Installed) -> None:
    install.create_cache()
    refused = vllm_pod(command=["python", "serve.py"], args=[])
    before = install.create_pod({**refused, "metadata": {"generateName": "vllm-", "labels": {"app": "none"}}})
    for _ in range(3):
        assert install.create_pod(refused)["spec"]["containers"][0]["command"] == before["spec"]["containers"][0]["command"]
    install.create_pod(refused, dry_run=True)

    def told() -> list[dict[str, Any]]:
        path = f"/apis/events.k8s.io/v1/namespaces/{install.namespace}/events"
        return [event for event in install.plane.api.request("GET", path)["items"] if event["regarding"].get("kind") == "InferenceCache"]

    until(lambda: bool(told()), "the event", SECONDS)
    (event,) = told()
    assert event["reason"] == "CommandUnknown"
    assert event["regarding"]["name"] == "faq"


def test_the_oldest_of_two_resources_wins_and_the_warning_names_both(install: Installed) -> None:
    install.create_cache("older")
    until(lambda: bool(time.sleep(1.1)) or True, "a later second", SECONDS)
    install.create_cache("younger")
    pod = install.create_pod(vllm_pod())
    assert pod["metadata"]["annotations"]["inferencecache.io/cache"] == "older"


def _all_are_indexed(install: Installed) -> bool:
    """Those of other tests' namespaces too, which are deleted in the background."""
    listed = install.plane.api.get(f"/apis/{API_VERSION}/{PLURAL}")
    return listed is not None and all(each.metric("inference_cache_resources") == len(listed["items"]) for each in install.webhooks)


def test_resources_that_cannot_be_read_live_come_from_the_index(install: Installed) -> None:
    install.create_cache()
    until(lambda: _all_are_indexed(install), "the index", SECONDS)
    install.plane.api.request(
        "PATCH",
        f"/apis/rbac.authorization.k8s.io/v1/clusterroles/{install.name}-webhook",
        [{"op": "replace", "path": "/rules/0/verbs", "value": ["watch"]}],
        "application/json-patch+json",
    )
    failures = "inference_cache_resource_reads_failed_total"
    until(lambda: is_injected(install.create_pod(vllm_pod())) and install.webhooks[0].metric(failures) > 0, "a failed read", SECONDS)


def test_webhooks_come_through_an_api_server_that_is_away_for_half_a_minute(tmp_path: Path) -> None:
    with (
        running_control_plane(tmp_path / "plane") as plane,
        fresh_namespace(plane.api, "away") as namespace,
        installed(plane, namespace, tmp_path, freshness_every=1.0) as install,
    ):
        install.create_cache()
        plane.api_server.kill()
        for webhook in install.webhooks:
            still_up(webhook, 15)
        plane.api_server.start()
        plane.wait_ready()
        until(lambda: is_injected(install.create_pod(vllm_pod(), dry_run=True)), "injection", SECONDS)
        install.create_cache("later", {"app": "later"})
        until(lambda: all(each.metric("inference_cache_resources") == 2 for each in install.webhooks), "the watches", SECONDS)
        until(lambda: all(each.is_ready() for each in install.webhooks), "both to be ready", SECONDS)


def test_a_webhook_whose_port_is_taken_says_so_and_ends(install: Installed) -> None:
    server = install.webhooks[0].server
    health = server.command.index("--health") + 1
    second = Server("second", [*server.command[:health], "127.0.0.1:0", *server.command[health + 1 :]], server.log.parent / "second.log")
    second.start()
    try:
        until(lambda: not second.is_up, "the second webhook to end", SECONDS)
        last = second.tail().splitlines()[-1]
        assert last.startswith(f"inference-cache webhook: cannot listen on 127.0.0.1:{install.webhooks[0].port}: ")
    finally:
        second.kill()


def test_a_webhook_of_one_namespace_needs_a_role_there_and_no_more(control_plane: ControlPlane, namespace: str, tmp_path: Path) -> None:
    with installed(control_plane, namespace, tmp_path, replicas=1, namespaces=(namespace,)) as install:
        install.create_cache()
        assert is_injected(install.create_pod(vllm_pod()))
        until(lambda: install.webhooks[0].metric("inference_cache_resources") == 1, "the watch", SECONDS)
        events = [
            (event["verb"], event["objectRef"].get("resource"), event["objectRef"].get("namespace"), event["responseStatus"]["code"] < 400)
            for event in control_plane.audit()
            if event["user"]["username"] == f"system:serviceaccount:{install.own_namespace}:webhook" and "objectRef" in event
        ]
    needed = {
        ("list", "inferencecaches", namespace),
        ("watch", "inferencecaches", namespace),
        ("get", "secrets", f"{namespace}-operator"),
    }
    assert {tuple(what) for *what, _ in events} == needed
    # What is refused at first is allowed a moment later: the API server may not know of a role yet that was made just now.
    assert {tuple(what) for *what, allowed in events if allowed} == needed


def test_a_hundred_pods_at_once_are_all_injected(install: Installed) -> None:
    install.create_cache()
    with ThreadPoolExecutor(20) as pool:
        pods = list(pool.map(lambda _: install.create_pod(vllm_pod(), dry_run=True), range(100)))
    assert all(map(is_injected, pods))


def test_certificates_from_a_folder_are_read_again_when_they_change(control_plane: ControlPlane, namespace: str, tmp_path: Path) -> None:
    with installed(control_plane, namespace, tmp_path, replicas=1) as install:
        folder, port, health = tmp_path / "tls", free_port(), free_port()
        folder.mkdir()
        command = list(install.webhooks[0].server.command)
        for flag, value in (("--listen", port), ("--health", health)):
            command[command.index(flag) + 1] = f"127.0.0.1:{value}"
        command += ["--certificates", "cert-manager", "--tls-folder", folder]
        webhook = Replica(Server("by-folder", command, tmp_path / "by-folder.log"), port, health)
        webhook.server.start()
        try:
            webhook.server.wait(lambda: "there is no certificate yet" in webhook.answers("/readyz")[1], SECONDS)
            for loads in (1, 2):
                ca = issue_ca(datetime.now(UTC), timedelta(days=1))
                leaf = issue_leaf(ca, ["127.0.0.1"], datetime.now(UTC), timedelta(days=1))
                (folder / "tls.crt").write_bytes(leaf.certificate)
                (folder / "tls.key").write_bytes(leaf.key)
                webhook.server.wait(lambda loads=loads: webhook.metric("inference_cache_certificate_loads") == loads, SECONDS)
            webhook.server.wait(webhook.is_ready, SECONDS)
        finally:
            webhook.server.kill()


def test_a_webhook_that_is_told_to_end_ends_by_itself_and_has_written_json_lines(install: Installed) -> None:
    install.create_cache()
    install.create_pod(vllm_pod())
    server = install.webhooks[0].server
    os.kill(server.pid, signal.SIGTERM)
    until(lambda: not server.is_up, "the webhook to end", SECONDS)
    lines = [json.loads(line) for line in server.log.read_text().splitlines()]
    assert {"level": "info", "message": "pod injected", "namespace": install.namespace}.items() <= next(
        line.items() for line in lines if line.get("outcome") == "injected"
    )
    served = next(at for at, line in enumerate(lines) if line["message"] == "webhook: listening")
    assert not [line for line in lines[served:] if line["level"] in ("warning", "error") and "listed yet" not in line["message"]]


def still_up(webhook: Replica, seconds: float) -> None:
    end = time.monotonic() + seconds
    until(lambda: webhook.answers("/livez")[0] != 200 or time.monotonic() > end, "the time to pass", SECONDS)
    assert webhook.answers("/livez")[0] == 200
    assert webhook.server.is_up


def test_a_pod_with_artifacts_waits_where_no_webhook_can_give_them(install: Installed) -> None:
    artifacts = [{"source": "https://cdn.example.com/m/", "mountPath": "/models/m", "manifest": {"sha256": "0" * 64}}]
    body = install.create_cache(model={"name": "m", "version": "v1", "artifacts": artifacts})
    install.required.append(read_resource(body))
    until(lambda: any(each["name"].startswith("required-") for each in install.configuration()["webhooks"]), "the Fail entry", SECONDS)
    until(lambda: is_injected(install.create_pod(vllm_pod(), dry_run=True)), "the API server to know", SECONDS)
    # The API server's own copy of the configuration may be a moment behind.
    until(lambda: is_denied(install, vllm_pod(annotations={VERSION_ANNOTATION: "v0"})), "a pod that cannot have them to be denied", SECONDS)
    alone = install.create_pod(vllm_pod(command=["python", "serve.py"], args=[]))
    assert [each["name"] for each in alone["spec"]["initContainers"]] == ["inference-cache-fetch-0"]
    for webhook in install.webhooks:
        webhook.server.kill()
    assert is_denied(install, vllm_pod())
    assert install.create_pod(vllm_pod("another"))
    install.required.clear()
    until(lambda: not any(each["name"].startswith("required-") for each in install.configuration()["webhooks"]), "the entry to go", SECONDS)
