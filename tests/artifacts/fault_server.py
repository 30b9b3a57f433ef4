"""A web server of a folder that fails on demand.

    with fault_server(folder) as server:
        server.faults.cut_after = 3 << 20
        ...  # ask server.url + "model.bin"
        assert server.sent_bytes <= 1.05 * size

It serves ranges, If-Range and If-Match by strong ETags, with sendfile, a thread for each connection. Faults may be set at any time and
hold for the answers that begin after; `heal` ends them all. A file may be replaced (`swap`) while it is being sent: who reads goes on
reading the old one, and every later answer is of the new one.
"""

import contextlib
import os
import random
import re
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import unquote, urlsplit

PIECE_BYTES = 1 << 20
KEPT_BYTES = 256 << 10
READ_AT_ONCE = 64 << 10
"""More than `socket.sendfile` reads where the kernel's sendfile cannot be used."""
RANGE = re.compile(r"bytes=(\d+)-(\d*)")


@dataclass
class Faults:
    """All off at first."""

    cut_after: int | None = None
    """Bytes of each answer's body, then its connection ends."""
    stall_after: int | None = None
    """Bytes of each answer's body, then nothing more comes until `heal`."""
    refuse_next: int = 0
    """So many requests are answered `refuse_status`."""
    refuse_share: float = 0.0
    """Of all requests, by a fixed seed."""
    refuse_status: int = 503
    retry_after: str | None = None
    flip: dict[str, int] = field(default_factory=dict)
    """By path: the offset of a byte that is sent with its lowest bit turned over. The ETag stays."""
    redirect: bool = False
    """To signed URLs that are good for so many uses and seconds; 403 after. A query of the URL is not handed on."""
    redirect_uses: int | None = None
    redirect_seconds: float | None = None
    redirect_to: str | None = None
    """Every request goes there, with the path behind it."""
    no_ranges: bool = False
    no_head: bool = False
    no_length: bool = False
    etag: str | None = None
    """Of every file; "" sends none."""
    token: str | None = None
    """What `Authorization: Bearer` must carry."""
    query: str | None = None
    """What every URL must end in, but signed ones."""
    headers: dict[str, str] = field(default_factory=dict)
    """Added to every answer that is a file."""
    wrong_range: bool = False
    """Content-Range tells of a file that is one byte longer."""


@dataclass(frozen=True)
class Asked:
    method: str
    path: str
    """As it came, with its query."""
    headers: Mapping[str, str]
    """By names in lower case."""
    status: int


class FaultServer:
    """What a test sees of it."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.url = url
        """With a slash at the end."""
        self.faults = Faults()
        self.requests: list[Asked] = []
        """In the order of their answers' beginnings."""
        self.sent: Counter[str] = Counter()
        """Bytes of bodies by the file's path, without the slash before it."""
        self._lock = threading.Lock()
        self._random = random.Random(1)
        self._healed = threading.Event()
        self._signed: dict[str, tuple[int, float]] = {}

    @property
    def sent_bytes(self) -> int:
        return sum(self.sent.values())

    def heal(self) -> None:
        """End all faults, and let go on what has stalled."""
        self.faults = Faults()
        self._healed.set()
        self._healed = threading.Event()

    def forget(self) -> None:
        """Count from here."""
        with self._lock:
            self.requests.clear()
            self.sent.clear()

    def swap(self, path: str, content: bytes) -> None:
        """Another file under the name, at once."""
        new = self.folder / f"{path}.new"
        new.write_bytes(content)
        new.replace(self.folder / path)

    def count(self, path: str, sent: int) -> None:
        with self._lock:
            self.sent[path] += sent

    def refuses(self) -> bool:
        with self._lock:
            if self.faults.refuse_next > 0:
                self.faults.refuse_next -= 1
                return True
            return self._random.random() < self.faults.refuse_share

    def sign(self) -> str:
        """A name that opens a file until its time is over."""
        faults, token = self.faults, f"{self._random.getrandbits(64):016x}"
        uses = 1 << 30 if faults.redirect_uses is None else faults.redirect_uses
        with self._lock:
            self._signed[token] = (uses, time.monotonic() + (1e9 if faults.redirect_seconds is None else faults.redirect_seconds))
        return token

    def spend(self, token: str) -> bool:
        """Whether it was still good."""
        with self._lock:
            uses, until = self._signed.get(token, (0, 0.0))
            self._signed[token] = (uses - 1, until)
        return uses > 0 and time.monotonic() < until

    def run_out(self) -> None:
        """No URL that was signed till now is good any more."""
        with self._lock:
            self._signed.clear()

    def stalled(self) -> threading.Event:
        return self._healed


@contextmanager
def fault_server(folder: Path, tls: ssl.SSLContext | None = None) -> Iterator[FaultServer]:
    """Serves `folder` on a free port of this machine; with `tls`, by https."""
    with _Server(("127.0.0.1", 0), _Handler) as server:
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        server.state = FaultServer(folder, f"{'http' if tls is None else 'https'}://127.0.0.1:{server.server_address[1]}/")
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server.state
        finally:
            server.state.heal()
            server.shutdown()
            thread.join()
            server.end_connections()


class _Server(ThreadingHTTPServer):
    state: FaultServer
    daemon_threads = False
    block_on_close = True
    request_queue_size = 128

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._open: set[Any] = set()

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def end_connections(self) -> None:
        """Threads wait at connections that clients keep; `server_close` waits for the threads."""
        for each in list(self._open):
            with contextlib.suppress(OSError):
                each.shutdown(2)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients go away; that is what they are here for."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    gone = False
    """The client has left amid an answer."""

    def setup(self) -> None:
        """What is counted as sent has left this machine's memory, but for little."""
        self.request.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, KEPT_BYTES)
        super().setup()

    def do_GET(self) -> None:
        self._serve()

    def do_HEAD(self) -> None:
        self._serve()

    def log_message(self, *_: Any) -> None:
        pass

    def _serve(self) -> None:
        state, faults = self.server.state, self.server.state.faults
        parts = urlsplit(self.path)
        path = unquote(parts.path).lstrip("/")
        if state.refuses():
            self._plain(faults.refuse_status, {} if faults.retry_after is None else {"Retry-After": faults.retry_after})
        elif self.command == "HEAD" and faults.no_head:
            self._plain(403)
        elif path.startswith("signed/"):
            _, token, path = path.split("/", 2)
            self._file(path) if state.spend(token) else self._plain(403)
        elif faults.token is not None and self.headers.get("Authorization") != f"Bearer {faults.token}":
            self._plain(401)
        elif faults.query is not None and parts.query != faults.query:
            self._plain(403)
        elif faults.redirect_to is not None:
            self._plain(302, {"Location": faults.redirect_to + parts.path.lstrip("/")})
        elif faults.redirect:
            self._plain(302, {"Location": f"/signed/{state.sign()}{parts.path}"})
        else:
            self._file(path)

    def _plain(self, status: int, headers: Mapping[str, str] | None = None) -> None:
        self._head(status, {"Content-Length": "0", **(headers or {})})

    def _head(self, status: int, headers: Mapping[str, str]) -> None:
        asked = {name.lower(): value for name, value in self.headers.items()}
        self.server.state.requests.append(Asked(self.command, self.path, asked, status))
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.flush()

    def _file(self, path: str) -> None:
        try:
            file = (self.server.state.folder / path).open("rb")
        except OSError:
            self._plain(404)
            return
        with file:
            self._answer(path, file)

    def _answer(self, path: str, file: BinaryIO) -> None:
        faults, about = self.server.state.faults, os.fstat(file.fileno())
        etag = f'"{about.st_ino:x}-{about.st_mtime_ns:x}-{about.st_size:x}"' if faults.etag is None else faults.etag
        match = self.headers.get("If-Match")
        if match is not None and match != etag:
            self._plain(412)
            return
        start, end, status = self._range(about.st_size, etag)
        if start > end or (status == 206 and start >= about.st_size):
            self._plain(416, {"Content-Range": f"bytes */{about.st_size}"})
            return
        self._head(status, self._about(status, start, end, about.st_size, etag))
        if self.command == "GET":
            self._send(path, file, start, end)
        if faults.no_length:
            self.close_connection = True

    def _about(self, status: int, start: int, end: int, size: int, etag: str) -> dict[str, str]:
        faults = self.server.state.faults
        headers = {"Accept-Ranges": "bytes", **faults.headers}
        if faults.no_length:
            headers["Connection"] = "close"
        else:
            headers["Content-Length"] = str(end - start)
        if etag:
            headers["ETag"] = etag
        if status == 206:
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{size + faults.wrong_range}"
        return headers

    def _range(self, size: int, etag: str) -> tuple[int, int, int]:
        found = RANGE.fullmatch(self.headers.get("Range", ""))
        if found is None or self.server.state.faults.no_ranges or self.headers.get("If-Range", etag) != etag:
            return 0, size, 200
        return int(found[1]), min(size, int(found[2]) + 1 if found[2] else size), 206

    def _send(self, path: str, file: BinaryIO, start: int, end: int) -> None:
        """Up to what the faults let pass."""
        faults, healed = self.server.state.faults, self.server.state.stalled()
        limits = [start + each for each in (faults.cut_after, faults.stall_after) if each is not None]
        passed = min([end, *limits])
        self._pass(path, file, start, passed, faults.flip.get(path, -1))
        if passed == end:
            return
        if faults.cut_after is None or start + faults.cut_after > passed:
            healed.wait()
            self._pass(path, file, passed, end, faults.flip.get(path, -1))
        else:
            self.close_connection = True

    def _pass(self, path: str, file: BinaryIO, start: int, end: int, flipped: int) -> None:
        while start < end:
            wanted = min(PIECE_BYTES, end - start)
            # Before it goes out: who has the last byte may look at the count.
            self.server.state.count(path, wanted)
            sent = 0
            try:
                sent = self._piece(file, start, wanted, flipped)
            finally:
                self.server.state.count(path, sent - wanted)
            if not sent or self.gone:
                self.close_connection = True
                return
            start += sent

    def _piece(self, file: BinaryIO, start: int, wanted: int, flipped: int) -> int:
        """Bytes that went out, also where the client goes away amid them."""
        file.seek(start)
        if not start <= flipped < start + wanted and not isinstance(self.connection, ssl.SSLSocket):
            try:
                return self.connection.sendfile(file, start, wanted)
            except OSError:
                self.gone = True
                # What was read for a connection that is gone has not gone out.
                return 0 if file.tell() - start <= READ_AT_ONCE else file.tell() - start
        piece = bytearray(file.read(wanted))
        if start <= flipped < start + len(piece):
            piece[flipped - start] ^= 1
        self.connection.sendall(piece)
        return len(piece)
