"""The condition `StoreHealthy`: a reason for each fault, in the words of the resource."""

from dataclasses import replace

import pytest
from tests.operator.version_scenes import answer

from inference_cache_contract.endpoints import ENCRYPTION_KEYS_VARIABLE, REDIS_URL_VARIABLE
from inference_cache_contract.sidecar_status import SidecarStatus
from inference_cache_operator.status_store import store_condition


def says(healthy: bool | None, *findings: str) -> SidecarStatus:
    return replace(answer({}), store_healthy=healthy, store_findings=findings)


@pytest.mark.parametrize(
    ("answers", "status", "reason"),
    [
        pytest.param([says(True)], "True", "Healthy", id="healthy"),
        pytest.param([says(None)], "True", "NoSharedStore", id="none-is-shared"),
        pytest.param([], "Unknown", "NoAnswer", id="no-answer"),
        pytest.param([says(False, f"{REDIS_URL_VARIABLE} is empty: nothing is shared")], "False", "NoAddress", id="no-address"),
        pytest.param([says(False, f"{ENCRYPTION_KEYS_VARIABLE} is empty")], "False", "NoEncryptionKey", id="no-encryption-key"),
        pytest.param([says(False, "the server is a replica: nothing can be stored")], "False", "Unfit", id="unfit"),
        pytest.param(
            [says(False, "the store, or one of its servers, does not answer as it should (x)")], "False", "Unreachable", id="away"
        ),
        pytest.param([says(False)], "False", "Unreachable", id="not-confirmed"),
        pytest.param([says(True), says(False)], "False", "Unreachable", id="one-of-two"),
    ],
)
def test_the_store_is_said_to_be(answers: list[SidecarStatus], status: str, reason: str) -> None:
    said = store_condition(answers, any_pods=True)
    assert (said.status, said.reason) == (status, reason)


def test_without_pods_nothing_is_wrong_with_it() -> None:
    assert store_condition([], any_pods=False).reason == "NoPods"


@pytest.mark.parametrize(
    ("variable", "field"),
    [(REDIS_URL_VARIABLE, "spec.store.redis.urlSecretRef"), (ENCRYPTION_KEYS_VARIABLE, "spec.store.redis.encryptionKeySecretRef")],
    ids=["address", "encryption"],
)
def test_a_secret_that_is_missing_is_told_by_its_field_and_not_by_a_variable(variable: str, field: str) -> None:
    message = store_condition([says(False, f"{variable} is empty")], any_pods=True).message
    assert field in message
    assert variable not in message
