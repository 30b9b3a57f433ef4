"""Every golden pod: what becomes of it, that this is the same the second time, and that it can be undone."""

import copy
import itertools
import json

import pytest
import yaml
from tests.operator.goldens import FOLDER, Golden, described, goldens

from inference_cache_contract.pod import SIDECAR_CONTAINER
from inference_cache_operator.injection.fetching import is_fetching
from inference_cache_operator.injection.inject import Injected, Refused, is_injected, stripped

GOLDENS = [pytest.param(golden, id=golden.name) for golden in goldens()]
INJECTED = [pytest.param(golden, id=golden.name) for golden in goldens() if isinstance(golden.outcome, Injected)]
REFUSED = [pytest.param(golden, id=golden.name) for golden in goldens() if isinstance(golden.outcome, Refused)]


def test_there_are_many_goldens_of_both_kinds_and_none_without_outcome() -> None:
    assert len(INJECTED) >= 60
    assert len(REFUSED) >= 30
    assert {file.name for file in (FOLDER / "outcomes").iterdir()} == {file.name for file in (FOLDER / "pods").iterdir()}


@pytest.mark.parametrize("golden", GOLDENS)
def test_outcome_is_the_golden_one(golden: Golden) -> None:
    assert described(golden) == yaml.safe_load(golden.file.read_text())


@pytest.mark.parametrize("golden", GOLDENS)
def test_the_submitted_pod_is_not_touched(golden: Golden) -> None:
    before = copy.deepcopy(golden.pod)
    assert golden.outcome == golden.outcome
    assert golden.pod == before


@pytest.mark.parametrize("golden", INJECTED)
def test_injected_twice_is_injected_once(golden: Golden) -> None:
    first = golden.outcome
    assert isinstance(first, Injected)
    again = golden.injected(first.pod, "another token")
    assert not isinstance(again, Injected | Refused)
    assert is_injected(first.pod)


@pytest.mark.parametrize("golden", INJECTED)
def test_stripping_gives_back_the_pod_to_the_byte(golden: Golden) -> None:
    outcome = golden.outcome
    assert isinstance(outcome, Injected)
    assert json.dumps(stripped(outcome.pod), sort_keys=True) == json.dumps(golden.pod, sort_keys=True)
    assert not is_injected(golden.pod)
    assert stripped(golden.pod) == golden.pod


@pytest.mark.parametrize("golden", INJECTED)
def test_vllm_keeps_its_ports_and_the_sidecar_comes_first(golden: Golden) -> None:
    outcome = golden.outcome
    assert isinstance(outcome, Injected)
    before, after = golden.pod["spec"], outcome.pod["spec"]
    assert [container.get("ports") for container in after["containers"]] == [container.get("ports") for container in before["containers"]]
    others = itertools.dropwhile(is_fetching, after["initContainers"])
    assert next(others)["name"] == SIDECAR_CONTAINER
    assert list(others) == before.get("initContainers", [])


@pytest.mark.parametrize("golden", REFUSED)
def test_a_refused_pod_gets_its_artifacts_at_most_and_its_owner_is_told_what_to_do(golden: Golden) -> None:
    outcome = golden.outcome
    assert isinstance(outcome, Refused)
    assert (outcome.pod is not None) is outcome.has_artifacts
    if outcome.pod is not None:
        assert golden.injected(outcome.pod, "another token") == outcome
        assert stripped(outcome.pod) == golden.pod
    assert outcome.reason.isalnum()
    assert outcome.reason[0].isupper()
    assert ":" in outcome.message
