import ipaddress

import pytest

from inference_cache_contract.spec import Category
from inference_cache_sidecar.marks import UNMARKED, Trust, marks_of

PRICING = Category("pricing", (("x-category", "pricing"),), 0.97)
LEGAL = Category("legal")


@pytest.mark.parametrize(
    ("remote", "trusted"),
    [
        pytest.param("10.1.2.3", True, id="inside"),
        pytest.param("11.0.0.1", False, id="outside"),
        pytest.param("::1", False, id="other-family"),
        pytest.param("@unix", False, id="no-address"),
        pytest.param(None, False, id="unknown"),
    ],
)
def test_only_callers_inside_the_networks_are_trusted(remote, trusted):
    trust = Trust((ipaddress.ip_network("10.0.0.0/8"),))
    assert [trust.trusts(remote), trust.trusts(remote)] == [trusted, trusted]


def test_nobody_is_trusted_without_networks():
    assert not Trust(()).trusts("127.0.0.1")


def test_a_stranger_can_set_no_tag_ttl_or_category():
    headers = {"x-inference-cache-ttl": "9", "x-inference-cache-tags": "a", "x-inference-cache-category": "legal"}
    assert marks_of(headers, False, (PRICING, LEGAL)) == UNMARKED


def test_a_header_match_assigns_a_category_whoever_calls():
    assert marks_of({"x-category": "pricing"}, False, (LEGAL, PRICING)).category is PRICING


@pytest.mark.parametrize(
    ("ttl", "seconds"),
    [
        pytest.param("90", 90.0, id="seconds"),
        pytest.param("5m", 300.0, id="duration"),
        pytest.param("0", 0.0, id="zero"),
        pytest.param("soon", None, id="unreadable"),
    ],
)
def test_a_trusted_caller_marks_its_requests(ttl, seconds):
    marks = marks_of(
        {"x-inference-cache-ttl": ttl, "x-inference-cache-tags": "b, a,,b", "x-inference-cache-category": "legal"}, True, (LEGAL,)
    )
    assert (marks.category, marks.tags, marks.ttl_seconds) == (LEGAL, ("a", "b"), seconds)
