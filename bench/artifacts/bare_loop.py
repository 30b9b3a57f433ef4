"""What verified files cost at least on this machine: receive, SHA-256, write past the page cache, by one thread, and nothing else.

python -m bench.artifacts.bare_loop SUMS FOLDER URL

No requests in parallel, no second try, no journal, nothing published. SUMS has lines as `sha256sum` writes them.
"""

import hashlib
import mmap
import os
import socket
import sys
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

BLOCK_BYTES = 512 << 10


def main(sums: str, folder: str, url: str) -> int:
    address = urlsplit(url)
    connection = HTTPConnection(address.hostname or "", address.port)
    block = memoryview(mmap.mmap(-1, BLOCK_BYTES))
    wrong = 0
    for line in Path(sums).read_text().splitlines():
        sha256, name = line.split("  ", 1)
        wrong += _fetched(connection, address.path + name, Path(folder, name), block) != sha256
    return int(wrong > 0)


def _fetched(connection: HTTPConnection, path: str, target: Path, block: memoryview) -> str:
    connection.request("GET", path)
    answer = connection.getresponse()
    size, received, digest = int(answer.headers["Content-Length"]), 0, hashlib.sha256()
    direct = os.O_DIRECT if _is_on_a_disk(target.parent) else 0
    sink = os.open(target, os.O_WRONLY | os.O_CREAT | direct, 0o644)
    head = answer.read1(BLOCK_BYTES)  # What came with the answer's head; from then on the socket is read.
    while received < size:
        wanted = min(BLOCK_BYTES, size - received)
        block[: len(head)] = head
        if wanted > len(head):
            connection.sock.recv_into(block[len(head) :], wanted - len(head), socket.MSG_WAITALL)
        digest.update(block[:wanted])
        os.pwrite(sink, block[:wanted], received)
        received, head = received + wanted, b""
    answer.close()
    os.close(sink)
    return digest.hexdigest()


def _is_on_a_disk(folder: Path) -> bool:
    device = folder.stat().st_dev
    return Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}").exists()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
