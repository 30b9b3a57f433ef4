"""As much of S3 as a download needs, by sendfile and without looking at signatures: what the tools are limited by is then not the server.

python -m bench.artifacts.static_s3 FOLDER PORT

FOLDER has a folder for each bucket. COUNT tells how many other requests there were.
"""

import os
import re
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

COUNT: Final = "/-/requests"
RANGE: Final = re.compile(r"bytes=(\d+)-(\d*)")


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, folder: Path, port: int) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.folder = folder
        self._lock = threading.Lock()
        self.requests = 0

    def count(self) -> None:
        with self._lock:
            self.requests += 1

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients give connections up."""


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        if parts.path == COUNT:
            self._whole(str(self.server.requests).encode(), "text/plain")
            return
        self.server.count()
        bucket, _, key = unquote(parts.path).lstrip("/").partition("/")
        if key:
            self._file(self.server.folder / bucket / key)
        else:
            prefix = parse_qs(parts.query).get("prefix", [""])[0]
            self._whole(_listing(self.server.folder / bucket, prefix).encode(), "application/xml")

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the base class names it
        del format, args

    def _file(self, path: Path) -> None:
        try:
            file = path.open("rb")
        except OSError:
            self._head(404, {"Content-Length": "0"})
            return
        with file:
            about = os.fstat(file.fileno())
            etag = _etag(about)
            if self.headers.get("If-Match", etag) != etag:
                self._head(412, {"Content-Length": "0"})
                return
            asked = RANGE.fullmatch(self.headers.get("Range", ""))
            start = int(asked[1]) if asked else 0
            end = min(about.st_size, int(asked[2]) + 1) if asked and asked[2] else about.st_size
            more = {"Content-Range": f"bytes {start}-{end - 1}/{about.st_size}"} if asked else {}
            told = {"ETag": etag, "Accept-Ranges": "bytes", "Last-Modified": self.date_time_string(int(about.st_mtime))}
            self._head(206 if asked else 200, {"Content-Length": str(end - start), **told, **more})
            if self.command == "GET":
                self._send(file.fileno(), start, end)

    def _send(self, file: int, start: int, end: int) -> None:
        while start < end:
            sent = os.sendfile(self.connection.fileno(), file, start, end - start)
            if not sent:
                self.close_connection = True
                return
            start += sent

    def _whole(self, body: bytes, kind: str) -> None:
        self._head(200, {"Content-Length": str(len(body)), "Content-Type": kind})
        if self.command == "GET":
            self.wfile.write(body)
            self.wfile.flush()

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.flush()


def _etag(about: os.stat_result) -> str:
    return f'"{about.st_mtime_ns:x}-{about.st_size:x}"'


def _listing(bucket: Path, prefix: str) -> str:
    files = sorted(path for path in bucket.rglob("*") if path.is_file() and str(path.relative_to(bucket)).startswith(prefix))
    entries = "".join(_entry(str(path.relative_to(bucket)), path.stat()) for path in files)
    about = f"<Name>{escape(bucket.name)}</Name><Prefix>{escape(prefix)}</Prefix><KeyCount>{len(files)}</KeyCount><MaxKeys>1000</MaxKeys>"
    namespace = "http://s3.amazonaws.com/doc/2006-03-01/"
    return f'<?xml version="1.0"?><ListBucketResult xmlns="{namespace}">{about}<IsTruncated>false</IsTruncated>{entries}</ListBucketResult>'


def _entry(key: str, about: os.stat_result) -> str:
    told = f"<Key>{escape(key)}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>{escape(_etag(about))}</ETag>"
    return f"<Contents>{told}<Size>{about.st_size}</Size><StorageClass>STANDARD</StorageClass></Contents>"


if __name__ == "__main__":
    Server(Path(sys.argv[1]), int(sys.argv[2])).serve_forever()
