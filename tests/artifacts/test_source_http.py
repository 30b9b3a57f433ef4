"""Files over HTTP: ranges of the file that was there at first, redirects and signed URLs, and what each failure is called."""

import datetime
import hashlib
import ipaddress
import os
import ssl
from base64 import b64encode
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from tests.artifacts.fault_server import FaultServer, fault_server

from inference_cache_artifacts.errors import BadManifest, BadRequest, Changed, Forbidden, Missing, Transient, Unreachable
from inference_cache_artifacts.source import Checksum, Remote, Source
from inference_cache_artifacts.sources.http import MOST_SKIPPED
from inference_cache_artifacts.sources.opening import SourceOptions, open_source

CONTENT = os.urandom(3 << 20)
QUICK = 0.3
"""Seconds that a test waits for a stall to be seen."""


@pytest.fixture
def source(web: FaultServer, files: Path) -> Iterator[Source]:
    (files / "sub").mkdir()
    (files / "model.bin").write_bytes(CONTENT)
    (files / "sub" / "ü b+c?&%41#.txt").write_bytes(b"named")
    (files / "empty").write_bytes(b"")
    opened = open_source(web.url, SourceOptions())
    yield opened
    opened.close()


def ranged(source: Source, remote: Remote, start: int, end: int) -> bytes:
    """What comes in, until its end or a cut."""
    got, buffer = bytearray(), memoryview(bytearray(100_000))
    with source.open(remote, start, end) as body:
        while count := body.readinto(buffer):
            got += buffer[:count]
    return bytes(got)


def test_a_range_is_exactly_the_bytes_asked_for(source: Source) -> None:
    remote = source.head("model.bin")
    assert (remote.size, remote.etag is not None) == (len(CONTENT), True)
    assert ranged(source, remote, 0, 1) == CONTENT[:1]
    assert ranged(source, remote, 1_000_001, 2_000_003) == CONTENT[1_000_001:2_000_003]
    assert ranged(source, remote, 0, len(CONTENT)) == CONTENT


def test_no_request_is_made_for_a_file_without_bytes(source: Source, web: FaultServer) -> None:
    remote = source.head("empty")
    web.forget()
    assert (remote.size, ranged(source, remote, 0, 0), web.requests) == (0, b"", [])


def test_any_name_finds_its_file(source: Source) -> None:
    assert source.read("sub/ü b+c?&%41#.txt", 100) == b"named"


def test_a_source_over_http_cannot_list(source: Source) -> None:
    assert source.listing() is None


def test_a_connection_is_used_again_after_a_whole_range(source: Source, web: FaultServer) -> None:
    remote = source.head("model.bin")
    for start in range(0, 1000, 100):
        ranged(source, remote, start, start + 100)
    assert len({id(connection) for connection in source._client._pools[""].pools._container.values()}) == 1  # type: ignore[attr-defined]
    (pool,) = source._client._pools[""].pools._container.values()  # type: ignore[attr-defined]
    assert (pool.num_connections, pool.num_requests) == (1, 11)


def test_many_threads_read_at_once(source: Source) -> None:
    remote, step = source.head("model.bin"), 50_001
    starts = range(0, remote.size, step)
    with ThreadPoolExecutor(16) as threads:
        pieces = threads.map(lambda start: ranged(source, remote, start, min(start + step, remote.size)), starts)
        assert b"".join(pieces) == CONTENT


def test_the_environments_proxy_is_asked_with_its_user(web: FaultServer, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (files / "model.bin").write_bytes(b"short")
    monkeypatch.setenv("http_proxy", web.url.replace("//", "//user:a%40b@"))
    monkeypatch.setenv("no_proxy", "other.example")
    source = open_source("http://files.example/", SourceOptions(plain_http=True))
    with pytest.raises(Missing):
        source.read("none", 10)
    source.close()
    assert web.requests[0].path == "http://files.example/none"
    assert web.requests[0].headers["proxy-authorization"] == f"Basic {b64encode(b'user:a@b').decode()}"


def test_a_context_left_early_gives_up_its_connection(source: Source) -> None:
    remote = source.head("model.bin")
    with source.open(remote, 0, remote.size) as body:
        body.readinto(memoryview(bytearray(10)))
    assert ranged(source, remote, 5, 10) == CONTENT[5:10]


def test_a_small_file_is_read_whole_and_a_large_one_refused(source: Source) -> None:
    assert source.read("model.bin", len(CONTENT)) == CONTENT
    with pytest.raises(BadManifest, match="more than the 1000 bytes"):
        source.read("model.bin", 1000)


@pytest.mark.parametrize("size", [999, 1001])
def test_a_file_of_unknown_length_is_held_to_the_limit(source: Source, web: FaultServer, size: int) -> None:
    web.swap("model.bin", b"x" * size)
    web.faults.no_length = True
    if size == 999:
        assert source.read("model.bin", 1000) == b"x" * size
        return
    with pytest.raises(BadManifest):
        source.read("model.bin", 1000)


def test_an_answer_that_is_cut_off_ends_early_and_loses_nothing(source: Source, web: FaultServer) -> None:
    remote = source.head("model.bin")
    web.faults.cut_after = 1_234_567
    assert ranged(source, remote, 10, remote.size) == CONTENT[10 : 10 + 1_234_567]
    with pytest.raises(Transient, match="cut off"):
        source.read("model.bin", remote.size)


def test_a_stall_is_transient(source: Source, web: FaultServer) -> None:
    remote = source.head("model.bin")
    web.faults.stall_after = 500_000
    hasty = open_source(web.url, SourceOptions(read_timeout_seconds=QUICK))
    with pytest.raises(Transient, match="sends nothing"):
        ranged(hasty, remote, 0, remote.size)
    hasty.close()


def test_a_file_that_was_replaced_is_never_mixed_in(source: Source, web: FaultServer) -> None:
    remote = source.head("model.bin")
    web.swap("model.bin", os.urandom(len(CONTENT)))
    with pytest.raises(Changed):
        ranged(source, remote, 1000, 2000)


@pytest.mark.parametrize("etag", ['"another"', 'W/"weak"', ""], ids=["strong", "weak", "none"])
def test_only_another_strong_etag_is_another_file(source: Source, web: FaultServer, etag: str) -> None:
    remote = Remote("model.bin", len(CONTENT))
    web.faults.etag = etag
    assert ranged(source, remote, 5, 10) == CONTENT[5:10]
    assert source.head("model.bin").etag == (etag if etag == '"another"' else None)


def test_a_range_of_a_file_of_another_length_is_refused(source: Source, web: FaultServer) -> None:
    remote = source.head("model.bin")
    web.faults.wrong_range = True
    with pytest.raises(Changed, match="answers 'bytes"):
        ranged(source, remote, 5, 10)


@pytest.mark.parametrize(("start", "end"), [(0, 10), (1_000_000, 1_000_010), (len(CONTENT) - 1, len(CONTENT))])
def test_a_server_without_ranges_is_read_past_what_is_not_wanted(source: Source, web: FaultServer, start: int, end: int) -> None:
    web.faults.no_ranges = True
    assert ranged(source, source.head("model.bin"), start, end) == CONTENT[start:end]


def test_a_server_without_ranges_is_not_read_far_past(source: Source, web: FaultServer) -> None:
    web.faults.no_ranges = True
    web.swap("model.bin", bytes(MOST_SKIPPED + 100))
    with pytest.raises(Unreachable, match="sends the whole file"):
        ranged(source, source.head("model.bin"), MOST_SKIPPED + 1, MOST_SKIPPED + 50)


def test_a_server_that_refuses_head_is_asked_by_a_range(source: Source, web: FaultServer) -> None:
    web.faults.no_head = True
    assert (source.head("model.bin").size, source.head("empty").size) == (len(CONTENT), 0)
    web.faults.no_ranges = True
    assert source.head("model.bin").size == len(CONTENT)


def test_an_encoded_answer_is_refused(source: Source, web: FaultServer) -> None:
    web.faults.headers = {"Content-Encoding": "gzip"}
    with pytest.raises(Unreachable, match=r"model\.bin: .*gzip"):
        source.head("model.bin")


@pytest.mark.parametrize(
    ("header", "value", "checksum"),
    [
        pytest.param(
            "Repr-Digest",
            f"sha-512=:AAAA:, sha-256=:{b64encode(hashlib.sha256(CONTENT).digest()).decode()}:",
            Checksum("sha256", hashlib.sha256(CONTENT).digest()),
            id="digest",
        ),
        pytest.param(
            "x-goog-hash", "crc32c=n03x6A==,md5=Ojk9c3dhfxgoKVVHYwFbHQ==", Checksum("crc32c", bytes.fromhex("9f4df1e8")), id="google"
        ),
        pytest.param("x-amz-checksum-crc64nvme", "RH9Kj0hgZpY=", Checksum("crc64nvme", bytes.fromhex("447f4a8f48606696")), id="amazon"),
        pytest.param("x-amz-checksum-crc32", "RH9Kjw==-2", None, id="of-parts"),
        pytest.param("Repr-Digest", "sha-256=:AAAA:", None, id="too-short"),
    ],
)
def test_checksums_in_headers_are_told(source: Source, web: FaultServer, header: str, value: str, checksum: Checksum | None) -> None:
    web.faults.headers = {header: value}
    assert source.head("model.bin").checksum == checksum


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, BadRequest),
        (401, Forbidden),
        (403, Forbidden),
        (404, Missing),
        (408, Transient),
        (410, Missing),
        (412, Changed),
        (416, Changed),
        (429, Transient),
        (500, Transient),
        (503, Transient),
    ],
)
def test_each_refusal_has_its_name(source: Source, web: FaultServer, status: int, error: type[Exception]) -> None:
    remote = source.head("model.bin")
    web.faults.refuse_status, web.faults.refuse_next = status, 1
    with pytest.raises(error, match=rf"model\.bin.*{status}"):
        ranged(source, remote, 0, 10)
    assert ranged(source, remote, 0, 10) == CONTENT[:10]


def test_what_the_server_asks_to_wait_is_told(source: Source, web: FaultServer) -> None:
    web.faults.refuse_next, web.faults.retry_after = 1, "7"
    with pytest.raises(Transient) as caught:
        source.read("model.bin", 10)
    assert caught.value.retry_after_seconds == 7


def test_nobody_at_the_port_is_transient() -> None:
    source = open_source("http://127.0.0.1:1/", SourceOptions())
    with pytest.raises(Transient, match="cannot be reached"):
        source.head("model.bin")
    source.close()


def test_a_redirect_is_followed_and_remembered(source: Source, web: FaultServer) -> None:
    web.faults.redirect = True
    remote = source.head("model.bin")
    web.forget()
    assert ranged(source, remote, 10, 20) + ranged(source, remote, 20, 30) == CONTENT[10:30]
    assert [asked.status for asked in web.requests] == [206, 206]


def test_a_signed_url_that_expired_is_asked_for_anew(source: Source, web: FaultServer) -> None:
    web.faults.redirect, web.faults.redirect_uses = True, 2
    remote = source.head("model.bin")
    assert b"".join(ranged(source, remote, start, start + 10) for start in range(0, 50, 10)) == CONTENT[:50]
    assert [asked.status for asked in web.requests] == [302, 200, 206, 403, 302, 206, 206, 403, 302, 206, 206]


def test_a_signed_url_that_ran_out_of_time_is_asked_for_anew(source: Source, web: FaultServer) -> None:
    web.faults.redirect = True
    remote = source.head("model.bin")
    web.run_out()
    assert ranged(source, remote, 5, 10) == CONTENT[5:10]
    assert [asked.status for asked in web.requests] == [302, 200, 403, 302, 206]


def test_a_file_that_is_refused_at_its_source_too_is_forbidden(source: Source, web: FaultServer) -> None:
    web.faults.redirect, web.faults.redirect_uses = True, 0
    with pytest.raises(Forbidden):
        source.read("model.bin", len(CONTENT))


def test_redirects_end(source: Source, web: FaultServer) -> None:
    web.faults.redirect_to = web.url
    with pytest.raises(Unreachable, match="more than 5 redirects"):
        source.head("model.bin")


def test_credentials_are_sent_to_nobody_else(web: FaultServer, files: Path, tmp_path: Path) -> None:
    (files / "model.bin").write_bytes(CONTENT)
    with fault_server(files) as other:
        web.faults.token, web.faults.redirect_to = "a-token", other.url
        source = open_source(web.url, SourceOptions(credentials={"token": "a-token\n"}))
        assert source.head("model.bin").size == len(CONTENT)
        source.close()
        assert ["authorization" in asked.headers for asked in (*web.requests, *other.requests)] == [True, False]


def test_without_its_token_a_server_is_forbidden(source: Source, web: FaultServer) -> None:
    web.faults.token = "a-token"
    with pytest.raises(Forbidden):
        source.read("model.bin", 10)


def test_a_query_goes_with_every_request_and_is_never_shown(web: FaultServer, files: Path) -> None:
    (files / "model.bin").write_bytes(b"short")
    web.faults.query = "token=secret%2Fsecret&x=1"
    source = open_source(f"{web.url[:-1]}?token=secret%2Fsecret&x=1", SourceOptions())
    assert source.read("model.bin", 10) == b"short"
    with pytest.raises(Missing) as caught:
        source.read("none.bin", 10)
    source.close()
    assert "secret" not in f"{caught.value} {source.url} {caught.value.__cause__}"


def test_user_and_password_are_sent_and_never_shown(web: FaultServer, files: Path) -> None:
    (files / "model.bin").write_bytes(b"short")
    source = open_source(web.url.replace("//", "//user:a%40b@"), SourceOptions())
    assert (source.read("model.bin", 10), source.url) == (b"short", web.url)
    source.close()
    assert web.requests[0].headers["authorization"] == f"Basic {b64encode(b'user:a@b').decode()}"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """PEM: a key, and its certificate for this machine by itself."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "files")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
    builder = (
        builder.not_valid_before(now - datetime.timedelta(1)).not_valid_after(now + datetime.timedelta(1)).add_extension(address, False)
    )
    signed = builder.sign(key, hashes.SHA256())
    file = tmp_path_factory.mktemp("tls") / "both.pem"
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    file.write_bytes(key.private_bytes(*form) + signed.public_bytes(serialization.Encoding.PEM))
    return file


@pytest.fixture
def secure(files: Path, certificate: Path) -> Iterator[FaultServer]:
    (files / "model.bin").write_bytes(CONTENT)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with fault_server(files, context) as server:
        yield server


def test_https_is_read_where_its_authority_is_known(secure: FaultServer, certificate: Path) -> None:
    source = open_source(secure.url, SourceOptions(ca_file=str(certificate)))
    assert ranged(source, source.head("model.bin"), 1_000_000, 2_000_000) == CONTENT[1_000_000:2_000_000]
    source.close()


def test_a_certificate_that_nobody_vouches_for_is_final(secure: FaultServer) -> None:
    source = open_source(secure.url, SourceOptions())
    with pytest.raises(Unreachable, match="certificate"):
        source.head("model.bin")
    source.close()


def test_no_redirect_leaves_https(secure: FaultServer, certificate: Path, web: FaultServer) -> None:
    secure.faults.redirect_to = web.url
    source = open_source(secure.url, SourceOptions(ca_file=str(certificate)))
    with pytest.raises(Unreachable, match="from https to http"):
        source.head("model.bin")
    source.close()


@pytest.mark.services
def test_nginx_serves_ranges_of_the_file_that_was_there(start_nginx: Callable[[str], str], files: Path) -> None:
    (files / "model.bin").write_bytes(CONTENT)
    source = open_source(start_nginx(""), SourceOptions())
    remote = source.head("model.bin")
    assert ranged(source, remote, 7, 2_000_000) == CONTENT[7:2_000_000]
    (files / "new").write_bytes(CONTENT[::-1] + b"1")
    (files / "new").replace(files / "model.bin")
    with pytest.raises(Changed):
        ranged(source, remote, 7, 2_000_000)
    with pytest.raises(Missing):
        source.head("none.bin")
    source.close()


@pytest.mark.services
def test_nginx_that_compresses_is_asked_not_to(start_nginx: Callable[[str], str], files: Path) -> None:
    (files / "config.json").write_bytes(b'{"a": 1}' * 1000)
    source = open_source(start_nginx("gzip on; gzip_types *; gzip_min_length 1;"), SourceOptions())
    assert source.head("config.json").size == 8000
    assert source.read("config.json", 8000) == b'{"a": 1}' * 1000
    source.close()
