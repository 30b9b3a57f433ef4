"""Whole fetches from a real S3: by a manifest, by the store's own checksums, or taken as they come."""

import base64
import hashlib
from pathlib import Path

import pytest
from tests.artifacts import fetched
from tests.artifacts.seaweedfs import SeaweedFS

from inference_cache_artifacts.errors import Corrupt, DiskFailed, Missing, Unverifiable
from inference_cache_artifacts.fetching import fetch
from inference_cache_artifacts.manifest import FILE_NAME
from inference_cache_artifacts.progress import Progress, Silent
from inference_cache_artifacts.request import Request
from inference_cache_artifacts.sources.options import SourceOptions
from inference_cache_artifacts.store.layout import Store
from inference_cache_artifacts.store.trees import Tree
from inference_cache_toolkit.processes import free_port

pytestmark = pytest.mark.services
MODEL = fetched.model(seed=2, big=6 << 20)
BUCKET = "fetching"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def prefix(s3: SeaweedFS, request: pytest.FixtureRequest) -> str:
    """Of its own for each test."""
    s3.bucket(BUCKET)
    return hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:8]


def ask(
    s3: SeaweedFS,
    store: Store,
    *prefixes: str,
    version: str = "v1",
    verify: bool = True,
    sha256: str = "",
    progress: Progress | None = None,
) -> Tree:
    sources = tuple(f"s3://{BUCKET}/{prefix}" for prefix in prefixes)
    request = Request(sources, version, verify=verify, manifest_sha256=sha256, options=SourceOptions(s3.credentials))
    return fetch(request, store, progress or Silent())


def put(s3: SeaweedFS, prefix: str, *, with_sums: bool = False) -> None:
    for path, content in MODEL.items():
        sums = {"ChecksumSHA256": base64.b64encode(hashlib.sha256(content).digest()).decode()} if with_sums else {}
        s3.put(BUCKET, f"{prefix}/{path}", content, **sums)


def test_a_model_with_a_manifest_comes_whole(s3: SeaweedFS, prefix: str, store: Store) -> None:
    put(s3, prefix)
    text = fetched.manifest(MODEL).text().encode()
    s3.put(BUCKET, f"{prefix}/{FILE_NAME}", text)
    tree = ask(s3, store, prefix, sha256=hashlib.sha256(text).hexdigest())
    assert fetched.content(tree) == MODEL
    assert fetched.litter(store) == []


def test_a_prefix_never_takes_what_only_begins_like_it(s3: SeaweedFS, prefix: str, store: Store) -> None:
    for version, content in (("v1.2", b"right"), ("v1.20", b"wrong")):
        s3.put(BUCKET, f"{prefix}/{version}/weights", content)
    assert fetched.content(ask(s3, store, f"{prefix}/v1.2", verify=False)) == {"weights": b"right"}


def test_without_a_manifest_nothing_unverified_is_taken_unless_it_is_said(s3: SeaweedFS, prefix: str, store: Store) -> None:
    put(s3, prefix)
    with pytest.raises(Unverifiable, match="inference-cache manifest"):
        ask(s3, store, prefix)
    assert fetched.nothing_published(store)
    assert fetched.content(ask(s3, store, prefix, verify=False)) == MODEL


def test_what_is_not_verified_is_another_tree(s3: SeaweedFS, prefix: str, store: Store) -> None:
    put(s3, prefix)
    ask(s3, store, prefix, verify=False)
    with pytest.raises(Unverifiable):
        ask(s3, store, prefix)


def test_an_empty_prefix_is_missing(s3: SeaweedFS, prefix: str, store: Store) -> None:
    with pytest.raises(Missing, match=prefix):
        ask(s3, store, prefix, verify=False)


def test_a_mirror_without_the_files_is_passed_over(s3: SeaweedFS, prefix: str, store: Store) -> None:
    put(s3, prefix)
    s3.put(BUCKET, f"{prefix}/{FILE_NAME}", fetched.manifest(MODEL).text().encode())
    assert fetched.content(ask(s3, store, f"{prefix}-gone", prefix)) == MODEL


def test_a_corrupt_object_is_named(s3: SeaweedFS, prefix: str, store: Store) -> None:
    put(s3, prefix)
    s3.put(BUCKET, f"{prefix}/{FILE_NAME}", fetched.manifest(MODEL).text().encode())
    path = "nested/tokenizer.json"
    s3.put(BUCKET, f"{prefix}/{path}", MODEL[path][:-1] + b"?")
    with pytest.raises(Corrupt, match=path) as raised:
        ask(s3, store, prefix)
    assert raised.value.file == path
    assert fetched.nothing_published(store)


def test_what_only_the_store_vouches_for_is_not_fetched_again_after_a_failure(s3: SeaweedFS, prefix: str, store: Store) -> None:
    put(s3, prefix, with_sums=True)

    class Stopping(fetched.Counting):
        def verified(self, path: str, size: int) -> None:
            if size > 1 << 20:
                raise DiskFailed("a disk")

    with pytest.raises(DiskFailed):
        ask(s3, store, prefix, progress=Stopping())
    progress = fetched.Counting()
    assert fetched.content(ask(s3, store, prefix, progress=progress)) == MODEL
    assert progress.bytes <= sum(map(len, MODEL.values())) - (2 << 20)
    assert fetched.litter(store) == []


def test_files_of_equal_size_are_each_their_own(s3: SeaweedFS, prefix: str, store: Store) -> None:
    shards = {"a": b"a" * 1000, "b": b"b" * 1000}
    for path, content in shards.items():
        s3.put(BUCKET, f"{prefix}/{path}", content)
    assert fetched.content(ask(s3, store, prefix, verify=False)) == shards


def test_a_dead_first_mirror_is_passed_over_also_without_a_manifest(s3: SeaweedFS, prefix: str, store: Store) -> None:
    put(s3, prefix, with_sums=True)
    sources = (f"http://127.0.0.1:{free_port()}/", f"s3://{BUCKET}/{prefix}")
    request = Request(sources, "v1", options=SourceOptions(s3.credentials))
    assert fetched.content(fetch(request, store, Silent())) == MODEL
