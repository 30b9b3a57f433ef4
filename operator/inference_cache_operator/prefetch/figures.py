"""How far the agents of nodes are with a version's files: asks them, now and then."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import aiohttp

from inference_cache_artifacts.errors import ArtifactError
from inference_cache_artifacts.handover.protocol import PORT, PROGRESS, Standing, read_standing
from inference_cache_operator.audit.pods import Pod
from inference_cache_operator.cluster.sidecars import bounded
from inference_cache_operator.prefetch.agents import Agents
from inference_cache_operator.prefetch.outcome import Figures

EVERY_SECONDS: Final = 3.0
"""A status that changes in every round keeps everybody who watches busy."""
DEADLINE_SECONDS: Final = 1.0
"""For all agents together: a round waits for them."""
AT_ONCE: Final = 16
_SUMMED: Final = ("bytes", "totalBytes", "files", "totalFiles")

Resolver = Callable[[Pod], str | None]
"""Where an agent is reached, as `http://10.0.0.7:9182`; None where it has no address yet."""


def by_pod_ip(pod: Pod) -> str | None:
    if not pod.ip:
        return None
    return f"http://[{pod.ip}]:{PORT}" if ":" in pod.ip else f"http://{pod.ip}:{PORT}"


class AgentClient:
    """What it asks by belongs to the caller."""

    def __init__(self, session: aiohttp.ClientSession, resolve: Resolver = by_pod_ip) -> None:
        self._session = session
        self._resolve = resolve
        self._timeout = aiohttp.ClientTimeout(total=DEADLINE_SECONDS)

    async def standing(self, agent: Pod, namespace: str, tree: str) -> Standing | None:
        """None: it does not answer in time, or does not know the tree."""
        address = self._resolve(agent)
        if address is None:
            return None
        url = address + PROGRESS.format(namespace=namespace, tree=tree)
        try:
            async with self._session.get(url, timeout=self._timeout, allow_redirects=False) as response:
                return read_standing(await bounded(response.content)) if response.status == 200 else None
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError, ArtifactError):
            return None


@dataclass(slots=True)
class _Known:
    """Of one resource."""

    trees: tuple[str, ...]
    asked: float = float("-inf")
    by_node: dict[str, Figures] = field(default_factory=dict)


class FigureBook:
    """The last figures by resource; a new one begins with none."""

    def __init__(self, client: AgentClient | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._clock = clock
        self._known: dict[str, _Known] = {}

    async def of(self, uid: str, namespace: str, trees: Sequence[str], agents: Agents, *, last: bool = False) -> Mapping[str, Figures]:
        """By node, of those that `agents` names; asked for at most every `EVERY_SECONDS`, and the `last` time at once. Raises nothing."""
        known = self._known.get(uid)
        if known is None or known.trees != tuple(trees):
            known = self._known[uid] = _Known(tuple(trees))
        if self._client is not None and (last or self._clock() - known.asked >= EVERY_SECONDS):
            known.asked = self._clock()
            known.by_node |= await _ask(self._client, namespace, known.trees, agents)
        return {node: figures for node, figures in known.by_node.items() if node in agents}

    def forget(self, uid: str) -> None:
        self._known.pop(uid, None)


async def _ask(client: AgentClient, namespace: str, trees: Sequence[str], agents: Agents) -> dict[str, Figures]:
    """What comes within `DEADLINE_SECONDS`, of nodes of which all comes."""
    turns, found = asyncio.Semaphore(AT_ONCE), dict[str, Figures]()

    async def of(node: str, agent: Pod) -> None:
        async with turns:
            answers = await asyncio.gather(*(client.standing(agent, namespace, tree) for tree in trees))
        if figures := summed(each for each in answers if each is not None):
            found[node] = figures

    asked = [of(node, pod) for node, pod in agents.items() if pod is not None and not pod.ending and not pod.ended]
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DEADLINE_SECONDS):
            await asyncio.gather(*asked)
    return found


def summed(standings: Iterable[Standing]) -> dict[str, int]:
    """Of several trees of one node; empty where nothing is known."""
    known = list(standings)
    if not known:
        return {}
    total = {name: sum(max(0, each.progress.get(name) or 0) for each in known) for name in _SUMMED}
    rate = sum(max(0, each.progress.get("bytesPerSecond") or 0) for each in known if each.state == "running")
    left = total["totalBytes"] - total["bytes"]
    if not rate or left <= 0:
        return total
    return {**total, "bytesPerSecond": rate, "etaSeconds": -(-left // rate)}
