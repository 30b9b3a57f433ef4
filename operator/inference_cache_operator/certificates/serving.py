"""The TLS context that the webhook serves with, kept on the newest certificate without a restart. The webhook process runs it.

`SSLContext.load_cert_chain` on the live context serves the new certificate to new connections; open ones go on.
"""

import asyncio
import contextlib
import logging
import os
import ssl
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from inference_cache_operator.certificates import issuing
from inference_cache_operator.certificates.deciding import LEAF, LEAF_KEY
from inference_cache_operator.certificates.issuing import Pair
from inference_cache_operator.certificates.objects import read_secret
from inference_cache_operator.cluster.api import Cluster
from inference_cache_operator.errors import ClusterError

logger = logging.getLogger(__name__)
FIRST_POLL_SECONDS: Final = 1.0

ReadPair = Callable[[], Awaitable[Pair | None]]
"""None: there is no certificate yet. Raises ClusterError or OSError."""


@dataclass(slots=True)
class ServedCertificate:
    """`loaded` is set once there is one."""

    context: ssl.SSLContext
    loaded: asyncio.Event
    pair: Pair | None = None
    expires: datetime | None = None
    times_loaded: int = 0


def new_served_certificate() -> ServedCertificate:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return ServedCertificate(context, asyncio.Event())


async def keep_loaded(served: ServedCertificate, read: ReadPair, poll_seconds: float) -> None:
    """Until cancelled. What cannot be read or used leaves the one before in place."""
    while True:
        try:
            take(served, await read())
        except (ClusterError, OSError) as error:
            logger.warning("certificate: cannot be read: %s", error)
        await asyncio.sleep(poll_seconds if served.loaded.is_set() else min(FIRST_POLL_SECONDS, poll_seconds))


def take(served: ServedCertificate, pair: Pair | None) -> bool:
    """Serves it if it is another than before and usable; whether it does."""
    if pair is None or pair == served.pair:
        return False
    chain = issuing.read_bundle(pair.certificate)
    try:
        with _as_files(pair) as (certificate, key):
            # A context that got the certificate but not the key would serve nobody, so another one tries first.
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
            served.context.load_cert_chain(certificate, key)
    except (ssl.SSLError, OSError) as error:
        logger.error("certificate: cannot be used: %s", type(error).__name__)
        return False
    served.pair, served.expires = pair, chain[0].not_valid_after_utc if chain else None
    served.times_loaded += 1
    served.loaded.set()
    logger.info("certificate: loaded", extra={"fields": {"expires": served.expires}})
    return True


def from_secret(cluster: Cluster, namespace: str, name: str) -> ReadPair:
    async def read() -> Pair | None:
        data = read_secret(await cluster.get(f"/api/v1/namespaces/{namespace}/secrets/{name}")).data
        return Pair(data[LEAF], data[LEAF_KEY]) if LEAF in data and LEAF_KEY in data else None

    return read


def from_folder(folder: Path) -> ReadPair:
    """A mounted Secret: kubelet swaps all its files at once, by one link."""

    async def read() -> Pair | None:
        try:
            return Pair((folder / LEAF).read_bytes(), (folder / LEAF_KEY).read_bytes())
        except FileNotFoundError:
            return None

    return read


@contextlib.contextmanager
def _as_files(pair: Pair) -> Iterator[tuple[str, str]]:
    """In memory: the key never lies on a disk, and no folder need be writable."""
    with _memory_file(pair.certificate) as certificate, _memory_file(pair.key) as key:
        yield certificate, key


@contextlib.contextmanager
def _memory_file(content: bytes) -> Iterator[str]:
    descriptor = os.memfd_create("certificate")
    try:
        os.write(descriptor, content)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)
