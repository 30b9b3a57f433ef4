"""A TCP proxy that fails on demand, of threads, for tests that are no coroutines. It knows nothing of what passes.

with fault_proxy(port) as proxy:
    proxy.cut_after = 3 << 20
    ...  # ask 127.0.0.1:proxy.port
"""

import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

PIECE_BYTES = 256 << 10
HOST = "127.0.0.1"


class TcpProxy:
    """In front of a port of this machine. Faults hold from the next piece on."""

    def __init__(self, upstream: int) -> None:
        self.cut_after: int | None = None
        """Bytes from the server on a connection, then both its ends are closed."""
        self.refusing = False
        """Close what connects, and what is open with its next piece."""
        self.accepted = 0
        self.answered_bytes = 0
        """From the server, passed on."""
        self._upstream = upstream
        self._flowing = threading.Event()
        self._flowing.set()
        self._sockets: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._listener = socket.create_server((HOST, 0), backlog=128)
        self.port: int = self._listener.getsockname()[1]

    def stall(self) -> None:
        """Pass nothing on until `heal`."""
        self._flowing.clear()

    def heal(self) -> None:
        self.cut_after, self.refusing = None, False
        self._flowing.set()

    def accept(self) -> None:
        """Until `close`."""
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.accepted += 1
            self._link(client)

    def close(self) -> None:
        self.heal()
        # A thread that waits in accept is not woken by close.
        for each in [self._listener, *self._sockets]:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join()

    def _link(self, client: socket.socket) -> None:
        try:
            if self.refusing:
                raise OSError
            server = socket.create_connection((HOST, self._upstream))
        except OSError:
            client.close()
            return
        with self._lock:
            self._sockets |= {client, server}
        both = threading.Thread(target=self._both, args=(client, server))
        self._threads.append(both)
        both.start()

    def _both(self, client: socket.socket, server: socket.socket) -> None:
        asking = threading.Thread(target=self._pump, args=(client, server, False))
        asking.start()
        self._pump(server, client, True)
        asking.join()
        with self._lock:
            self._sockets -= {client, server}
        client.close()
        server.close()

    def _pump(self, source: socket.socket, sink: socket.socket, answering: bool) -> None:
        passed, buffer = 0, memoryview(bytearray(PIECE_BYTES))
        with contextlib.suppress(OSError):
            while count := source.recv_into(buffer):
                self._flowing.wait()
                left = count if self.cut_after is None or not answering else min(count, self.cut_after - passed)
                if left <= 0 or self.refusing:
                    break
                sink.sendall(buffer[:left])
                passed += left
                if answering:
                    self.answered_bytes += left
        for each in (source, sink):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


@contextmanager
def fault_proxy(upstream: int) -> Iterator[TcpProxy]:
    """Passes everything on, until told otherwise."""
    proxy = TcpProxy(upstream)
    with accepting(proxy):
        yield proxy


@contextmanager
def accepting(proxy: TcpProxy) -> Iterator[None]:
    """Connections, in a thread."""
    thread = threading.Thread(target=proxy.accept)
    thread.start()
    try:
        yield
    finally:
        proxy.close()
        thread.join()
