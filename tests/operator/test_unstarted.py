"""What keeps a pod from starting, in the words of the scheduler and kubelet."""

from typing import Any

import pytest
from tests.operator.test_audit import pod

from inference_cache_operator.audit.pods import Pod, read_pod
from inference_cache_operator.audit.unstarted import kept_from_starting

UNSCHEDULED = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes are available: insufficient cpu"}


def of(name: str = "p", **status: Any) -> Pod:
    return read_pod({**pod(name, ready=False).body, "status": status})


def waiting(reason: str, message: str = "", container: str = "vllm") -> dict[str, Any]:
    return {"name": container, "state": {"waiting": {"reason": reason, "message": message}}}


@pytest.mark.parametrize(
    ("pods", "said"),
    [
        pytest.param([], "", id="no-pods"),
        pytest.param([of()], "", id="nothing-said-yet"),
        pytest.param([pod()], "", id="ready"),
        pytest.param([of(conditions=[UNSCHEDULED])], "pod p: 0/1 nodes are available: insufficient cpu", id="not-scheduled"),
        pytest.param([of(conditions=[{**UNSCHEDULED, "message": None}])], "pod p: Unschedulable", id="not-scheduled-without-a-message"),
        pytest.param([of(containerStatuses=[waiting("ContainerCreating")])], "", id="on-its-way"),
        pytest.param(
            [of(containerStatuses=[waiting("CrashLoopBackOff", "back-off 5m0s")])], "pod p: container vllm: CrashLoopBackOff", id="crashes"
        ),
        pytest.param([of(containerStatuses=[waiting("ErrImagePull", "not found")])], "pod p: container vllm: ImagePullBackOff", id="image"),
        pytest.param(
            [of(initContainerStatuses=[waiting("CreateContainerConfigError", 'secret "hf" not found', "load")])],
            'pod p: container load: CreateContainerConfigError: secret "hf" not found',
            id="configuration",
        ),
        pytest.param(
            [of("a"), of("b", conditions=[UNSCHEDULED]), of("c", conditions=[UNSCHEDULED])],
            "pod b: 0/1 nodes are available: insufficient cpu",
            id="the-first",
        ),
        pytest.param(
            [read_pod({**pod(deletionTimestamp="2027-01-01T00:00:00Z").body, "status": {"conditions": [UNSCHEDULED]}})], "", id="ending"
        ),
    ],
)
def test_a_pod_is_kept_from_starting_by(pods: list[Pod], said: str) -> None:
    assert kept_from_starting(pods) == said
