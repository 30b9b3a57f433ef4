from typing import Any

import pytest

from inference_cache_contract.epochs import entity_epoch
from inference_cache_contract.errors import SpecProblem
from inference_cache_contract.spec_features import Features, ViewTtl
from inference_cache_contract.spec_fields import Section, members
from inference_cache_contract.spec_reader import read, write

SECTION = Section("features", "features", Features, members(Features), "")
NO_URL = "is not a URL such as http://feast:6566, without a path"
WHOLE = {
    "upstream": "http://feast:6566",
    "ttl": "10m",
    "missingTtl": "5s",
    "views": [{"name": "user_stats", "ttl": "1m"}, {"name": "clock", "ttl": "0s"}],
    "joinKeys": ["user_id", "item_id"],
}


def parsed(raw: dict[str, Any]) -> tuple[Features | None, list[str]]:
    problems: list[SpecProblem] = []
    return read(SECTION, raw, "spec.features", {}, problems), list(map(str, problems))


def test_the_default_is_no_feature_cache() -> None:
    assert parsed({}) == (Features(), [])
    assert Features().upstream is None
    assert (Features().ttl_seconds, Features().missing_ttl_seconds) == (300, 30)


def test_a_whole_section_is_read_and_written_back() -> None:
    views = (ViewTtl("user_stats", 60.0), ViewTtl("clock", 0.0))
    features = Features("http://feast:6566", 600.0, 5.0, views, ("user_id", "item_id"))
    assert parsed(WHOLE) == (features, [])
    assert write(SECTION.members, features) == WHOLE


def test_a_view_has_its_own_time_or_the_common_one() -> None:
    features, _ = parsed(WHOLE)
    assert features is not None
    assert [features.ttl_of(view) for view in ("user_stats", "clock", "other")] == [60.0, 0.0, 600.0]


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        ({"upstream": "feast:6566"}, f"spec.features.upstream: 'feast:6566' {NO_URL}"),
        (
            {"upstream": "http://feast/api"},
            f"spec.features.upstream: 'http://feast/api' {NO_URL}",
        ),
        ({"ttl": "soon"}, "spec.features.ttl: 'soon' is not a duration such as 24h, 1h30m, 5m, 0s or 250ms"),
        ({"views": [{"name": "v"}]}, "spec.features.views[0].ttl: is required"),
        ({"views": [{"name": "v", "ttl": "1s"}] * 2}, "spec.features.views[1].name: 'v' stands there twice"),
        ({"joinKeys": "user_id"}, "spec.features.joinKeys: 'user_id' is not a list"),
        ({"joinKeys": ["user_id", ""]}, "spec.features.joinKeys[1]: must not be empty"),
        ({"tll": "1s"}, "spec.features.tll: unknown field; did you mean ttl?"),
    ],
)
def test_what_is_wrong_is_said_with_its_path(raw: dict[str, Any], problem: str) -> None:
    assert parsed(raw) == (None, [problem])


def test_a_slash_behind_the_address_does_not_matter() -> None:
    assert parsed({"upstream": "https://feast:443/"})[0] == Features("https://feast:443")


@pytest.mark.parametrize("value", [7, "7", "07", " 7", "+7", "7 ", "٧"])
def test_an_entitys_epoch_is_one_for_all_ways_to_write_a_number(value: str | int) -> None:
    assert entity_epoch("user_id", value) == "entity:user_id=7"


@pytest.mark.parametrize("value", ["7a", "7.0", "", " ", "-", "7_", "x 7", "1" * 5000])
def test_an_entitys_epoch_keeps_other_texts(value: str) -> None:
    assert entity_epoch("user_id", value) == f"entity:user_id={value}"


def test_epochs_of_other_join_keys_and_values_differ() -> None:
    assert len({entity_epoch("a", 1), entity_epoch("a", 2), entity_epoch("b", 1), entity_epoch("a", -1)}) == 4
