"""The controller's composition root: makes everything once, runs it, and takes it apart in the reverse order."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Coroutine
from typing import Any, Final

import aiohttp
from kubernetes.aio.client import ApiClient
from prometheus_client import CollectorRegistry

from inference_cache_operator.certificates.keeping import keeper_of
from inference_cache_operator.cluster import ownership
from inference_cache_operator.cluster.api import Cluster
from inference_cache_operator.cluster.caches import kind_is_there
from inference_cache_operator.cluster.connecting import connected, kopf_credentials, kubeconfig_of
from inference_cache_operator.cluster.election import Election
from inference_cache_operator.cluster.sidecars import Resolver, SidecarClient, by_pod_ip
from inference_cache_operator.controller.collaborators import Collaborators, Pace
from inference_cache_operator.controller.freshness import WatchAge
from inference_cache_operator.controller.index import Index
from inference_cache_operator.controller.injecting import RealInjector
from inference_cache_operator.controller.measuring import Measures, show_states
from inference_cache_operator.controller.probing import WebhookProbe
from inference_cache_operator.controller.running import Controller
from inference_cache_operator.controller.watching import watching
from inference_cache_operator.injection.naming import installation_digest
from inference_cache_operator.prefetch.figures import AgentClient
from inference_cache_operator.prefetch.prefetcher import Prefetcher
from inference_cache_operator.serving import Health, serve_health
from inference_cache_operator.settings import Settings
from inference_cache_operator.sidecar_defaults import sidecar_defaults

MANAGER: Final = "inference-cache-operator"


def run(settings: Settings) -> None:
    """Until SIGTERM or SIGINT. Raises OperatorError where it cannot start."""
    asyncio.run(serve(settings))


async def serve(settings: Settings, resolve: Resolver = by_pod_ip, pace: Pace | None = None) -> None:
    """Until a signal comes, in the main thread, or it is cancelled."""
    async with connected(kubeconfig_of()) as client, aiohttp.ClientSession(trust_env=False) as session:
        pace = pace or Pace(user=settings.template_wait)
        await serve_on(settings, client, SidecarClient(session, resolve), pace, AgentClient(session))


async def serve_on(settings: Settings, client: ApiClient, sidecars: SidecarClient, pace: Pace, agents: AgentClient | None = None) -> None:
    """Until a signal comes, in the main thread, or it is cancelled."""
    plain, registry, age, index = Cluster(client, MANAGER), CollectorRegistry(), WatchAge(settings.stale_after), Index()
    owners = await ownership.owners(plain, settings.own_namespace, settings.pod_name)
    election = Election(plain, settings.own_namespace, settings.lease, settings.pod_name, owners=owners)
    cluster = Cluster(client, MANAGER, election.guard)
    defaults = sidecar_defaults(settings)
    collaborators = Collaborators(
        cluster=cluster,
        sidecars=sidecars,
        injector=RealInjector(defaults),
        index=index,
        webhook_reached=WebhookProbe(cluster, settings.own_namespace, installation_digest(defaults)).reached,
        prefetcher=Prefetcher(cluster, defaults, agents, settings.own_namespace),
        default_image=settings.sidecar_image,
        instance=settings.pod_name,
        pace=pace,
    )
    controller = Controller(collaborators, settings.namespaces, age.took, Measures(registry))
    keeper = keeper_of(settings, cluster, index.resources, registry)
    show_states(registry, lambda: election.leading, lambda: age.behind_seconds, lambda: len(index.all_keys()))
    async with serve_health(settings.health, Health(live=age.problems, ready=list), registry):
        await kind_is_there(plain, settings.namespaces)
        async with (
            watching(controller.heard, lambda: kopf_credentials(client), settings.namespaces) as watch_ended,
            _signalled() as stopped,
        ):
            beside = () if keeper is None else (keeper.run,)
            await _until_any(election.run(lambda: controller.lead(*beside)), watch_ended, stopped)


async def _until_any(work: Coroutine[Any, Any, None], *futures: "asyncio.Future[None]") -> None:
    """Ends the work when one of the futures is there, and raises what it raises."""
    task = asyncio.ensure_future(work)
    try:
        done, _ = await asyncio.wait({task, *futures}, return_when=asyncio.FIRST_COMPLETED)
        for each in done:
            each.result()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@contextlib.asynccontextmanager
async def _signalled() -> "AsyncIterator[asyncio.Future[None]]":
    """Done with the first SIGTERM or SIGINT."""
    loop = asyncio.get_running_loop()
    stopped: asyncio.Future[None] = loop.create_future()
    with contextlib.suppress(RuntimeError, ValueError):
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, lambda: None if stopped.done() else stopped.set_result(None))
    try:
        yield stopped
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
