"""The webhook's composition root: makes everything once, runs it, and takes it apart in the reverse order."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import kopf
from prometheus_client import CollectorRegistry

from inference_cache_contract.pod import API_VERSION, PLURAL
from inference_cache_operator.certificates import serving as tls
from inference_cache_operator.certificates.serving import ServedCertificate
from inference_cache_operator.cluster.api import Cluster
from inference_cache_operator.cluster.caches import kind_is_there, list_caches
from inference_cache_operator.cluster.connecting import connected, kopf_credentials, kubeconfig_of
from inference_cache_operator.injection.naming import installation_digest
from inference_cache_operator.kopf_settings import IDENTITY, kopf_settings
from inference_cache_operator.serving import Health, serve_health
from inference_cache_operator.settings import Settings
from inference_cache_operator.sidecar_defaults import sidecar_defaults
from inference_cache_operator.webhook.deciding import Asked, Asker
from inference_cache_operator.webhook.handling import Admission, Request
from inference_cache_operator.webhook.index import Freshness, ResourceIndex
from inference_cache_operator.webhook.measuring import Measures, show_states
from inference_cache_operator.webhook.server import HANDLERS, AdmissionServer
from inference_cache_operator.webhook.telling import Telling

logger = logging.getLogger(__name__)
MANAGER: Final = "inference-cache-webhook"


def run(settings: Settings) -> None:
    """Until SIGTERM or SIGINT. Raises OperatorError where it cannot start, and what else has ended it."""
    try:
        asyncio.run(serve(settings))
    except BaseExceptionGroup as group:
        raise _first(group) from group


async def serve(settings: Settings) -> None:
    async with connected(kubeconfig_of()) as client:
        await _serve(settings, Cluster(client, MANAGER), lambda: kopf_credentials(client))


async def _serve(settings: Settings, cluster: Cluster, credentials: Callable[[], kopf.ConnectionInfo]) -> None:
    registry, index, served = CollectorRegistry(), ResourceIndex(), tls.new_served_certificate()
    measures = Measures(registry)
    telling = Telling(cluster, settings.pod_name, measures.events_failed)
    freshness = Freshness(index, lambda: list_caches(cluster, settings.namespaces), settings.stale_after)
    server, defaults = AdmissionServer(settings.listen, served), sidecar_defaults(settings)
    admission = Admission(
        cluster=cluster,
        index=index,
        asker=Asker(settings.own_namespace, settings.pod_name, settings.sidecar_image, installation_digest(defaults)),
        defaults=defaults,
        measures=measures,
        telling=telling,
        list_deadline=settings.list_deadline,
        namespaces=settings.namespaces,
    )
    show_states(registry, served, index, freshness)
    health = Health(live=freshness.problems, ready=lambda: not_ready(freshness, served, server))
    async with serve_health(settings.health, health, registry):
        await kind_is_there(cluster, settings.namespaces)
        async with _running(
            tls.keep_loaded(served, _reader(settings, cluster), settings.certificate_poll),
            freshness.run(settings.freshness_every),
            telling.run(),
        ):
            await kopf.operator(
                registry=handlers(admission, index, credentials),
                settings=settings_of_kopf(server),
                identity=IDENTITY,
                standalone=True,
                clusterwide=not settings.namespaces,
                namespaces=settings.namespaces,
            )


def handlers(admission: Admission, index: ResourceIndex, credentials: Callable[[], kopf.ConnectionInfo]) -> kopf.OperatorRegistry:
    registry = kopf.OperatorRegistry()
    group, version = API_VERSION.split("/")

    @kopf.on.login(registry=registry)
    def login(**_: Any) -> kopf.ConnectionInfo:
        return credentials()

    @kopf.on.event(group, version, PLURAL, registry=registry)
    async def watched(event: kopf.RawEvent, uid: str, **_: Any) -> None:
        if event["type"] == "DELETED":
            index.remove(uid)
        else:
            index.put(dict(event["object"]))

    for handler in HANDLERS.values():
        _admit_by(registry, admission, handler)
    return registry


def _admit_by(registry: kopf.OperatorRegistry, admission: Admission, handler: str) -> None:
    @kopf.on.mutate("", "v1", "pods", id=handler, operation="CREATE", side_effects=True, registry=registry)
    async def admit(body: kopf.Body, namespace: str | None, patch: kopf.Patch, warnings: list[str], dryrun: bool, **_: Any) -> None:
        asked = Asked(dict(body), namespace or "", required=handler != "mutate")
        await admission.admit(Request(asked, patch, warnings, dryrun))


def settings_of_kopf(server: AdmissionServer) -> kopf.OperatorSettings:
    settings = kopf_settings()
    settings.admission.server = server
    return settings


def not_ready(freshness: Freshness, served: ServedCertificate, server: AdmissionServer) -> list[str]:
    problems = [] if freshness.synced else ["the index of InferenceCaches is not filled yet"]
    if not served.loaded.is_set():
        problems.append("there is no certificate yet")
    elif served.expires is not None and served.expires <= datetime.now(UTC):
        problems.append("the certificate has run out")
    elif server.port is None:
        problems.append("the admission server does not listen yet")
    return problems


def _reader(settings: Settings, cluster: Cluster) -> tls.ReadPair:
    if settings.tls_folder:
        return tls.from_folder(Path(settings.tls_folder))
    return tls.from_secret(cluster, settings.own_namespace, settings.certificate_secret)


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


@contextlib.asynccontextmanager
async def _running(*work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Background work that ends with the body; where one of it fails, the body ends."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(each) for each in work]
        yield
        for task in tasks:
            task.cancel()
