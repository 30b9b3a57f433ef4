"""What the controller writes into a status has its place in the resource's definition, which would drop it otherwise."""

from collections.abc import Iterator
from typing import Any, Final, get_args

from tests.operator.crd_fields import fields

from inference_cache_artifacts.handover.protocol import Standing
from inference_cache_operator.injection.delivery import Delivery
from inference_cache_operator.prefetch.figures import summed
from inference_cache_operator.prefetch.nodes import ORDER, OnNode
from inference_cache_operator.prefetch.outcome import MOST_SHOWN, Found, Prefetched, artifacts_status
from inference_cache_operator.versions.state import KEPT_FLUSHED, PHASES, Flush, Flushed, Rollout, State, read_state, write_state

STATUS_FIELDS: Final = fields("status")
ANYTHING_BELOW: Final = "status.activeArtifacts[]."
STATE: Final = State(
    phase="Updating",
    active="v1",
    updating="v2",
    flushes=(Flush("all-1", "all", "", 1.0), Flush("version-v0", "version", "v0", None)),
    flushed=(Flushed("v0", 12, 2.0),),
    last_request="now",
    rollout=Rollout(3.0, 4.0),
    artifacts=({"source": "s3://models/v1/", "mountPath": "/models"},),
)


def paths(value: Any, path: str) -> Iterator[str]:
    yield path
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from paths(inner, f"{path}.{name}")
    if isinstance(value, list):
        for inner in value:
            yield from paths(inner, f"{path}[]")


def test_all_that_the_controller_remembers_is_a_field_of_the_status() -> None:
    written = write_state(STATE)
    assert read_state(written) == STATE
    known = {path for path in paths(written, "status") if not path.startswith(ANYTHING_BELOW)}
    assert known - {"status"} <= set(STATUS_FIELDS)


def test_the_phases_are_those_of_the_controller() -> None:
    assert tuple(STATUS_FIELDS["status.phase"]["enum"]) == PHASES


def test_the_list_of_flushes_holds_as_many_as_the_controller_keeps() -> None:
    assert STATUS_FIELDS["status.flushedVersions"]["maxItems"] == KEPT_FLUSHED


def test_all_that_is_told_of_files_on_their_way_is_a_field_of_the_status() -> None:
    figures = summed([Standing("running", {"bytes": 1, "totalBytes": 9, "files": 0, "totalFiles": 2, "bytesPerSecond": 4})])
    node = OnNode("node-1", "Failed", reason="Corrupt", message="a.safetensors: …")
    told = artifacts_status(Prefetched(False, [node], Found("Agent", "…"), {"node-1": figures}))
    assert set(paths(told, "status.artifacts")) == {path for path in STATUS_FIELDS if path.startswith("status.artifacts")}


def test_the_ways_and_states_of_files_are_those_that_the_controller_knows() -> None:
    assert set(STATUS_FIELDS["status.artifacts.delivery"]["enum"]) == set(get_args(Delivery))
    assert set(STATUS_FIELDS["status.artifacts.progress[].state"]["enum"]) == set(ORDER)
    assert STATUS_FIELDS["status.artifacts.progress"]["maxItems"] == MOST_SHOWN
