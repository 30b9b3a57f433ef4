import pytest

from inference_cache_sidecar.cache_control import Directives, parse


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param(None, Directives(), id="absent"),
        pytest.param("", Directives(), id="empty"),
        pytest.param("no-cache", Directives(no_cache=True), id="no-cache"),
        pytest.param("No-Store, max-age=0", Directives(no_store=True, max_age=0.0), id="case-and-zero"),
        pytest.param("only-if-cached , min-fresh=30", Directives(only_if_cached=True, min_fresh=30.0), id="two"),
        pytest.param('max-age="60"', Directives(max_age=60.0), id="quoted"),
        pytest.param("max-age=soon", Directives(max_age=0.0), id="unreadable-age-is-cautious"),
        pytest.param("min-fresh=-1", Directives(min_fresh=float("inf")), id="unreadable-freshness-is-cautious"),
        pytest.param("no-transform, ,x=y", Directives(), id="unknown-are-ignored"),
    ],
)
def test_directives_are_read_as_rfc_9111_has_them(value, expected):
    assert parse(value) == expected


@pytest.mark.parametrize(
    ("directives", "age", "remaining", "allowed"),
    [
        pytest.param(Directives(), 1e6, -5.0, True, id="nothing-asked"),
        pytest.param(Directives(no_cache=True), 0.0, 10.0, False, id="no-cache"),
        pytest.param(Directives(max_age=5.0), 5.0, 10.0, True, id="just-young-enough"),
        pytest.param(Directives(max_age=0.0), 0.1, 10.0, False, id="zero-is-a-value"),
        pytest.param(Directives(min_fresh=11.0), 0.0, 10.0, False, id="not-fresh-for-long-enough"),
        pytest.param(Directives(min_fresh=10.0), 0.0, 10.0, True, id="fresh-for-just-long-enough"),
    ],
)
def test_an_entry_is_allowed_by_age_and_time_left(directives, age, remaining, allowed):
    assert directives.allow(age, remaining) is allowed
