"""How far a pod's containers are that fetch files, as kubelet says it. Pure."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from inference_cache_operator.audit.images import PULL_REASONS
from inference_cache_operator.audit.images import REASON as IMAGE_PULL_FAILED
from inference_cache_operator.audit.pods import Pod
from inference_cache_operator.injection.fetching import is_fetching

FAILED: Final = "FetchFailed"
"""Where the container does not say a reason."""
_LONGEST: Final = 512
"""Characters of what a container says."""
_REASON: Final = re.compile(r"[A-Z][A-Za-z0-9]{0,62}")
_ON_ITS_WAY: Final = frozenset({"", "ContainerCreating", "PodInitializing", "CrashLoopBackOff"})
_INIT: Final = (("initContainers", "initContainerStatuses"),)
_ALL: Final = (*_INIT, ("containers", "containerStatuses"))


@dataclass(frozen=True, slots=True)
class Fetch:
    """Of one pod."""

    state: Literal["done", "running", "waiting", "failed"]
    reason: str = ""
    message: str = ""


def fetches(pod: Pod) -> bool:
    """Before its own containers start."""
    return any(map(is_fetching, _listed(pod, "spec", "initContainers")))


def fetch_of(pod: Pod) -> Fetch:
    """Of a pod that runs vLLM. A container that is tried again counts as failed until it is done."""
    return Fetch("done") if pod.ready else _worst(_containers(pod, _INIT))


def prefetch_of(pod: Pod) -> Fetch:
    """Of a pod that only fetches."""
    status = pod.body.get("status") or {}
    if status.get("phase") == "Succeeded":
        return Fetch("done")
    worst = _worst(_containers(pod, _ALL))
    if status.get("phase") == "Failed" and worst.state != "failed":
        told = str(status.get("message") or status.get("reason") or "the pod was ended")
        return Fetch("failed", word(str(status.get("reason") or "")), shortened(told))
    return worst if worst.state != "done" else Fetch("running")


def word(reason: str) -> str:
    """As Kubernetes takes it in a condition; a status with another is refused as a whole."""
    return reason if _REASON.fullmatch(reason) else FAILED


def shortened(text: str) -> str:
    """In one line, and printable."""
    plain = "".join(each if each.isprintable() else " " for each in text)
    return plain if len(plain) <= _LONGEST else f"{plain[: _LONGEST - 1]}…"


def _worst(found: Iterable[Fetch]) -> Fetch:
    """One container runs while the next one waits."""
    known = list(found)
    return next((each for state in ("failed", "running", "waiting") for each in known if each.state == state), Fetch("done"))


def _containers(pod: Pod, kinds: Iterable[tuple[str, str]]) -> list[Fetch]:
    found = []
    for listed, told in kinds:
        statuses = {str(each.get("name")): each for each in _listed(pod, "status", told)}
        names = [str(each["name"]) for each in _listed(pod, "spec", listed) if is_fetching(each)]
        found += [_of_container(statuses.get(name) or {}) for name in names]
    return found


def _of_container(status: Mapping[str, Any]) -> Fetch:
    state = status.get("state") or {}
    ended = state.get("terminated") or (status.get("lastState") or {}).get("terminated")
    if ended and ended.get("exitCode") == 0:
        return Fetch("done")
    if ended:
        return _failure(ended)
    waiting = state.get("waiting") or {}
    reason = str(waiting.get("reason") or "")
    if reason in _ON_ITS_WAY:
        return Fetch("running" if "running" in state else "waiting")
    named = IMAGE_PULL_FAILED if reason in PULL_REASONS else word(reason)
    return Fetch("failed", named, shortened(f"{reason}: {waiting.get('message') or 'the container does not start'}"))


def _failure(ended: Mapping[str, Any]) -> Fetch:
    """What `inference-cache fetch` left as its last words, or what else there is."""
    text = str(ended.get("message") or "")
    said = _said(text)
    if said is None:
        how = str(ended.get("reason") or "Error")
        reason = FAILED if how == "Error" else word(how)
        return Fetch("failed", reason, shortened(text.strip() or f"{how}: exit status {ended.get('exitCode')}"))
    file, message = str(said.get("file") or ""), str(said.get("message") or "")
    told = message if not file or file in message else f"{file}: {message}"
    return Fetch("failed", word(str(said.get("reason") or "")), shortened(told))


def _said(text: str) -> Mapping[str, Any] | None:
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return said if isinstance(said, Mapping) else None


def _listed(pod: Pod, part: str, name: str) -> list[Mapping[str, Any]]:
    return [each for each in (pod.body.get(part) or {}).get(name) or () if isinstance(each, Mapping)]
