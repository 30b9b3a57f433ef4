"""When an ending pod counts as gone."""

from dataclasses import replace

import pytest
from tests.operator.version_scenes import NOW, answer

from inference_cache_contract.sidecar_status import SidecarStatus
from inference_cache_operator.audit.pods import read_pod
from inference_cache_operator.controller.observing import members

POD = read_pod({"metadata": {"namespace": "llm", "name": "p", "uid": "p"}, "spec": {}, "status": {}})
DRAINING = answer({}, draining=True)


@pytest.mark.parametrize(
    ("ending_by", "status", "gone"),
    [
        pytest.param(None, None, False, id="stays-and-is-silent"),
        pytest.param(NOW + 60, DRAINING, False, id="drains-in-time"),
        pytest.param(NOW - 20, DRAINING, False, id="drains-a-little-longer"),
        pytest.param(NOW - 60, DRAINING, True, id="drains-long-after"),
        pytest.param(NOW - 60, None, True, id="silent-long-after"),
        pytest.param(NOW - 60, answer({}), False, id="serves-long-after"),
    ],
)
def test_an_ending_pod_is_gone_only_when_it_should_long_be_and_serves_nothing(
    ending_by: float | None, status: SidecarStatus | None, gone: bool
) -> None:
    pod = replace(POD, ending_by=ending_by)
    statuses = {} if status is None else {pod.uid: status}
    assert [each.silenced for each in members([pod], statuses, NOW, silence_seconds=30)] == [gone]
