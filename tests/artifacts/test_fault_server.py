"""The servers that fail on demand: each fault is the one it says, and over when healed."""

import os
import socket
import threading
from http.client import HTTPConnection, IncompleteRead
from pathlib import Path

import pytest
from tests.artifacts.fault_server import FaultServer
from tests.artifacts.tcp_proxy import fault_proxy

CONTENT = os.urandom(9 << 20)


@pytest.fixture(autouse=True)
def _file(files: Path) -> None:
    (files / "a.bin").write_bytes(CONTENT)


def port(web: FaultServer) -> int:
    return int(web.url.rsplit(":", 1)[1].rstrip("/"))


def asked(at: int, headers: dict[str, str] | None = None) -> tuple[int, bytes]:
    """Status and all that came."""
    connection = HTTPConnection("127.0.0.1", at, timeout=60)
    try:
        connection.request("GET", "/a.bin", headers=headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read()
    except IncompleteRead as error:
        return 0, error.partial
    finally:
        connection.close()


def test_a_file_and_its_ranges_are_served_and_counted(web: FaultServer) -> None:
    assert asked(port(web)) == (200, CONTENT)
    assert asked(port(web), {"Range": "bytes=5-4999999"}) == (206, CONTENT[5:5_000_000])
    assert asked(port(web), {"Range": f"bytes={len(CONTENT)}-"})[0] == 416
    assert asked(port(web), {"Range": "bytes=5-9", "If-Match": '"another"'})[0] == 412
    assert asked(port(web), {"Range": "bytes=5-9", "If-Range": '"another"'}) == (200, CONTENT)
    assert web.sent == {"a.bin": len(CONTENT) * 2 + 5_000_000 - 5}


def test_answers_are_cut_until_healed(web: FaultServer) -> None:
    web.faults.cut_after = 3 << 20
    assert asked(port(web)) == (0, CONTENT[: 3 << 20])
    assert asked(port(web), {"Range": "bytes=10-20"}) == (206, CONTENT[10:21])
    web.heal()
    assert asked(port(web)) == (200, CONTENT)


def test_a_byte_is_turned_over(web: FaultServer) -> None:
    web.faults.flip["a.bin"] = 4_194_304
    _, got = asked(port(web))
    assert [place for place in range(4_194_300, 4_194_310) if got[place] != CONTENT[place]] == [4_194_304]
    assert got[:4_194_304] + got[4_194_305:] == CONTENT[:4_194_304] + CONTENT[4_194_305:]
    assert asked(port(web), {"Range": "bytes=4194305-4194400"}) == (206, CONTENT[4_194_305:4_194_401])


def test_requests_are_refused_by_count_and_by_share(web: FaultServer) -> None:
    web.faults.refuse_next = 2
    assert [asked(port(web))[0] for _ in range(3)] == [503, 503, 200]
    web.faults.refuse_share = 0.5
    assert {asked(port(web))[0] for _ in range(20)} == {503, 200}


def test_what_has_stalled_goes_on_when_healed_with_the_file_it_began(web: FaultServer) -> None:
    web.faults.stall_after = 100_000
    got: list[tuple[int, bytes]] = []
    reader = threading.Thread(target=lambda: got.append(asked(port(web))))
    with socket.create_connection(("127.0.0.1", port(web)), timeout=60) as other:
        other.sendall(b"GET /a.bin HTTP/1.1\r\nHost: here\r\n\r\n")
        other.recv(100)
        reader.start()
        while web.sent_bytes < 200_000:
            threading.Event().wait(0.01)
        web.swap("a.bin", b"new")
        web.heal()
        reader.join(60)
    assert got == [(200, CONTENT)]
    assert asked(port(web)) == (200, b"new")


def test_the_proxy_passes_on_cuts_and_refuses(web: FaultServer) -> None:
    with fault_proxy(port(web)) as proxy:
        assert asked(proxy.port) == (200, CONTENT)
        proxy.cut_after = 1 << 20
        status, got = asked(proxy.port)
        assert (status, CONTENT.startswith(got)) == (0, True)
        proxy.refusing = True
        with pytest.raises(OSError):  # noqa: PT011  reset, or closed without an answer
            asked(proxy.port)
        proxy.heal()
        assert asked(proxy.port) == (200, CONTENT)
        assert proxy.accepted == 4
