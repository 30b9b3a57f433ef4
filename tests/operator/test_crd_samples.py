"""The samples in examples/: their pods get the cache, and the Service finds it."""

from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from inference_cache_contract.pod import SIDECAR_CONTAINER, VERSION_ANNOTATION
from inference_cache_operator.injection.container import SidecarDefaults
from inference_cache_operator.injection.fetching import CONTAINER
from inference_cache_operator.injection.inject import Injected, inject
from inference_cache_operator.resource import read_resource
from inference_cache_operator.selecting import selector_matches

SAMPLES: Final = sorted((Path(__file__).parents[2] / "examples").glob("*.yaml"))


def objects(sample: Path) -> dict[str, dict[str, Any]]:
    """By kind."""
    return {each["kind"]: each for each in yaml.safe_load_all(sample.read_text())}


AGENT: Final = "http://agent.operators.svc:9182"
INSTALLATIONS: Final = [
    pytest.param("", {}, id="without-agents"),
    pytest.param(AGENT, {"artifacts": {"delivery": "HostPath"}}, id="host-path"),
    pytest.param(AGENT, {"artifacts": {"delivery": "Agent"}}, id="agent"),
]


@pytest.mark.parametrize(("agent", "status"), INSTALLATIONS)
@pytest.mark.parametrize("sample", [pytest.param(each, id=each.stem) for each in SAMPLES])
def test_a_samples_pods_get_the_cache_without_a_warning(sample: Path, agent: str, status: dict[str, Any]) -> None:
    found = objects(sample)
    body = found["InferenceCache"]
    resource = read_resource({**body, "metadata": {**body["metadata"], "namespace": "llm", "uid": "1"}, "status": status})
    template = found["Deployment"]["spec"]["template"]
    assert selector_matches(resource.selector, template["metadata"]["labels"])
    outcome = inject({**template, "kind": "Pod"}, resource, SidecarDefaults(image="sidecar:1", artifacts_agent=agent), "token")
    assert isinstance(outcome, Injected)
    assert outcome.warnings == ()
    started = [each["name"] for each in outcome.pod["spec"]["initContainers"]]
    assert started == [*(f"{CONTAINER}{number}" for number in range(len(resource.artifacts))), SIDECAR_CONTAINER]
    assert outcome.pod["metadata"]["annotations"][VERSION_ANNOTATION] == body["spec"]["model"]["version"]


@pytest.mark.parametrize("sample", [pytest.param(each, id=each.stem) for each in SAMPLES])
def test_a_sample_has_what_is_needed_to_try_it(sample: Path) -> None:
    found = objects(sample)
    # The resource first, so that the first pods already have the cache.
    assert next(iter(found)) == "InferenceCache"
    assert found["Service"]["spec"]["selector"].items() <= found["Deployment"]["spec"]["template"]["metadata"]["labels"].items()


@pytest.mark.parametrize("sample", [pytest.param(each, id=each.stem) for each in SAMPLES])
def test_a_secret_that_a_sample_brings_is_the_one_that_it_names(sample: Path) -> None:
    found = objects(sample)
    if "Secret" in found:
        named = {each["credentialsSecretRef"]["name"] for each in found["InferenceCache"]["spec"]["model"]["artifacts"]}
        assert named == {found["Secret"]["metadata"]["name"]}
