"""Asks the sidecars' `/status`, by their pods' addresses, a bounded number at once."""

import asyncio
import json
from collections.abc import Callable, Iterable
from typing import Final

import aiohttp

from inference_cache_contract.endpoints import ADMIN_PORT, STATUS
from inference_cache_contract.sidecar_status import SidecarStatus, read_sidecar_status
from inference_cache_operator.audit.pods import Pod

DEADLINE_SECONDS: Final = 1.0
AT_ONCE: Final = 64
MAX_BYTES: Final = 1 << 20

Resolver = Callable[[Pod], str | None]
"""Where a pod's admin port is reached, as `http://10.0.0.7:9180`; None where it has no address yet."""


def by_pod_ip(pod: Pod) -> str | None:
    if not pod.ip:
        return None
    return f"http://[{pod.ip}]:{ADMIN_PORT}" if ":" in pod.ip else f"http://{pod.ip}:{ADMIN_PORT}"


class SidecarClient:
    """What it asks by belongs to the caller."""

    def __init__(self, session: aiohttp.ClientSession, resolve: Resolver = by_pod_ip, deadline_seconds: float = DEADLINE_SECONDS) -> None:
        self._session = session
        self._resolve = resolve
        self._timeout = aiohttp.ClientTimeout(total=deadline_seconds)
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def statuses(self, pods: Iterable[Pod]) -> dict[str, SidecarStatus]:
        """By pod uid; one that does not answer in time, or not like a sidecar, is left out."""
        asked = list(pods)
        answers = await asyncio.gather(*(self._status(pod) for pod in asked))
        return {pod.uid: answer for pod, answer in zip(asked, answers, strict=True) if answer is not None}

    async def _status(self, pod: Pod) -> SidecarStatus | None:
        address = self._resolve(pod)
        if address is None:
            return None
        try:
            async with self._turns, self._session.get(address + STATUS, timeout=self._timeout, allow_redirects=False) as response:
                if response.status != 200:
                    return None
                return read_sidecar_status(json.loads(await bounded(response.content)))
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError):
            return None


async def bounded(content: aiohttp.StreamReader) -> bytes:
    """Raises ValueError where there is more than a sidecar would say."""
    read = bytearray()
    async for chunk in content.iter_chunked(1 << 16):
        read += chunk
        if len(read) > MAX_BYTES:
            raise ValueError("too long for a sidecar's status")
    return bytes(read)
