"""The revision that a sidecar is started with: sidecars of different ones share nothing, whatever upstream says of itself."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.sidecar.hot_sidecars import Starter, starting

from inference_cache_contract.errors import SpecErrors
from inference_cache_sidecar.command import build_settings, read_layers
from inference_cache_toolkit.redis_server import RedisServer

OFF: dict[str, Any] = {"semantic": {"mode": "Off"}}
UPSTREAM = ("--upstream", "http://127.0.0.1:18000")


@pytest.fixture
async def start(standin_url: str, tmp_path: Path) -> AsyncIterator[Starter]:
    async with starting(standin_url, tmp_path) as begin:
        yield begin


def test_a_flag_beats_the_variable_and_neither_is_needed() -> None:
    beside = {"INFERENCE_CACHE_REVISION": "by variable"}
    assert build_settings(read_layers(UPSTREAM, {})[0]).revision == ""
    assert build_settings(read_layers(UPSTREAM, beside)[0]).revision == "by variable"
    assert build_settings(read_layers([*UPSTREAM, "--revision", "by flag"], beside)[0]).revision == "by flag"
    with pytest.raises(SpecErrors, match="--revision"):
        build_settings(read_layers([*UPSTREAM, "--revision", "a\nb"], {})[0])


def test_the_models_version_comes_by_a_variable_of_its_own() -> None:
    assert build_settings(read_layers(UPSTREAM, {"INFERENCE_CACHE_MODEL_VERSION": "v3"})[0]).spec.model.version == "v3"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ours", "theirs", "kind"),
    [
        pytest.param(("v1", "r1"), ("v1", "r1"), "exact", id="equal"),
        pytest.param(("v1", "r1"), ("v1", "r2"), "miss", id="another-revision"),
        pytest.param(("v1", "r1"), ("v2", "r1"), "miss", id="another-version"),
        pytest.param(("v1", ""), ("v1", "r1"), "miss", id="none"),
        pytest.param(("v1", "r1"), ("v1r1", ""), "miss", id="run-together"),
    ],
)
async def test_only_sidecars_of_equal_version_and_revision_share_answers(
    start: Starter, redis: RedisServer, ours: tuple[str, str], theirs: tuple[str, str], kind: str
) -> None:
    two = [
        await start(
            spec=OFF, redis_url=redis.url, variables={"INFERENCE_CACHE_MODEL_VERSION": version, "INFERENCE_CACHE_REVISION": revision}
        )
        for version, revision in (ours, theirs)
    ]
    # Tenants are told apart by a key that both have to agree on first.
    for hot in two:
        await hot.until(lambda told: bool(told["sharedStore"]["healthy"]))
        await hot.configured({"tenancy": {"from": "Shared"}} | OFF)
    await two[0].chat("one")
    assert (await two[1].chat("one")).kind == kind


async def test_a_configuration_changes_neither_version_nor_revision(start: Starter) -> None:
    hot = await start(spec=OFF, variables={"INFERENCE_CACHE_MODEL_VERSION": "v1", "INFERENCE_CACHE_REVISION": "r1"})
    before = (await hot.status())["revision"]
    await hot.chat("one")
    told = await hot.configured({"model": {"version": "v2", "name": "acme"}} | OFF)
    assert (told["modelVersion"], told["model"], told["revision"], told["configuration"]["needsRestart"]) == ("v1", "acme", before, [])
    assert (await hot.chat("one")).kind == "exact"
