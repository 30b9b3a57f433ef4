from inference_cache_sidecar import cache_status


def test_a_semantic_hit_names_its_similarity():
    assert (
        cache_status.hit("semantic", 512.9, "ab", 0.9812) == 'inference-cache; hit; ttl=512; key="ab"; detail="semantic;similarity=0.981"'
    )


def test_a_stale_hit_has_a_negative_ttl_and_says_why():
    assert (
        cache_status.hit("exact", -3.2, "ab", stale="stale-if-error")
        == 'inference-cache; hit; ttl=-3; key="ab"; detail="exact;stale-if-error"'
    )


def test_a_forward_names_reason_status_and_fate():
    assert (
        cache_status.forwarded("miss", status=429, stored=True, collapsed=True, key="k", detail="guard=number")
        == 'inference-cache; fwd=miss; fwd-status=429; stored; collapsed; key="k"; detail="guard=number"'
    )
