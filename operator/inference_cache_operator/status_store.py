"""The condition `StoreHealthy`, from what the sidecars say of the shared store. Pure."""

from collections.abc import Sequence
from typing import Final

from inference_cache_contract.endpoints import ENCRYPTION_KEYS_VARIABLE, REDIS_URL_VARIABLE
from inference_cache_contract.sidecar_status import SidecarStatus
from inference_cache_operator.status_condition import Condition

_BY_VARIABLE: Final = {
    REDIS_URL_VARIABLE: (
        "NoAddress",
        "the Secret that spec.store.redis.urlSecretRef names, or its key, is missing or empty: nothing is shared",
    ),
    ENCRYPTION_KEYS_VARIABLE: (
        "NoEncryptionKey",
        "the Secret that spec.store.redis.encryptionKeySecretRef names, or its key, is missing or empty: nothing is shared unencrypted",
    ),
}
"""Of a variable that a sidecar says it lacks: reason and message. Who writes the resource knows its fields, not our variables."""
_CORRECTED: Final = "; pods read a corrected Secret when they are next made"


def store_condition(answered: Sequence[SidecarStatus], any_pods: bool) -> Condition:
    shared = [each for each in answered if each.store_healthy is not None]
    finding = next((finding for each in shared for finding in each.store_findings), None)
    if finding is not None:
        return _ill(*_understood(finding))
    if any(each.store_healthy is False for each in shared):
        return _ill("Unreachable", "the shared store does not answer, or has just begun to: nothing is shared meanwhile")
    if shared:
        return Condition("StoreHealthy", "True", "Healthy")
    if answered or not any_pods:
        return Condition("StoreHealthy", "True", "NoSharedStore" if answered else "NoPods")
    return Condition("StoreHealthy", "Unknown", "NoAnswer", "no sidecar answers")


def _ill(reason: str, message: str) -> Condition:
    return Condition("StoreHealthy", "False", reason, message)


def _understood(finding: str) -> tuple[str, str]:
    """Reason and message of what keeps the store from doing what it is for."""
    for variable, (reason, message) in _BY_VARIABLE.items():
        if variable in finding:
            return reason, message + _CORRECTED
    return ("Unreachable" if "does not answer" in finding else "Unfit"), finding
