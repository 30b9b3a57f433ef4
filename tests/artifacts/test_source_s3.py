"""Files in a real S3: exactly those below a prefix, ranges of the object that was there at first, and what each failure is called."""

import os
import subprocess
import sys
import uuid
from base64 import b64decode
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.artifacts.fault_server import FaultServer
from tests.artifacts.seaweedfs import PUBLIC, SeaweedFS
from tests.artifacts.tcp_proxy import fault_proxy

from inference_cache_artifacts.errors import BadManifest, BadRequest, Changed, Forbidden, Missing, Transient
from inference_cache_artifacts.source import Remote, Source
from inference_cache_artifacts.sources.opening import SourceOptions, open_source

pytestmark = pytest.mark.services
BUCKET = "models"
CONTENT = os.urandom(3 << 20)
QUICK = 0.3


@pytest.fixture
def place(s3: SeaweedFS) -> str:
    """A prefix of its own, without a slash at the end."""
    s3.bucket(BUCKET)
    return f"{uuid.uuid4().hex}/v1.2"


@pytest.fixture
def source(s3: SeaweedFS, place: str) -> Iterator[Source]:
    s3.put(BUCKET, f"{place}/model.bin", CONTENT)
    opened = open_source(f"s3://{BUCKET}/{place}", SourceOptions(s3.credentials))
    yield opened
    opened.close()


def opened(s3: SeaweedFS, url: str, **credentials: str) -> Source:
    return open_source(url, SourceOptions({**s3.credentials, **credentials}))


def ranged(source: Source, remote: Remote, start: int, end: int) -> bytes:
    got, buffer = bytearray(), memoryview(bytearray(100_000))
    with source.open(remote, start, end) as body:
        while count := body.readinto(buffer):
            got += buffer[:count]
    return bytes(got)


def test_a_range_is_exactly_the_bytes_asked_for(source: Source) -> None:
    remote = source.head("model.bin")
    assert remote.size == len(CONTENT)
    assert ranged(source, remote, 0, 1) == CONTENT[:1]
    assert ranged(source, remote, 1_000_001, 2_000_003) == CONTENT[1_000_001:2_000_003]
    assert ranged(source, remote, 0, len(CONTENT)) == CONTENT
    assert ranged(source, remote, 0, 0) == b""


def test_exactly_what_is_below_the_prefix_is_listed(s3: SeaweedFS, place: str) -> None:
    for name in ("/a", "/sub/ü b+c?&%41#.txt", "/sub/empty", "/marker/", "0/other", "other"):
        s3.put(BUCKET, place + name, b"" if name.endswith(("empty", "/")) else b"1")
    for url in (f"s3://{BUCKET}/{place}", f"s3://{BUCKET}/{place}/"):
        source = opened(s3, url)
        assert [(each.path, each.size) for each in source.listing() or ()] == [("a", 1), ("sub/empty", 0), ("sub/ü b+c?&%41#.txt", 1)]
        assert source.read("sub/ü b+c?&%41#.txt", 10) == b"1"
        source.close()


def test_what_is_listed_has_the_etag_of_its_head(source: Source) -> None:
    (listed,) = source.listing() or ()
    head = source.head("model.bin")
    assert (listed.etag, listed.size) == (head.etag, head.size)


@pytest.mark.slow
def test_more_files_than_a_page_has_are_all_listed(s3: SeaweedFS, place: str) -> None:
    client = s3.client()
    for number in range(1005):
        client.put_object(Bucket=BUCKET, Key=f"{place}/{number:04}", Body=b"")
    client.close()
    source = opened(s3, f"s3://{BUCKET}/{place}")
    assert [each.path for each in source.listing() or ()] == [f"{number:04}" for number in range(1005)]
    source.close()


def test_an_object_named_by_the_url_is_a_file_by_its_last_name(s3: SeaweedFS, place: str) -> None:
    s3.put(BUCKET, f"{place}/model.gguf", CONTENT)
    source = opened(s3, f"s3://{BUCKET}/{place}/model.gguf")
    remote = Remote("model.gguf", len(CONTENT), source.head("model.gguf").etag)
    assert [remote] == [Remote(each.path, each.size, each.etag) for each in source.listing() or ()]
    assert ranged(source, remote, 5, 10) == CONTENT[5:10]
    source.close()


@pytest.mark.parametrize("url", ["s3://models/nothing/here/", "s3://models/nothing", "s3://no-such-bucket/a"])
def test_nothing_there_is_missing(s3: SeaweedFS, place: str, url: str) -> None:
    source = opened(s3, url)
    with pytest.raises(Missing, match="s3://"):
        source.listing()
    source.close()


def test_a_small_file_is_read_whole_and_a_large_one_refused(source: Source) -> None:
    assert source.read("model.bin", len(CONTENT)) == CONTENT
    with pytest.raises(BadManifest, match="1000 are allowed"):
        source.read("model.bin", 1000)
    with pytest.raises(Missing, match="none"):
        source.read("none", 1000)


@pytest.mark.parametrize(
    ("algorithm", "name", "length"),
    [("SHA256", "sha256", 32), ("CRC64NVME", "crc64nvme", 8), ("CRC32C", "crc32c", 4), ("CRC32", "crc32", 4)],
)
def test_the_stores_checksum_of_the_whole_is_told(
    s3: SeaweedFS, source: Source, place: str, algorithm: str, name: str, length: int
) -> None:
    s3.put(BUCKET, f"{place}/sum", CONTENT, ChecksumAlgorithm=algorithm)
    checksum = source.head("sum").checksum
    assert checksum is not None
    assert (checksum.algorithm, len(checksum.value)) == (name, length)


@pytest.mark.parametrize(("algorithm", "name"), [("CRC64NVME", "crc64nvme"), ("SHA256", None), (None, None)])
def test_of_an_upload_in_parts_only_a_checksum_of_the_whole_is_told(
    s3: SeaweedFS, source: Source, place: str, algorithm: str | None, name: str | None
) -> None:
    parts = [os.urandom(5 << 20), b"end"]
    s3.put_parts(BUCKET, f"{place}/parts", parts, algorithm)
    remote = source.head("parts")
    assert (remote.checksum and remote.checksum.algorithm) == name
    assert ranged(source, remote, (5 << 20) - 2, remote.size) == parts[0][-2:] + b"end"


def test_the_checksum_is_the_one_that_was_put(s3: SeaweedFS, source: Source, place: str) -> None:
    s3.put(BUCKET, f"{place}/x", b"x" * 1000, ChecksumAlgorithm="CRC64NVME")
    checksum = source.head("x").checksum
    assert checksum is not None
    assert checksum.value == b64decode("RH9Kj0hgZpY=")


def test_an_object_that_was_replaced_is_never_mixed_in(s3: SeaweedFS, source: Source, place: str) -> None:
    remote = source.head("model.bin")
    s3.put(BUCKET, f"{place}/model.bin", CONTENT[::-1])
    with pytest.raises(Changed, match=r"model\.bin"):
        ranged(source, remote, 1000, 2000)


def test_an_object_that_got_shorter_is_changed_even_without_an_etag(s3: SeaweedFS, source: Source, place: str) -> None:
    s3.put(BUCKET, f"{place}/model.bin", CONTENT[:1000])
    for start, end in ((2000, 3000), (500, 1500), (0, 100)):
        with pytest.raises(Changed):
            ranged(source, Remote("model.bin", len(CONTENT)), start, end)


def test_wrong_credentials_are_forbidden_and_never_shown(s3: SeaweedFS, source: Source, place: str) -> None:
    for name in ("AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID"):
        stranger = opened(s3, source.url, **{name: "a-wrong-value"})
        for ask in (stranger.listing, lambda one=stranger: one.head("model.bin"), lambda one=stranger: one.read("model.bin", 10)):
            with pytest.raises(Forbidden, match=place) as caught:
                ask()
            assert "a-wrong-value" not in str(caught.value)
        stranger.close()


@pytest.mark.parametrize("hours", [-2, 2])
def test_a_clock_that_is_wrong_is_told(web: FaultServer, monkeypatch: pytest.MonkeyPatch, hours: int) -> None:
    # SeaweedFS takes signatures of any time; what Amazon's S3 answers to HEAD is no more than this.
    web.faults.refuse_status, web.faults.refuse_share = 403, 1.0
    monkeypatch.setattr("inference_cache_artifacts.sources.s3_client.now", lambda: datetime.now(UTC) + timedelta(hours=hours))
    keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_ENDPOINT_URL": web.url}
    source = open_source("s3://bucket/a", SourceOptions(keys))
    for ask in (source.listing, lambda: source.head("model.bin"), lambda: source.read("model.bin", 10)):
        with pytest.raises(Forbidden, match=r"the clock of this machine is wrong: \d+ s (ahead of|behind) the source's"):
            ask()
    source.close()


def test_a_request_that_fails_is_made_once(s3: SeaweedFS, source: Source) -> None:
    with fault_proxy(s3.port) as proxy:
        behind = opened(s3, source.url, AWS_ENDPOINT_URL_S3=f"http://127.0.0.1:{proxy.port}")
        proxy.cut_after = 0
        with pytest.raises(Transient):
            behind.head("model.bin")
        assert proxy.accepted == 1
        behind.close()


def test_an_anonymous_reader_reads_what_is_public(s3: SeaweedFS, place: str) -> None:
    s3.put(PUBLIC, f"{place}/a", b"1")
    s3.put(BUCKET, f"{place}/a", b"1")
    anonymous = {"AWS_ENDPOINT_URL": s3.endpoint, "AWS_S3_ANONYMOUS": "true"}
    public, other = (open_source(f"s3://{bucket}/{place}", SourceOptions(anonymous)) for bucket in (PUBLIC, BUCKET))
    assert [each.path for each in public.listing() or ()] == ["a"]
    assert public.read("a", 10) == b"1"
    with pytest.raises(Forbidden):
        other.read("a", 10)
    public.close()
    other.close()


def test_without_credentials_anywhere_it_says_what_to_give(
    s3: SeaweedFS, place: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in [each for each in os.environ if each.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    source = open_source(f"s3://{BUCKET}/{place}", SourceOptions({"AWS_ENDPOINT_URL": s3.endpoint}))
    with pytest.raises(Forbidden, match="AWS_S3_ANONYMOUS"):
        source.listing()
    source.close()


def test_the_environment_is_asked_where_no_credentials_are_given(
    s3: SeaweedFS, source: Source, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3.credentials.items():
        monkeypatch.setenv(name, value)
    own = open_source(source.url, SourceOptions())
    assert own.head("model.bin").size == len(CONTENT)
    own.close()


def test_an_answer_that_is_cut_off_ends_early_and_loses_nothing(s3: SeaweedFS, source: Source) -> None:
    with fault_proxy(s3.port) as proxy:
        behind = opened(s3, source.url, AWS_ENDPOINT_URL_S3=f"http://127.0.0.1:{proxy.port}")
        remote = behind.head("model.bin")
        proxy.cut_after = 1 << 20
        got = ranged(behind, remote, 0, remote.size)
        assert got == CONTENT[: len(got)]
        assert (1 << 20) - 4096 < len(got) < 1 << 20
        proxy.refusing = True
        with pytest.raises(Transient):
            ranged(behind, remote, 0, remote.size)
        proxy.heal()
        assert ranged(behind, remote, 0, remote.size) == CONTENT
        behind.close()


def test_a_stall_is_transient(s3: SeaweedFS, source: Source) -> None:
    with fault_proxy(s3.port) as proxy:
        options = SourceOptions({**s3.credentials, "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{proxy.port}"}, read_timeout_seconds=QUICK)
        behind = open_source(source.url, options)
        proxy.stall()
        with pytest.raises(Transient, match="sends nothing"):
            behind.read("model.bin", len(CONTENT))
        proxy.heal()
        behind.close()


def test_nobody_at_the_port_is_transient(s3: SeaweedFS) -> None:
    source = opened(s3, "s3://models/a", AWS_ENDPOINT_URL_S3="http://127.0.0.1:1")
    with pytest.raises(Transient, match="cannot be reached"):
        source.listing()
    source.close()


def test_a_name_that_no_bucket_has_is_a_bad_request(s3: SeaweedFS) -> None:
    source = opened(s3, "s3://a..b_c/x")
    with pytest.raises((BadRequest, Missing)):
        source.listing()
    source.close()


def test_opening_loads_no_sdk() -> None:
    script = (
        "import sys; from inference_cache_artifacts.sources.opening import SourceOptions, open_source;"
        "assert not {'boto3', 'botocore', 'urllib3'} & set(sys.modules); open_source('s3://a-b/c', SourceOptions());"
        "assert not {'boto3', 'botocore'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
