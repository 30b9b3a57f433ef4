"""Keeps the webhook's CA, certificate, caBundle and `Fail` entries as they must be. The leading controller runs what `keeper_of` gives."""

import asyncio
import base64
import hashlib
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from prometheus_client import CollectorRegistry, Gauge

from inference_cache_operator.certificates import deciding, issuing
from inference_cache_operator.certificates.deciding import Held, Keep, Policy, RotateCa
from inference_cache_operator.certificates.objects import ClusterObjects, Objects, SecretRead
from inference_cache_operator.cluster.api import Cluster
from inference_cache_operator.errors import ClusterError, Conflicting, NotLeading
from inference_cache_operator.resource import Resource
from inference_cache_operator.settings import Settings
from inference_cache_operator.webhook import configuration

logger = logging.getLogger(__name__)
_SOON: Final = 1.0
"""Seconds between two steps while something is under way."""


class CertificateKeeper:
    """Level-triggered: each step reads what is there and does one thing. `required`: resources whose pods must not start uninjected."""

    def __init__(
        self,
        objects: Objects,
        policy: Policy,
        poll_seconds: float,
        required: Callable[[], Sequence[Resource]] = tuple,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._objects = objects
        self._policy = policy
        self._poll_seconds = poll_seconds
        self._required = required
        self._clock = clock
        self._known: tuple[bytes, float] | None = None
        """The newest CA's digest, and since when the webhook configuration is known to hold it."""
        self.leaf_expires: datetime | None = None
        self.ca_expires: datetime | None = None

    async def run(self) -> None:
        """Until cancelled."""
        await _step_on(self.step, self._poll_seconds)

    async def step(self) -> float:
        """One thing done, or none; seconds until the next step. Raises ClusterError."""
        read = await self._objects.secret()
        held = deciding.read_held(read.data, read.rotation_asked, self._clock())
        decision = deciding.decide(held, self._policy, self._clock(), self._known_for(held))
        self._note(held)
        if not isinstance(decision, Keep):
            await self._change(decision, held, read)
            return min(_SOON, self._poll_seconds)
        changed = await self._configure(held)
        return min(_SOON, self._poll_seconds) if changed or decision.waiting else self._poll_seconds

    async def _change(self, decision: deciding.Decision, held: Held, read: SecretRead) -> None:
        data = deciding.carry_out(decision, held, read.data, self._policy, self._clock())
        begun = isinstance(decision, RotateCa | deciding.Begin)
        await self._objects.apply_secret(data, read, read.rotate if begun else read.rotated)
        logger.info("certificates: %s", type(decision).__name__, extra={"fields": {"decision": type(decision).__name__}})

    async def _configure(self, held: Held) -> bool:
        """caBundle and the `Fail` entries; whether something was written."""
        present = await self._objects.configuration()
        bundle = base64.b64encode(issuing.bundle_text(held.authorities)).decode()
        if await _write_entries(self._objects, present, configuration.wanted_entries(present, bundle, self._required())):
            self._known = None
            return True
        newest = _digest(held)
        if configuration.bundle_is_known(present, bundle) and (self._known is None or self._known[0] != newest):
            self._known = (newest, time.monotonic())
        return False

    def _known_for(self, held: Held) -> timedelta | None:
        if self._known is None or not held.authorities or self._known[0] != _digest(held):
            return None
        return timedelta(seconds=time.monotonic() - self._known[1])

    def _note(self, held: Held) -> None:
        self.leaf_expires = held.leaf.not_valid_after_utc if held.leaf else None
        self.ca_expires = held.authorities[0].not_valid_after_utc if held.authorities else None


class EntryKeeper:
    """With cert-manager: the `Fail` entries alone, with the caBundle that cert-manager has put into the chart's."""

    def __init__(self, objects: Objects, poll_seconds: float, required: Callable[[], Sequence[Resource]]) -> None:
        self._objects = objects
        self._poll_seconds = poll_seconds
        self._required = required

    async def run(self) -> None:
        """Until cancelled."""
        await _step_on(self.step, self._poll_seconds)

    async def step(self) -> float:
        """Seconds until the next step. Raises ClusterError."""
        present = await self._objects.configuration()
        changed = await _write_entries(self._objects, present, configuration.wanted_entries(present, None, self._required()))
        return min(_SOON, self._poll_seconds) if changed else self._poll_seconds


def keeper_of(
    settings: Settings, cluster: Cluster, required: Callable[[], Sequence[Resource]], registry: CollectorRegistry
) -> CertificateKeeper | EntryKeeper | None:
    """What the leader must run; None in a namespaced install with cert-manager, which may not touch the webhook configuration."""
    objects = ClusterObjects(cluster, settings.own_namespace, settings.certificate_secret, settings.webhook_configuration)
    if settings.certificates == "own":
        keeper = CertificateKeeper(objects, policy_of(settings), settings.certificate_poll, required)
        _show(registry, keeper)
        return keeper
    return None if settings.namespaces else EntryKeeper(objects, settings.certificate_poll, required)


def policy_of(settings: Settings) -> Policy:
    return Policy(
        names=deciding.service_names(settings.webhook_services, settings.own_namespace, settings.certificate_names),
        ca_lifetime=timedelta(seconds=settings.ca_lifetime),
        leaf_lifetime=timedelta(seconds=settings.leaf_lifetime),
        settle=timedelta(seconds=settings.ca_settle),
        overlap=timedelta(seconds=settings.ca_overlap),
    )


def _digest(held: Held) -> bytes:
    return hashlib.sha256(issuing.bundle_text(held.authorities[:1])).digest() if held.authorities else b""


async def _write_entries(objects: Objects, present: Mapping[str, Any], entries: Sequence[Mapping[str, Any]]) -> bool:
    """One write at most; whether there was one."""
    pruned, applied = configuration.pruning_body(present, entries), configuration.apply_body(present, entries)
    if pruned is not None:
        await objects.merge_configuration(pruned)
    elif applied is not None:
        await objects.apply_configuration(applied)
    else:
        return False
    logger.info("certificates: webhook configuration written", extra={"fields": {"entries": len(entries)}})
    return True


def _show(registry: CollectorRegistry, keeper: CertificateKeeper) -> None:
    expiry = Gauge(
        "inference_cache_certificate_expiry_timestamp_seconds",
        "When what is kept in the Secret runs out; 0: nothing is there, or another replica leads.",
        ["certificate"],
        registry=registry,
    )
    expiry.labels("leaf").set_function(lambda: keeper.leaf_expires.timestamp() if keeper.leaf_expires else 0.0)
    expiry.labels("ca").set_function(lambda: keeper.ca_expires.timestamp() if keeper.ca_expires else 0.0)


async def _step_on(step: Callable[[], Awaitable[float]], poll_seconds: float) -> None:
    """Until cancelled; what fails is logged and tried again."""
    while True:
        try:
            pause = await step()
        except Conflicting as error:
            logger.info("certificates: another was faster, read again: %s", error)
            pause = _SOON
        except (ClusterError, NotLeading) as error:
            logger.warning("certificates: cannot be kept for now: %s", error)
            pause = min(poll_seconds, 5 * _SOON)
        await asyncio.sleep(pause)
