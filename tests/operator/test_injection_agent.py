"""What the webhook mounts, the agent of the node sees: written on one side, read on the other."""

import copy

import pytest
from tests.operator.goldens import TOKEN, WITH_AGENT, goldens, resource

from inference_cache_artifacts.agent.live import mounted_trees
from inference_cache_artifacts.handover import protocol
from inference_cache_operator.injection.artifacts import artifacts_of
from inference_cache_operator.injection.delivery import STORE_VOLUME
from inference_cache_operator.injection.inject import Injected, inject

ARTIFACTS = [{"source": f"s3://models/{name}/", "mountPath": f"/{name}"} for name in ("base", "adapter")]


@pytest.mark.parametrize("way", ["HostPath", "Agent"])
def test_the_agent_sees_the_trees_that_an_injected_pod_mounts(way: str) -> None:
    by = resource({"model": {"version": "v2", "artifacts": ARTIFACTS}}, status={"artifacts": {"delivery": way}})
    outcome = inject(copy.deepcopy(next(each.pod for each in goldens() if each.name == "plain")), by, WITH_AGENT, TOKEN)
    assert isinstance(outcome, Injected)
    pod = outcome.pod | {"metadata": outcome.pod["metadata"] | {"namespace": "llm"}}
    trees = {each.tree for each in artifacts_of(by, "v2")}
    assert mounted_trees({"items": [pod]}) == {"llm": trees}
    assert len(trees) == len(ARTIFACTS)


def test_both_sides_call_the_volume_the_same() -> None:
    assert STORE_VOLUME == protocol.VOLUME
    assert protocol.mounted_tree({"name": STORE_VOLUME, "subPath": protocol.sub_path("0" * 32)}) == "0" * 32
