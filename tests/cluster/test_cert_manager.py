"""The chart with certificates by a real cert-manager, with Roles in some namespaces only and in the whole cluster."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.cluster.cert_manager_install import AUTHORITY, LEAF, LLM, OTHER, OWN, SECONDS, Install, running_install
from tests.cluster.control_plane import ControlPlane
from tests.cluster.controller_running import Cache, deploy, deployment
from tests.cluster.servers import until
from tests.cluster.webhook_processes import is_injected

from inference_cache_contract.pod import API_VERSION, KIND, PLURAL, VERSION_ANNOTATION

pytestmark = [pytest.mark.services, pytest.mark.slow]
PODS = 20
SPEC = {"selector": {"matchLabels": {"app": "vllm"}}, "model": {"name": "m", "version": "v1"}}
ARTIFACTS = [{"source": "https://cdn.example.com/m/", "mountPath": "/models/m", "manifest": {"sha256": "0" * 64}}]


@pytest.fixture(scope="module")
def install(tmp_path_factory: pytest.TempPathFactory, helm: Path) -> Iterator[Install]:
    with running_install(tmp_path_factory.mktemp("cert-manager"), helm, "--set", f"namespaces={{{LLM}}}") as made:
        create_cache(made.plane, LLM, "another", selector={"matchLabels": {"app": "another"}})
        yield made


def create_cache(plane: ControlPlane, namespace: str, name: str = "faq", **spec: Any) -> None:
    body = {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": name}, "spec": {**SPEC, **spec}}
    plane.api.request("POST", f"/apis/{API_VERSION}/namespaces/{namespace}/{PLURAL}", body)


def test_the_api_server_is_told_the_authority_of_what_cert_manager_issues(install: Install) -> None:
    cert_manager = install.cert_manager
    cert_manager.wait(lambda: not cert_manager.not_ready())
    cert_manager.wait(lambda: all(install.bundles()))
    secret = cert_manager.secret(LEAF)
    assert set(secret) == {"tls.crt", "tls.key", "ca.crt"}
    assert install.bundles() == [secret["ca.crt"]] * 2
    before = install.configuration()["metadata"]["generation"]
    install.helm.install(OWN, *install.options, "--set", "operator.replicas=3")
    assert install.bundles() == [secret["ca.crt"]] * 2
    assert install.configuration()["metadata"]["generation"] == before, "an upgrade does not take it away either, to be put back"


def test_pods_of_the_given_namespaces_get_the_sidecar_and_new_versions_and_no_others_do(install: Install) -> None:
    api, cache = install.plane.api, Cache(install.plane.api, LLM)
    for namespace in (LLM, OTHER):
        deploy(api, namespace, deployment())
    until(lambda: len(cache.pods()) == 2, "pods that are older than the resource", SECONDS)
    for namespace in (LLM, OTHER):
        create_cache(install.plane, namespace)
    serves(cache, "v1")
    cache.bump("v2")
    serves(cache, "v2")
    assert is_injected(install.create_pod())
    assert not is_injected(install.create_pod(OTHER))
    assert not Cache(api, OTHER).status()
    assert not any(map(is_injected, Cache(api, OTHER).pods()))
    assert install.refusals() == []


def serves(cache: Cache, version: str) -> None:
    """Waits until all pods do."""
    until(lambda: cache.status().get("activeVersion") == version, f"version {version}", SECONDS)
    until(lambda: versions(cache) == [version] * 2, f"pods of {version}", SECONDS)
    cache.wait_serving()
    assert all(map(is_injected, cache.pods()))


def versions(cache: Cache) -> list[str]:
    return [pod["metadata"].get("annotations", {}).get(VERSION_ANNOTATION, "") for pod in cache.pods()]


def by_deletion(install: Install) -> None:
    install.cert_manager.delete_secret(LEAF)


def by_order(install: Install) -> None:
    install.cert_manager.renew(LEAF)


def with_a_renewed_authority(install: Install) -> None:
    """Whose key stays."""
    issued_anew(install, install.cert_manager.renew)


def with_another_authority(install: Install) -> None:
    issued_anew(install, install.cert_manager.delete_secret)


def issued_anew(install: Install, renew: Callable[[str], None]) -> None:
    cert_manager, before = install.cert_manager, install.bundles()
    renew(AUTHORITY)
    authority = cert_manager.secret(AUTHORITY)["tls.crt"]

    def signed() -> bool:
        # An issuer that has not seen the new authority yet signs with the one before.
        if cert_manager.secret(LEAF).get("ca.crt") != authority:
            cert_manager.renew(LEAF)
        return cert_manager.secret(LEAF).get("ca.crt") == authority

    cert_manager.wait(signed)
    cert_manager.wait(lambda: not set(install.bundles()) & {b"", *before})


@pytest.mark.parametrize("renew", [by_deletion, by_order, with_a_renewed_authority, with_another_authority])
def test_a_renewed_certificate_fails_no_connection_and_restarts_nothing(install: Install, renew: Callable[[Install], None]) -> None:
    until(lambda: is_injected(install.create_pod(app="another")), "the API server to reach the webhooks", SECONDS)
    loads, failed, pods = install.loads(), install.failed_open(), list[dict[str, Any]]()
    renew(install)
    pods += [install.create_pod(app="another") for _ in range(PODS)]
    install.volume.put(install.cert_manager.secret(LEAF))

    def served() -> bool:
        pods.append(install.create_pod(app="another"))
        return install.loads() == [each + 1 for each in loads]

    until(served, "both to serve the new certificate", SECONDS)
    pods += [install.create_pod(app="another") for _ in range(PODS)]
    assert all(map(is_injected, pods))
    assert install.failed_open() == failed
    assert all(webhook.server.is_up for webhook in install.webhooks)
    assert install.refusals() == []


def test_in_the_whole_cluster_pods_that_must_have_files_are_sent_with_the_same_authority(tmp_path: Path, helm: Path) -> None:
    with running_install(tmp_path, helm) as install:
        install.cert_manager.wait(lambda: all(install.bundles()))
        create_cache(install.plane, LLM)
        until(lambda: is_injected(install.create_pod()), "the API server to reach the webhooks", SECONDS)
        create_cache(install.plane, OTHER, model={"name": "m", "version": "v1", "artifacts": ARTIFACTS})
        until(lambda: [each["failurePolicy"] for each in install.entries()][2:] == ["Fail"], "an entry of its own", SECONDS)
        until(lambda: is_injected(install.create_pod(OTHER)), "the sidecar", SECONDS)
        with_another_authority(install)
        until(lambda: len(set(install.bundles())) == 1, "one authority of all entries", SECONDS)
        install.volume.put(install.cert_manager.secret(LEAF))
        until(lambda: install.loads() == [2, 2], "both to serve the new certificate", SECONDS)
        assert len(install.entries()) == 3
        assert all(is_injected(install.create_pod(namespace)) for namespace in (LLM, OTHER))
        assert install.refusals() == []
        install.webhooks[0].server.kill()
        until(lambda: is_injected(install.create_pod()) and install.failed_open() != [], "a failure to be counted", SECONDS)
