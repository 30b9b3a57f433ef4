"""Stands between an API server and Services on a control plane without nodes, as kube-proxy would: what it dials, it dials through here.

So a webhook configuration that names Services works as it is, with its certificates' names.
"""

import json
import shutil
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from socketserver import StreamRequestHandler, ThreadingUnixStreamServer
from typing import Final

JOIN_SECONDS: Final = 60.0
CONNECT_SECONDS: Final = 20.0


@dataclass(slots=True)
class ServiceProxy:
    """`routes`: by `CLUSTER_IP:PORT`, the port of 127.0.0.1 that answers; may be changed while it runs."""

    address: Path
    """A Unix socket: over plain TCP the API server's own client would crash."""
    routes: dict[str, int] = field(default_factory=dict)

    def api_server_flag(self, folder: Path) -> str:
        """Makes the API server use it; its configuration is written into `folder`."""
        transport = {"uds": {"udsName": str(self.address)}}
        selection = {"name": "cluster", "connection": {"proxyProtocol": "HTTPConnect", "transport": transport}}
        kind = {"apiVersion": "apiserver.k8s.io/v1beta1", "kind": "EgressSelectorConfiguration"}
        file = folder / "egress.yaml"
        file.write_text(json.dumps({**kind, "egressSelections": [selection]}))
        return f"--egress-selector-config-file={file}"


@contextmanager
def service_proxy() -> Iterator[ServiceProxy]:
    """Listens; knows no Service yet."""
    # The path of a socket may not be long.
    with tempfile.TemporaryDirectory(prefix="ic-") as folder, _Server(f"{folder}/connect", _Connect) as server:
        server.proxy = ServiceProxy(Path(folder) / "connect")
        thread = threading.Thread(target=server.serve_forever, name="service-proxy")
        thread.start()
        try:
            yield server.proxy
        finally:
            server.shutdown()
            thread.join(JOIN_SECONDS)


class _Server(ThreadingUnixStreamServer):
    daemon_threads = True
    proxy: ServiceProxy


class _Connect(StreamRequestHandler):
    server: _Server

    def handle(self) -> None:
        """One tunnel."""
        words = self.rfile.readline().decode().split()
        while self.rfile.readline().strip():
            pass
        try:
            backend = socket.create_connection(("127.0.0.1", self.server.proxy.routes[words[1]]), CONNECT_SECONDS)
        except (OSError, LookupError):
            self.wfile.write(b"HTTP/1.1 502 Bad Gateway\r\n\r\n")
            return
        with backend:
            backend.settimeout(None)
            self.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
            back = threading.Thread(target=_pump, args=(backend, self.connection), daemon=True)
            back.start()
            _pump(self.connection, backend)
            back.join(JOIN_SECONDS)


def _pump(source: socket.socket, sink: socket.socket) -> None:
    """Until `source` ends; then `sink` is told."""
    with suppress(OSError), source.makefile("rb", buffering=0) as read, sink.makefile("wb", buffering=0) as write:
        shutil.copyfileobj(read, write)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
