"""The toolkit reads the Cache-Status header that the sidecar writes."""

import pytest

from inference_cache_sidecar import cache_status as writing
from inference_cache_toolkit.cache_status import CacheStatus, read_cache_status


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        pytest.param(writing.hit("exact", 512.0, "ab12"), CacheStatus(hit=True, ttl_seconds=512, details={"exact": ""}), id="exact hit"),
        pytest.param(
            writing.hit("semantic", -3.0, "ab12", 0.981),
            CacheStatus(hit=True, ttl_seconds=-3, details={"semantic": "", "similarity": "0.981"}),
            id="stale semantic hit",
        ),
        pytest.param(
            writing.forwarded("miss", status=200, stored=True, collapsed=True),
            CacheStatus(forward="miss", stored=True, collapsed=True),
            id="joined miss",
        ),
        pytest.param(
            writing.forwarded("miss", stored=True, detail="guard=negation;similarity=0.953"),
            CacheStatus(forward="miss", stored=True, details={"guard": "negation", "similarity": "0.953"}),
            id="refused by the guard",
        ),
        pytest.param(writing.forwarded("bypass", detail="sampling"), CacheStatus(forward="bypass", details={"sampling": ""}), id="bypass"),
    ],
)
def test_what_the_sidecar_writes_is_read_back(header: str, expected: CacheStatus) -> None:
    assert read_cache_status(header) == expected


@pytest.mark.parametrize("header", [None, "", "nginx; hit"], ids=["absent", "empty", "another cache's"])
def test_a_header_of_nobody_or_another_cache_is_none_of_ours(header: str | None) -> None:
    assert read_cache_status(header) is None
