"""Makes kubelet look again at pods whose sidecars have not taken up what their annotation says.

Kubelet brings an annotation into a pod's files when the pod changes. A change that comes while it writes the one before can be lost until
its next look at the pod (`syncFrequency`, a minute unless set otherwise). Any further change of the pod makes it look at once.
"""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from inference_cache_contract.configuration import digest
from inference_cache_contract.pod import NUDGE_ANNOTATION
from inference_cache_contract.sidecar_status import SidecarStatus
from inference_cache_operator.audit.pods import Pod
from inference_cache_operator.cluster.api import Cluster
from inference_cache_operator.controller.configuring import annotate_all
from inference_cache_operator.controller.index import Key

_log = logging.getLogger(__name__)
FIRST_SECONDS: Final = 1.0
"""Some three times what a sidecar takes as a rule."""
MOST: Final = 6
"""The last one comes after a minute, when kubelet has looked by itself: whoever is still behind then does not lag, it does not want."""


@dataclass(frozen=True, slots=True)
class _Behind:
    digest: str
    since: float
    nudges: int = 0

    def due(self, now: float) -> bool:
        """After 1 s, and then each time after twice as long as before."""
        return self.nudges < MOST and now - self.since >= FIRST_SECONDS * (2.0 ** (self.nudges + 1) - 1)


class Nudges:
    """Which pods are behind, and since when, by resource."""

    def __init__(self) -> None:
        self._behind: dict[Key, dict[str, _Behind]] = {}

    async def nudge(self, cluster: Cluster, key: Key, pods: Iterable[Pod], statuses: Mapping[str, SidecarStatus], now: float) -> bool:
        """To be told of all pods of a resource at every look; True while that helps. Raises ClusterError.

        A sidecar that does not answer would not take anything up any sooner.
        """
        due = self._due(key, pods, statuses, now)
        for pod, _ in due:
            _log.info("%s has not taken up its configuration: kubelet is made to look again", pod.key)
        await annotate_all(cluster, [(pod, {NUDGE_ANNOTATION: text}) for pod, text in due])
        return any(each.nudges < MOST for each in self._behind.get(key, {}).values())

    def _due(self, key: Key, pods: Iterable[Pod], statuses: Mapping[str, SidecarStatus], now: float) -> list[tuple[Pod, str]]:
        before, behind, due = self._behind.pop(key, {}), dict[str, _Behind](), list[tuple[Pod, str]]()
        for pod in pods:
            wanted, status = digest(pod.configuration or ""), statuses.get(pod.uid)
            if pod.ending or status is None or status.configuration == wanted:
                continue
            one = before.get(pod.uid)
            if one is None or one.digest != wanted:
                one = _Behind(wanted, now)
            if one.due(now):
                one = replace(one, nudges=one.nudges + 1)
                due.append((pod, f"{wanted}.{one.nudges}"))
            behind[pod.uid] = one
        if behind:
            self._behind[key] = behind
        return due
