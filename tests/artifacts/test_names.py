import pytest

from inference_cache_artifacts.errors import BadRequest
from inference_cache_artifacts.names import plain_url, tree_name

MODEL = "s3://models/llama/v1.2"
CDN = "https://cdn.example/llama/v1.2"


def test_a_name_is_32_hexadecimal_digits():
    name = tree_name([MODEL], "v1.2", "")
    assert len(name) == 32
    assert set(name) <= set("0123456789abcdef")


@pytest.mark.parametrize(
    "sources",
    [
        pytest.param([CDN, MODEL], id="mirrors in another order"),
        pytest.param([MODEL, CDN, MODEL], id="a mirror two times"),
        pytest.param([MODEL, f"{CDN}?X-Amz-Signature=abc&X-Amz-Expires=60"], id="signed"),
        pytest.param([MODEL, "https://user:pass@cdn.example/llama/v1.2"], id="with a password"),
        pytest.param([MODEL, "HTTPS://CDN.example/llama/v1.2#top"], id="capitals and a fragment"),
    ],
)
def test_the_same_content_has_the_same_name(sources: list[str]):
    assert tree_name(sources, "v1.2", "") == tree_name([MODEL, CDN], "v1.2", "")


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(tree_name([f"{MODEL}0"], "v1.2", ""), id="a longer prefix"),
        pytest.param(tree_name([MODEL], "v1.20", ""), id="another version"),
        pytest.param(tree_name([MODEL], "v1.2", "ab" * 32), id="pinned"),
        pytest.param(tree_name([MODEL], "v1.2", "", verified=False), id="not verified"),
        pytest.param(tree_name([MODEL, CDN], "v1.2", ""), id="another mirror"),
        pytest.param(tree_name(["s3://Models/llama/v1.2"], "v1.2", ""), id="a bucket with capitals"),
        pytest.param(tree_name(["https://models/llama/v1.2"], "v1.2", ""), id="another protocol"),
    ],
)
def test_other_content_has_another_name(other: str):
    assert other != tree_name([MODEL], "v1.2", "")


def test_where_version_ends_and_pin_begins_counts():
    assert tree_name([MODEL], "a", "b") != tree_name([MODEL], "ab", "")


@pytest.mark.parametrize("url", ["models/llama", "s3://", "https://[broken/x", ""])
def test_what_is_no_url_is_refused_without_being_told(url: str):
    with pytest.raises(BadRequest, match="a source"):
        tree_name([url], "", "")


def test_the_plain_url_tells_no_secret():
    assert plain_url("https://me:secret@cdn.example:8443/a?token=secret#secret") == "https://cdn.example:8443/a"


def test_what_says_which_content_it_is_counts_and_what_signs_it_does_not() -> None:
    def named(url: str) -> str:
        return tree_name([url], "v1", "")

    assert named("s3://b/m#1/") != named("s3://b/m#2/")
    assert named("https://h/files?ref=v1") != named("https://h/files?ref=v2")
    assert named("https://h/files?X-Amz-Signature=a&X-Amz-Date=b&ref=v1") == named("https://h/files?ref=v1&sig=c")
