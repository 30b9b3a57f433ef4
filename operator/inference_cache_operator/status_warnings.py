"""Which changes of a resource's status are worth a warning event. Pure; the controller asks when it has written the status."""

from collections.abc import Mapping
from typing import Any, Final

from inference_cache_operator.audit.images import REASON as IMAGE_PULL_FAILED
from inference_cache_operator.status import IMAGE_PULL_TRIAL
from inference_cache_operator.status_artifacts import ON_ITS_WAY
from inference_cache_operator.status_artifacts import TYPE as ARTIFACTS_READY
from inference_cache_operator.status_condition import present
from inference_cache_operator.versions.telling import Said

_KNOWN_BY: Final = {
    "WouldInterrupt": frozenset({"WouldInterrupt"}),
    IMAGE_PULL_FAILED: frozenset({IMAGE_PULL_FAILED, IMAGE_PULL_TRIAL}),
}
"""Of a reason to be `Stalled` that is warned of: with which reasons before it is no news."""


def warnings(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Said]:
    """One when the resource becomes stalled or its files cannot be fetched, for each reason; none while it stays so."""
    return [*_of_stalling(before, after), *_of_fetching(before, after)]


def _of_stalling(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Said]:
    now = _stalled(after)
    known = _KNOWN_BY.get(now.get("reason", ""))
    if known is None or _stalled(before).get("reason") in known:
        return []
    return [Said(now["reason"], now["message"], "Warning")]


def _of_fetching(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Said]:
    now = _failed(after)
    if not now or now == _failed(before):
        return []
    preloading, reason = now
    message = (present(after).get(ARTIFACTS_READY) or {}).get("message") or ""
    return [Said("PrefetchFailed" if preloading else "FetchFailed", f"{reason}: {message}", "Warning")]


def _stalled(status: Mapping[str, Any]) -> Mapping[str, Any]:
    """The condition; empty where it is not true."""
    condition = present(status).get("Stalled") or {}
    return condition if condition.get("status") == "True" else {}


def _failed(status: Mapping[str, Any]) -> tuple[bool, str] | None:
    """Whether it is ahead that files are fetched in vain, and why; None where nothing failed."""
    condition = present(status).get(ARTIFACTS_READY) or {}
    reason = str(condition.get("reason") or "")
    if condition.get("status") != "False" or reason in ON_ITS_WAY:
        return None
    return status.get("phase") == "Preloading", reason
