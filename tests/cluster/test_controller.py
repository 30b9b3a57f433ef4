"""The controller on a real API server with a real webhook: what somebody with kubectl sees."""

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.cluster.control_plane import ControlPlane
from tests.cluster.controller_running import PACE, SECONDS, Cache, Sidecars, answering, controlling, deploy, deployment
from tests.cluster.played_kubelet import PlayedKubelet, played_kubelet
from tests.cluster.servers import SLOW, until
from tests.cluster.webhook_processes import Installed, installed

from inference_cache_contract.pod import CACHE_ANNOTATION, FLUSH_ANNOTATION, VERSION_ANNOTATION
from inference_cache_operator import kopf_settings
from inference_cache_operator.errors import WatchEnded

pytestmark = [pytest.mark.services, pytest.mark.slow]
REACHED_SECONDS = 2.0
RARELY_SECONDS = 600.0


@pytest.fixture
def install(control_plane: ControlPlane, namespace: str, tmp_path: Path) -> Iterator[Installed]:
    with installed(control_plane, namespace, tmp_path, replicas=1) as ready:
        yield ready


@pytest.fixture(autouse=True)
def kubelet(install: Installed) -> Iterator[PlayedKubelet]:
    with played_kubelet(install.plane.api, install.namespace) as playing:
        yield playing


@pytest.fixture
def sidecars(install: Installed) -> Iterator[Sidecars]:
    with answering(Sidecars(install.plane.api)) as answer:
        yield answer


@pytest.fixture
def cache(install: Installed, sidecars: Sidecars) -> Iterator[Cache]:
    """Looked after by a running controller; it does not exist yet."""
    with controlling(install, sidecars):
        yield Cache(install.plane.api, install.namespace)


def test_a_resource_and_its_deployment_become_ready(install: Installed, cache: Cache) -> None:
    install.create_cache()
    cache.wait("Ready", "True", "NoPods")
    deploy(cache.api, cache.namespace, deployment())
    cache.wait_serving()
    status = cache.status()
    assert status["pods"] == {"selected": 2, "injected": 2, "ready": 2, "missing": 0, "outdated": 0, "refused": 0}
    assert (status["activeVersion"], status["phase"]) == ("v1", "Stable")


def test_a_bump_rolls_the_deployment_and_flushes_the_old_version_once_its_pods_are_gone(
    install: Installed, sidecars: Sidecars, cache: Cache
) -> None:
    install.create_cache()
    deploy(cache.api, cache.namespace, deployment())
    cache.wait_serving()
    cache.bump("v2")
    cache.wait("Ready", "True", "Ready")
    until(lambda: cache.status()["activeVersion"] == "v2", "v2", SECONDS)
    until(lambda: bool(cache.status()["flushedVersions"]), "the flush", SECONDS)
    assert set(cache.annotations(VERSION_ANNOTATION)) == {"v2"}
    assert [each["version"] for each in cache.status()["flushedVersions"]] == ["v1"]
    assert cache.status()["flushes"] == []
    assert all(order.startswith("version-v1-") for each in sidecars.executed.values() for order in each)


def test_pods_of_a_deleted_resource_pass_everything_through(install: Installed, cache: Cache) -> None:
    install.create_cache()
    deploy(cache.api, cache.namespace, deployment())
    cache.wait_serving()
    before = {pod["metadata"]["uid"] for pod in cache.pods()}
    cache.delete()
    until(lambda: cache.modes() == {"Bypass"}, "Bypass", SECONDS)
    assert {pod["metadata"]["uid"] for pod in cache.pods()} == before


def test_a_spec_change_reaches_every_pod_at_once_and_is_acknowledged(install: Installed, sidecars: Sidecars) -> None:
    cache, took = Cache(install.plane.api, install.namespace), []
    install.create_cache()
    with controlling(install, sidecars):
        deploy(cache.api, cache.namespace, deployment(replicas=10))
        cache.wait_serving(10)
    # By what is watched alone: nothing is listed again while the test runs.
    with controlling(install, sidecars, replace(PACE, resync=RARELY_SECONDS, orphans=RARELY_SECONDS)):
        before = {pod["metadata"]["uid"] for pod in cache.pods()}
        for mode in ("Bypass", "Enabled") * 5:
            started = time.monotonic()
            cache.patch({"spec": {"mode": mode}})
            until(lambda mode=mode: cache.modes() == {mode}, mode, SECONDS)  # type: ignore[misc]
            took.append(time.monotonic() - started)
            cache.wait("Ready", "True", "Ready")
        assert {pod["metadata"]["uid"] for pod in cache.pods()} == before
    # On a node it is measured, too.
    assert max(took) < REACHED_SECONDS * SLOW, took


def test_nothing_is_written_while_nothing_changes(install: Installed, cache: Cache) -> None:
    install.create_cache()
    deploy(cache.api, cache.namespace, deployment())
    cache.wait_serving()
    before = cache.body()["metadata"]["resourceVersion"]
    rounds = time.monotonic() + 4 * PACE.resync
    until(lambda: time.monotonic() > rounds, "some rounds", SECONDS)
    assert cache.body()["metadata"]["resourceVersion"] == before


def test_a_rollback_during_the_rollout_never_flushes_the_old_version(
    install: Installed, sidecars: Sidecars, cache: Cache, kubelet: PlayedKubelet
) -> None:
    install.create_cache()
    deploy(cache.api, cache.namespace, deployment())
    cache.wait_serving()
    # Until the rollback no pod of v1 is gone, so that v1 is not flushed rightly.
    kubelet.may_end = lambda _pod: False
    cache.bump("v2")
    until(lambda: "v2" in cache.annotations(VERSION_ANNOTATION), "a pod of v2", SECONDS)
    cache.bump("v1")
    kubelet.may_end = lambda _pod: True
    until(lambda: set(cache.annotations(VERSION_ANNOTATION)) == {"v1"}, "v1 everywhere", SECONDS)
    cache.wait("Ready", "True", "Ready")
    assert cache.status()["activeVersion"] == "v1"
    assert not [order for each in sidecars.executed.values() for order in each if "v1" in order]


def test_the_flush_annotation_flushes_everything_once(install: Installed, sidecars: Sidecars, cache: Cache) -> None:
    install.create_cache()
    deploy(cache.api, cache.namespace, deployment())
    cache.wait_serving()
    cache.patch({"metadata": {"annotations": {FLUSH_ANNOTATION: "now"}}})
    until(lambda: bool(cache.status().get("flushedVersions")), "the flush", SECONDS)
    assert cache.status()["lastFlushRequest"] == "now"
    assert [len(orders) for name, orders in sidecars.executed.items() if name in {pod["metadata"]["name"] for pod in cache.pods()}] == [
        1,
        1,
    ]
    # Events come after the status.
    until(lambda: bool(notes(cache, "Flushed")), "the event", SECONDS)
    assert notes(cache, "Flushed") == ["all versions: 14 entries"]


def notes(cache: Cache, reason: str) -> list[str]:
    events = cache.api.request("GET", f"/apis/events.k8s.io/v1/namespaces/{cache.namespace}/events")["items"]
    return [each["note"] for each in events if each["reason"] == reason]


def test_a_flush_waits_for_a_sidecar_where_none_lives(install: Installed, cache: Cache) -> None:
    install.create_cache()
    cache.wait("Ready", "True", "NoPods")
    cache.bump("v2")
    cache.wait("CacheFlushed", "False", "NoSidecar")
    deploy(cache.api, cache.namespace, deployment())
    cache.wait("CacheFlushed", "True")


def test_pods_of_a_resource_that_was_deleted_while_no_operator_ran_pass_everything_through(install: Installed, sidecars: Sidecars) -> None:
    cache = Cache(install.plane.api, install.namespace)
    install.create_cache()
    with controlling(install, sidecars):
        deploy(cache.api, cache.namespace, deployment())
        cache.wait_serving()
    cache.delete()
    with controlling(install, sidecars):
        until(lambda: cache.modes() == {"Bypass"}, "Bypass", SECONDS)


def test_two_resources_that_select_the_same_pods_both_say_so_and_the_older_wins(install: Installed, cache: Cache) -> None:
    install.create_cache()
    cache.wait("Ready", "True", "NoPods")
    # Ages are compared to the second.
    begun = time.time()
    until(lambda: time.time() > begun + 1.1, "a second", SECONDS)
    install.create_cache("younger")
    deploy(cache.api, cache.namespace, deployment())
    cache.wait("Conflicted")
    younger = Cache(cache.api, cache.namespace, "younger")
    younger.wait("Conflicted")
    younger.wait("Stalled", "True", "Conflicted")
    cache.wait("Ready", "True", "Ready")
    assert set(cache.annotations(CACHE_ANNOTATION)) == {"faq"}


def test_the_process_ends_where_kopf_gives_the_watch_up(install: Installed, sidecars: Sidecars, monkeypatch: pytest.MonkeyPatch) -> None:
    # The API server refuses such a watch.
    monkeypatch.setattr(kopf_settings, "_WATCH_SECONDS", 240.5)
    with pytest.raises(WatchEnded), controlling(install, sidecars) as controller:
        controller.join(SECONDS)
