"""What the agent hands on: the files of a tree, whole and by ranges, and nothing beside them."""

import asyncio
import hashlib
import random
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

import pytest
from tests.artifacts.played_pod import PlayedPod
from tests.artifacts.running_agent import RunningAgent, running_agent
from tests.artifacts.stores import NAME, new_store, published

from inference_cache_artifacts.agent import sending
from inference_cache_artifacts.agent.parts import Part, part_of
from inference_cache_artifacts.handover import protocol
from inference_cache_artifacts.manifest import parse_manifest
from inference_cache_artifacts.source import Remote
from inference_cache_artifacts.sources.opening import SourceOptions, open_source
from inference_cache_artifacts.store import litter, trees

BIG = random.Random(1).randbytes(10_240_000)
CONTENTS = {"config.json": b"{}", "weights/big.bin": BIG, "odd name %41 é?#.txt": b"odd", "empty": b""}
ETAG = f'"{hashlib.sha256(BIG).hexdigest()}"'


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[RunningAgent]:
    root = tmp_path / "root"
    root.mkdir()
    published(new_store(root / "a"), CONTENTS)
    (root / "a" / "trees" / NAME / "files" / "beside").write_text("not in the manifest")
    with running_agent(tmp_path) as running:
        yield running


def where(path: str) -> str:
    return protocol.FILE.format(tree=NAME, path=path)


@pytest.mark.services
def test_a_tree_is_told_of_with_its_manifest(agent: RunningAgent) -> None:
    pod = PlayedPod(agent.url)
    summary = protocol.read_summary(pod.request("GET", protocol.TREE.format(tree=NAME)).data)
    told = parse_manifest(pod.request("GET", protocol.MANIFEST.format(tree=NAME)).data)
    assert (summary.digest, summary.size, summary.count) == (told.digest, told.size, len(CONTENTS))
    assert {file.path for file in told.files} == set(CONTENTS)


@pytest.mark.services
def test_the_engines_own_source_reads_every_file(agent: RunningAgent) -> None:
    source = open_source(f"{agent.url}{where('')}", SourceOptions({"token": "token-a"}))
    for path, content in CONTENTS.items():
        remote = source.head(path)
        assert (remote.size, remote.etag) == (len(content), f'"{hashlib.sha256(content).hexdigest()}"')
        assert source.read(path, len(BIG)) == content
    buffer = memoryview(bytearray(1000))
    with source.open(Remote("weights/big.bin", len(BIG), ETAG), 5_000_000, 5_001_000) as body:
        read = b""
        while count := body.readinto(buffer):
            read += bytes(buffer[:count])
    assert read == BIG[5_000_000:5_001_000]
    source.close()


@pytest.mark.services
@pytest.mark.parametrize(
    ("headers", "status", "content"),
    [
        pytest.param({}, 200, BIG, id="whole"),
        pytest.param({"Range": "bytes=10-19"}, 206, BIG[10:20], id="range"),
        pytest.param({"Range": "bytes=10-19", "If-Range": ETAG, "If-Match": ETAG}, 206, BIG[10:20], id="the-same-file"),
        pytest.param({"Range": "bytes=10-19", "If-Range": '"other"'}, 200, BIG, id="if-range-of-another"),
        pytest.param({"Range": "bytes=10-19", "If-Match": '"other"'}, 412, None, id="if-match-of-another"),
        pytest.param({"Range": f"bytes={len(BIG)}-"}, 416, None, id="beyond"),
        pytest.param({"If-None-Match": ETAG}, 304, b"", id="not-modified"),
    ],
)
def test_ranges_and_conditions(agent: RunningAgent, headers: dict[str, str], status: int, content: bytes | None) -> None:
    answer = PlayedPod(agent.url).request("GET", where("weights/big.bin"), headers=headers)
    assert answer.status == status
    assert answer.headers["ETag"] == ETAG
    assert content is None or answer.data == content


@pytest.mark.services
@pytest.mark.parametrize(
    "path",
    [
        pytest.param("beside", id="not-in-the-manifest"),
        pytest.param("../manifest.json", id="upward"),
        pytest.param("%2e%2e/manifest.json", id="encoded-dots"),
        pytest.param("..%2fmanifest.json", id="encoded-slash"),
        pytest.param("weights/../config.json", id="there-and-back"),
        pytest.param("/etc/passwd", id="absolute"),
        pytest.param("%2fetc%2fpasswd", id="encoded-absolute"),
        pytest.param("weights", id="a-folder"),
        pytest.param("weights/", id="a-folder-with-slash"),
        pytest.param("config.json%00", id="zero"),
        pytest.param("config.json/", id="slash-behind"),
        pytest.param("%ff%fe", id="no-text"),
        pytest.param("", id="nothing"),
    ],
)
def test_what_is_no_path_of_the_manifest_is_not_there(agent: RunningAgent, path: str) -> None:
    assert status_of(agent.url, where(path)) == 404
    assert status_of(agent.url, where("config.json")) == 200


@pytest.mark.services
@pytest.mark.parametrize("tree", ["..", "%2e%2e", "x" * 32, "A" * 32, ".tmp-x", f"{NAME}%2f.."])
def test_what_is_no_name_of_a_tree_is_not_there(agent: RunningAgent, tree: str) -> None:
    assert status_of(agent.url, protocol.TREE.format(tree=tree)) == 404
    assert status_of(agent.url, protocol.FILE.format(tree=tree, path="config.json")) == 404


@pytest.mark.services
def test_a_tree_that_was_removed_is_not_there(agent: RunningAgent) -> None:
    pod = PlayedPod(agent.url)
    assert pod.request("GET", where("config.json")).status == 200
    store = agent.store("a")
    litter.bury(store, litter.take_away(store, store.tree(NAME), NAME) or store.root / "none")
    assert trees.find(store, NAME) is None
    assert pod.request("GET", where("config.json")).status == 404


async def test_a_file_that_is_opened_when_nobody_waits_any_more_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[BinaryIO] = []

    def slow(path: Path) -> BinaryIO:
        go_on.wait(60)
        made.append(opened(path))
        return made[0]

    (tmp_path / "file").write_bytes(b"x")
    go_on, opened = threading.Event(), sending._opened
    monkeypatch.setattr(sending, "_opened", slow)
    waiting = asyncio.create_task(sending._open(tmp_path / "file"))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    go_on.set()
    async with asyncio.timeout(60):
        while not (made and made[0].closed):
            await asyncio.sleep(0.01)


@pytest.mark.services
def test_a_head_tells_without_sending(agent: RunningAgent) -> None:
    answer = PlayedPod(agent.url).request("HEAD", where("weights/big.bin"))
    assert (answer.status, int(answer.headers["Content-Length"]), answer.data) == (200, len(BIG), b"")


@pytest.mark.parametrize(
    ("asked", "part"),
    [
        pytest.param("bytes=0-0", Part(206, 0, 1, 100), id="first"),
        pytest.param("bytes=90-", Part(206, 90, 100, 100), id="to-the-end"),
        pytest.param("bytes=90-500", Part(206, 90, 100, 100), id="beyond-the-end"),
        pytest.param("bytes=-5", Part(206, 95, 100, 100), id="last"),
        pytest.param("bytes=-500", Part(206, 0, 100, 100), id="more-than-all"),
        pytest.param("bytes=-0", Part(416, 0, 0, 100), id="last-none"),
        pytest.param("bytes=100-", Part(416, 0, 0, 100), id="behind-the-end"),
        pytest.param("bytes=5-4", Part(200, 0, 100, 100), id="backward"),
        pytest.param("bytes=0-1,3-4", Part(200, 0, 100, 100), id="several"),
        pytest.param("lines=0-1", Part(200, 0, 100, 100), id="other-unit"),
        pytest.param("bytes=٣-", Part(200, 0, 100, 100), id="other-digits"),
    ],
)
def test_a_range_is_read_as_it_is_meant(asked: str, part: Part) -> None:
    assert part_of({"Range": asked}, '"e"', 100) == part


def status_of(url: str, path: str) -> int:
    """As it stands: a client would tidy up the path."""
    with socket.create_connection((urlsplit(url).hostname or "", urlsplit(url).port or 0), timeout=60) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: agent\r\nAuthorization: Bearer token-a\r\nConnection: close\r\n\r\n".encode())
        return int(connection.recv(1 << 16).split()[1])
