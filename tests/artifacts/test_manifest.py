"""What a manifest may say, and that writing and reading it changes nothing."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_cache_artifacts.errors import BadManifest
from inference_cache_artifacts.manifest import (
    MAX_BYTES,
    MAX_NAME_BYTES,
    MAX_PATH_BYTES,
    MAX_SIZE,
    File,
    Manifest,
    check_path,
    manifest_of,
    parse_manifest,
)

SHA256 = "0" * 64

NAMES = st.text(st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="/\x7f"), min_size=1, max_size=20).filter(
    lambda name: name not in {".", ".."}
)
FILES = st.builds(
    File,
    path=st.lists(NAMES, min_size=1, max_size=4).map("/".join),
    size=st.integers(0, MAX_SIZE),
    sha256=st.binary(min_size=32, max_size=32).map(bytes.hex),
)


def beside_each_other(files: list[File]) -> list[File]:
    """None of them a folder of another, each path once."""
    kept: dict[str, File] = {}
    for file in files:
        parts = file.path.split("/")
        folders = {"/".join(parts[:end]) for end in range(1, len(parts))}
        if file.path not in kept and not folders & kept.keys() and not any(each.startswith(f"{file.path}/") for each in kept):
            kept[file.path] = file
    return list(kept.values())


@given(st.lists(FILES, min_size=1, max_size=8).map(beside_each_other))
def test_what_is_written_is_read_again(files: list[File]) -> None:
    manifest = manifest_of(files)
    again = parse_manifest(manifest.text().encode())
    assert again == manifest
    assert again.digest == manifest.digest


@given(st.binary(max_size=200))
def test_any_bytes_are_a_manifest_or_a_bad_one(text: bytes) -> None:
    with contextlib.suppress(BadManifest):
        assert isinstance(parse_manifest(text), Manifest)


def test_the_order_of_files_changes_nothing() -> None:
    one, other = File("a", 1, SHA256), File("b/c", 2, SHA256)
    assert manifest_of([other, one]).text() == manifest_of([one, other]).text()


def test_a_manifest_has_the_size_of_all_its_files_and_a_line_for_each() -> None:
    manifest = manifest_of([File("a", 1, SHA256), File("b", 2, SHA256)])
    assert manifest.size == 3
    assert len(manifest.text().splitlines()) == 4


@pytest.mark.parametrize(
    "path",
    [
        pytest.param("", id="empty"),
        pytest.param("/etc/passwd", id="absolute"),
        pytest.param("..", id="parent"),
        pytest.param("../a", id="out-of-the-folder"),
        pytest.param("a/../../b", id="out-by-a-detour"),
        pytest.param("a/./b", id="dot"),
        pytest.param("a//b", id="empty-part"),
        pytest.param("a/", id="slash-at-the-end"),
        pytest.param("a\x00b", id="nul"),
        pytest.param("a\nb", id="line-end"),
        pytest.param("a\x1b[2Jb", id="escape"),
        pytest.param("a\x7f", id="delete"),
        pytest.param("a\udc80", id="half-a-surrogate"),
        pytest.param("a" * (MAX_NAME_BYTES + 1), id="long-name"),
        pytest.param("ä" * (MAX_NAME_BYTES // 2 + 1), id="long-name-in-bytes"),
        pytest.param("/".join(["a" * 100] * (MAX_PATH_BYTES // 100 + 1)), id="long-path"),
    ],
)
def test_a_path_that_leads_astray_is_refused(path: str) -> None:
    with pytest.raises(BadManifest):
        check_path(path)
    with pytest.raises(BadManifest, match=r"files\[0\]"):
        parse_manifest(json.dumps({"files": [{"path": path, "size": 0, "sha256": SHA256}]}).encode())


@pytest.mark.parametrize("path", ["a", "a/b", ".hidden", "...", "a b", "ä/日本", "a\\b", "-rf", "a" * MAX_NAME_BYTES])
def test_a_path_that_is_only_unusual_is_taken(path: str) -> None:
    assert check_path(path) == path


GOOD = {"path": "a", "size": 0, "sha256": SHA256}


@pytest.mark.parametrize(
    ("document", "told"),
    [
        pytest.param([], "no list `files`", id="a-list"),
        pytest.param({"files": {}}, "no list `files`", id="files-is-no-list"),
        pytest.param({"files": []}, "no files", id="empty"),
        pytest.param({"files": [3]}, r"files\[0\]: not an object", id="an-entry-is-a-number"),
        pytest.param({"files": [GOOD | {"path": 3}]}, r"files\[0\]\.path", id="path-is-a-number"),
        pytest.param({"files": [GOOD | {"size": -1}]}, r"files\[0\]\.size: -1", id="negative-size"),
        pytest.param({"files": [GOOD | {"size": True}]}, r"files\[0\]\.size", id="size-is-a-truth"),
        pytest.param({"files": [GOOD | {"size": 1.5}]}, r"files\[0\]\.size", id="size-is-broken"),
        pytest.param({"files": [GOOD | {"size": MAX_SIZE + 1}]}, r"files\[0\]\.size", id="size-of-no-disk"),
        pytest.param({"files": [GOOD | {"sha256": "0" * 63}]}, r"files\[0\]\.sha256", id="short-digest"),
        pytest.param({"files": [GOOD | {"sha256": "g" * 64}]}, r"files\[0\]\.sha256", id="digest-of-other-letters"),
        pytest.param({"files": [GOOD, GOOD]}, "two times", id="twice"),
        pytest.param({"files": [GOOD, GOOD | {"path": "a/b"}]}, "is a file, and the folder of", id="file-and-folder"),
        pytest.param({"files": [GOOD, GOOD | {"path": "a-b"}, GOOD | {"path": "a/b"}]}, "the folder of", id="not-next-to-each-other"),
    ],
)
def test_a_bad_manifest_says_where(document: object, told: str) -> None:
    with pytest.raises(BadManifest, match=told):
        parse_manifest(json.dumps(document).encode())


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"{", id="cut-off"),
        pytest.param(b"\xff\xfe", id="no-utf8"),
        pytest.param(b"[" * 100_000, id="deep"),
        pytest.param(b" " * (MAX_BYTES + 1), id="large"),
    ],
)
def test_what_is_no_json_is_refused(text: bytes) -> None:
    with pytest.raises(BadManifest):
        parse_manifest(text)


def test_digests_are_compared_in_lower_case() -> None:
    upper = {"files": [GOOD | {"sha256": "AB" * 32}]}
    assert parse_manifest(json.dumps(upper).encode()).files[0].sha256 == "ab" * 32
