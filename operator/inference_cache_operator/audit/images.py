"""Whether the sidecar's image can be pulled, told by the pods that have it. Pure.

While it cannot, new pods start without a sidecar; one trial pod every ten minutes gets it nevertheless. The controller says so in the
condition `Stalled`, and the webhook heeds that.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from inference_cache_operator.audit.pods import Pod, sidecar_image, sidecar_state

REASON: Final = "ImagePullFailed"
PULL_REASONS: Final = frozenset({"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable"})
TRIAL_SECONDS: Final = 600.0


@dataclass(frozen=True, slots=True)
class PullFailure:
    image: str
    trial_due: bool
    """The next pod gets the sidecar, to see whether it can be pulled by now."""


def pull_failure(pods: Iterable[Pod], image: str, now: float) -> PullFailure | None:
    """None: none is kept from it, or a later one runs it. That earlier ones do says only that their nodes have it still."""
    having = [pod for pod in pods if sidecar_image(pod) == image and not pod.ended]
    failing = [pod.created for pod in having if is_kept_from_its_image(pod)]
    running = [pod.created for pod in having if "running" in sidecar_state(pod)]
    if not failing or max(running, default=0.0) > max(failing):
        return None
    return PullFailure(image, trial_due=now - max(pod.created for pod in having) >= TRIAL_SECONDS)


def is_kept_from_its_image(pod: Pod) -> bool:
    """It waits for a sidecar whose image cannot be pulled, and serves nothing."""
    return (sidecar_state(pod).get("waiting") or {}).get("reason") in PULL_REASONS


def is_withheld(status: Mapping[str, Any], image: str) -> bool:
    """For the webhook: the resource's status says that `image` cannot be pulled, and no trial is due."""
    return any(
        each.get("type") == "Stalled"
        and each.get("status") == "True"
        and each.get("reason") == REASON
        and f"`{image}`" in each.get("message", "")
        for each in status.get("conditions") or ()
    )
