"""What sources decide without a server: addresses, credentials, the names of failures, checksums."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any, cast

import pytest
from botocore import exceptions

from inference_cache_artifacts.errors import BadManifest, BadRequest, Changed, Forbidden, Missing, Transient, Unreachable
from inference_cache_artifacts.source import Checksum
from inference_cache_artifacts.sources.addresses import http_address, s3_address
from inference_cache_artifacts.sources.answers import best_checksum, content_range, retry_after_seconds, same, strong
from inference_cache_artifacts.sources.opening import SourceOptions, open_source
from inference_cache_artifacts.sources.options import http_access, s3_access
from inference_cache_artifacts.sources.s3 import listed
from inference_cache_artifacts.sources.s3_client import Asking, made
from inference_cache_artifacts.sources.s3_failures import of_code, raised

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("url", "prefix", "only_folder"),
    [
        ("s3://bucket", "", True),
        ("s3://bucket/", "", True),
        ("s3://bucket/v1.2", "v1.2/", False),
        ("s3://bucket/v1.2/", "v1.2/", True),
        ("s3://bucket/a b%20/c?d#e", "a b%20/c?d#e/", False),
    ],
)
def test_a_prefix_is_a_folder(url: str, prefix: str, only_folder: bool) -> None:
    address = s3_address(url)
    assert (address.bucket, address.prefix, address.only_folder) == ("bucket", prefix, only_folder)
    assert address.key("x/y") == f"{prefix}x/y"


@pytest.mark.parametrize("key", ["v1/../x", "v1//x", "v1/./x", "v1/a/", "v1/a\nb"])
def test_a_key_that_is_no_path_is_named(key: str) -> None:
    with pytest.raises(BadManifest, match="s3://bucket/v1/: the key"):
        listed({"Key": key, "Size": 1}, s3_address("s3://bucket/v1/"))


def test_what_only_marks_a_folder_is_no_file() -> None:
    assert listed({"Key": "v1/a/", "Size": 0}, s3_address("s3://bucket/v1/")) is None


@pytest.mark.parametrize(
    ("url", "file"),
    [
        ("https://host", "https://host/a%20b/%C3%BC%2B%3F%25.txt"),
        ("https://host:8443/x/", "https://host:8443/x/a%20b/%C3%BC%2B%3F%25.txt"),
        ("https://host/x%20y?sig=a%2Fb&e=1", "https://host/x%20y/a%20b/%C3%BC%2B%3F%25.txt?sig=a%2Fb&e=1"),
        ("https://user:pass@host/x y#part", "https://host/x%20y/a%20b/%C3%BC%2B%3F%25.txt"),
        ("https://[::1]:1/", "https://[::1]:1/a%20b/%C3%BC%2B%3F%25.txt"),
    ],
)
def test_a_files_url_is_joined_and_quoted(url: str, file: str) -> None:
    assert http_address(url, plain_http=False).file("a b/ü+?%.txt") == file


def test_what_is_shown_of_a_url_has_no_secret() -> None:
    address = http_address("https://user:secret@host/x?secret=1", plain_http=False)
    assert (address.url, address.shown("a")) == ("https://host/x/", "https://host/x/a")
    assert "secret" not in repr(address)


@pytest.mark.parametrize(
    "url",
    [
        "s3://",
        "s3:///a",
        "s3://b/x",
        "s3://bucket//a",
        "s3://bucket/a//",
        "s3://buc ket/a",
        "s3://bucket/a\n",
        "ftp://host/a",
        "/a/b",
        "file:///a",
        "https:///a",
        "https://host:port/a",
        "https://[::1/a",
        "http://host/a",
        "http://10.0.0.1/a",
        "",
    ],
)
def test_a_url_that_makes_no_sense_is_a_bad_request(url: str) -> None:
    with pytest.raises(BadRequest):
        open_source(url, SourceOptions())


@pytest.mark.parametrize("url", ["http://localhost/", "http://127.1.2.3:80/", "http://[::1]/", "HTTP://LOCALHOST/", "S3://bucket/A"])
def test_plain_http_is_for_this_machine(url: str) -> None:
    open_source(url, SourceOptions()).close()


def test_plain_http_may_be_allowed() -> None:
    source = open_source("http://host/a", SourceOptions(plain_http=True))
    assert source.url == "http://host/a/"
    source.close()


@pytest.mark.parametrize(
    ("credentials", "key"),
    [
        ({"AWS_ACCESS_KEY_ID": "secret"}, "AWS_SECRET_ACCESS_KEY"),
        ({"AWS_SECRET_ACCESS_KEY": "secret"}, "AWS_ACCESS_KEY_ID"),
        ({"AWS_ACCESS_KEY_ID": "secret\x00", "AWS_SECRET_ACCESS_KEY": "secret"}, "AWS_ACCESS_KEY_ID"),
        ({"AWS_S3_ADDRESSING_STYLE": "secret"}, "AWS_S3_ADDRESSING_STYLE"),
        ({"AWS_S3_ANONYMOUS": "secret"}, "AWS_S3_ANONYMOUS"),
        ({"AWS_ENDPOINT_URL": "secret"}, "AWS_ENDPOINT_URL"),
    ],
)
def test_an_error_in_s3_credentials_names_the_key_and_no_value(credentials: dict[str, str], key: str) -> None:
    with pytest.raises(BadRequest, match=key) as caught:
        s3_access(credentials)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("credentials", "key"),
    [
        ({"token": "sec\nret"}, "token"),
        ({"HTTP_BEARER_TOKEN": "secretü"}, "HTTP_BEARER_TOKEN"),
        ({"password": "secret"}, "username"),
        ({"token": "secret", "username": "secret"}, "token"),
    ],
)
def test_an_error_in_http_credentials_names_the_key_and_no_value(credentials: dict[str, str], key: str) -> None:
    with pytest.raises(BadRequest, match=key) as caught:
        http_access(credentials)
    assert "secret" not in str(caught.value)


def test_credentials_are_never_shown() -> None:
    credentials = {"AWS_ACCESS_KEY_ID": "secret", "AWS_SECRET_ACCESS_KEY": "secret\n", "token": "secret", "AWS_SESSION_TOKEN": "secret"}
    access = s3_access(credentials)
    assert access.secret == "secret"
    assert "secret" not in f"{SourceOptions(credentials)!r} {access!r} {http_access(credentials)!r}"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (None, None),
        ("7", 7.0),
        ("100000", 60.0),
        ("-1", None),
        ("soon", None),
        (format_datetime(NOW + timedelta(seconds=9), usegmt=True), 9.0),
        (format_datetime(NOW - timedelta(seconds=9), usegmt=True), 0.0),
        (format_datetime(NOW + timedelta(days=9), usegmt=True), 60.0),
    ],
)
def test_the_wait_that_is_asked_for(text: str | None, seconds: float | None) -> None:
    assert retry_after_seconds(text, NOW) == seconds


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("bytes 0-9/100", (0, 10, 100)),
        ("bytes */0", (0, 0, 0)),
        ("bytes 0-9/*", None),
        ("items 0-9/100", None),
        ("", None),
        (None, None),
    ],
)
def test_what_a_range_says(text: str | None, told: tuple[int, int, int] | None) -> None:
    assert content_range(text) == told


def test_an_etag_is_the_same_with_and_without_quotes() -> None:
    assert same('"a"', "a")
    assert same(None, '"a"')
    assert not same('"a"', '"b"')
    assert (strong('"a"'), strong('W/"a"'), strong("")) == ('"a"', None, None)


def test_of_several_checksums_the_strongest_readable_one_is_told() -> None:
    assert best_checksum({"crc32": "AAAAAA==", "crc64nvme": "AAAAAAAAAAA="}) == Checksum("crc64nvme", bytes(8))
    assert best_checksum({"crc32": "AAAAAA==", "crc64nvme": "AAAAAAAAAAA=-3"}) == Checksum("crc32", bytes(4))
    assert best_checksum({"sha256": "none"}) is None


@pytest.mark.parametrize(
    ("code", "status", "error"),
    [
        ("NoSuchKey", 404, Missing),
        ("NoSuchBucket", 404, Missing),
        ("404", 404, Missing),
        ("AccessDenied", 403, Forbidden),
        ("403", 403, Forbidden),
        ("InvalidAccessKeyId", 403, Forbidden),
        ("SignatureDoesNotMatch", 403, Forbidden),
        ("AuthorizationHeaderMalformed", 400, Forbidden),
        ("400", 400, Forbidden),
        ("ExpiredToken", 400, Transient),
        ("SlowDown", 503, Transient),
        ("RequestTimeout", 400, Transient),
        ("InternalError", 500, Transient),
        ("", 500, Transient),
        ("429", 429, Transient),
        ("PreconditionFailed", 412, Changed),
        ("InvalidRange", 416, Changed),
        ("InvalidBucketName", 400, BadRequest),
        ("PermanentRedirect", 301, BadRequest),
    ],
)
def test_each_answer_of_s3_has_its_name(code: str, status: int, error: type[Exception]) -> None:
    failed = of_code(code, status, "s3://b/k", {"date": format_datetime(NOW, usegmt=True), "retry-after": "3"}, NOW)
    assert type(failed) is error
    assert "s3://b/k" in str(failed)


@pytest.mark.parametrize(("code", "hours"), [("RequestTimeTooSkewed", 2), ("RequestTimeTooSkewed", 0), ("403", -2)])
def test_a_clock_that_is_wrong_is_told(code: str, hours: int) -> None:
    date = format_datetime(NOW - timedelta(hours=hours), usegmt=True)
    failed = of_code(code, 403, "s3://b/k", {"date": date}, NOW)
    assert isinstance(failed, Forbidden)
    assert "clock of this machine is wrong" in str(failed)
    assert ("7200 s" in str(failed)) == bool(hours)


@pytest.mark.parametrize(
    ("said", "error"),
    [
        (exceptions.NoCredentialsError(), Forbidden),
        (exceptions.PartialCredentialsError(provider="env", cred_var="x"), Forbidden),
        (exceptions.EndpointConnectionError(endpoint_url="http://x", error=None), Transient),
        (exceptions.ReadTimeoutError(endpoint_url="http://x", error=None), Transient),
        (exceptions.ConnectionClosedError(endpoint_url="http://x", error=None), Transient),
        (exceptions.SSLError(endpoint_url="http://x", error="CERTIFICATE_VERIFY_FAILED"), Unreachable),
        (exceptions.SSLError(endpoint_url="http://x", error="EOF"), Transient),
        (exceptions.CredentialRetrievalError(provider="web", error_msg="x"), Transient),
        (exceptions.ParamValidationError(report="bucket"), BadRequest),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_each_error_of_the_sdk_has_its_name(said: exceptions.BotoCoreError, error: type[Exception]) -> None:
    failed = raised(said, "s3://b/k")
    assert type(failed) is error
    assert "s3://b/k" in str(failed)


def expired(_: object) -> object:
    answer: Any = {"Error": {"Code": "ExpiredToken"}, "ResponseMetadata": {"HTTPStatusCode": 400, "HTTPHeaders": {}}}
    raise exceptions.ClientError(answer, "GetObject")


def clients() -> tuple[list[object], Callable[[str], Any]]:
    """Those that were made, and how."""
    all_made: list[object] = []

    def make(_: str) -> Any:
        all_made.append(object())
        return all_made[-1]

    return all_made, make


def test_expired_credentials_are_asked_for_once_more() -> None:
    all_made, make = clients()
    asking = Asking(make, lasting=False)
    with pytest.raises(Transient, match="expired"):
        asking.ask(expired, "here")
    assert asking.ask(lambda client: {"client": client}, "here") == {"client": all_made[1]}
    with pytest.raises(Transient):
        asking.ask(expired, "here")
    with pytest.raises(Forbidden, match="here: the credentials have expired"):
        asking.ask(expired, "here")
    assert len(all_made) == 3


def test_expired_credentials_of_a_secret_are_final() -> None:
    _, make = clients()
    with pytest.raises(Forbidden, match="have expired"):
        Asking(make, lasting=True).ask(expired, "here")


@pytest.mark.parametrize(
    ("style", "url"), [("", "http://minio:9000/bucket"), ("path", "http://minio:9000/bucket"), ("virtual", "http://bucket.minio:9000/")]
)
def test_an_endpoint_of_ones_own_is_asked_by_path_unless_told_otherwise(style: str, url: str) -> None:
    keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_ENDPOINT_URL": "http://minio:9000"}
    client = made(s3_access({**keys, "AWS_S3_ADDRESSING_STYLE": style}), SourceOptions(), "here")
    signed = cast(str, client.generate_presigned_url("get_object", Params={"Bucket": "bucket", "Key": "key"}))
    client.close()
    assert re.match(re.escape(url), signed)


@pytest.mark.parametrize("url", ["https://127.0.0.1:1/v1/", "s3://bucket/v1/"])
@pytest.mark.parametrize(("content", "said"), [(None, "No such file"), (b"", "no certificate"), (b"-----BEGIN", "no certificate")])
def test_authorities_that_cannot_be_read_are_no_broken_connection(url: str, content: bytes | None, said: str, tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_bytes(content)
    source = open_source(url, SourceOptions({"AWS_S3_ANONYMOUS": "true", "AWS_ENDPOINT_URL": "https://127.0.0.1:1"}, ca_file=str(path)))
    with pytest.raises(BadRequest, match=f"--ca-file {path}: .*{said}"):
        source.head("a")
    source.close()
