"""`inference-cache agent` in a process of its own, with an API server that knows the tests' tokens, and all that it is sent on record.

with real_agent(tmp_path) as agent:
    ...  # point `--agent` at agent.url, with a token that is the name of a namespace
    assert secret not in agent.got
"""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web
from tests.artifacts.running_agent import NODE, OWN_TOKEN, FakeApi, event_loop, run
from tests.artifacts.tcp_proxy import TcpProxy, accepting

from inference_cache_artifacts.handover.protocol import HEALTH
from inference_cache_artifacts.store.layout import Store
from inference_cache_toolkit.processes import free_port, running, start

START_SECONDS = 60.0
TOKENS = {f"token-of-{each}": f"system:serviceaccount:{each.partition('/')[0]}:default" for each in ("llm", "llm/2", "other")}


class Record(TcpProxy):
    """Remembers what clients send."""

    def __init__(self, upstream: int) -> None:
        super().__init__(upstream)
        self.got: list[bytes] = []

    def _pump(self, source: socket.socket, sink: socket.socket, answering: bool) -> None:
        super()._pump(source if answering else _Tapped(source, self.got), sink, answering)  # type: ignore[arg-type]


class _Tapped:
    def __init__(self, source: socket.socket, got: list[bytes]) -> None:
        self._source = source
        self._got = got

    def recv_into(self, buffer: memoryview) -> int:
        count = self._source.recv_into(buffer)
        self._got.append(bytes(buffer[:count]))
        return count

    def shutdown(self, how: int) -> None:
        self._source.shutdown(how)


@dataclass
class RealAgent:
    folder: Path
    api: str
    port: int
    proxy: Record
    _stack: ExitStack = field(default_factory=ExitStack)
    _process: "subprocess.Popen[bytes] | None" = None

    @property
    def url(self) -> str:
        """Behind the record."""
        return f"http://127.0.0.1:{self.proxy.port}"

    @property
    def got(self) -> bytes:
        return b"".join(self.proxy.got)

    def store(self, namespace: str) -> Store:
        return Store(self.folder / "root" / namespace)

    def start(self) -> None:
        program: list[str | Path] = [
            sys.executable,
            "-m",
            "inference_cache_toolkit",
            "agent",
            "--root",
            self.folder / "root",
            "--node",
            NODE,
            # However full the machine's disk is, nothing is removed.
            "--high-water",
            "1",
        ]
        access: list[str | Path] = ["--api-server", self.api, "--token-file", self.folder / "agent-token"]
        child = start("agent", [*program, *access, "--listen", f"127.0.0.1:{self.port}"], self.folder / "agent.log")
        self._process = child.process
        self._stack.enter_context(running(child, f"http://127.0.0.1:{self.port}{HEALTH}", START_SECONDS))

    def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        assert self._process is not None
        os.kill(self._process.pid, number)
        self._process.wait(START_SECONDS)
        self._stack.close()


@contextmanager
def real_agent(folder: Path) -> Iterator[RealAgent]:
    (folder / "agent-token").write_text(OWN_TOKEN)
    port = free_port()
    with ExitStack() as stack:
        api = stack.enter_context(_api())
        proxy = Record(port)
        stack.enter_context(accepting(proxy))
        agent = RealAgent(folder, api, port, proxy)
        stack.callback(agent._stack.close)
        agent.start()
        yield agent


@contextmanager
def _api() -> Iterator[str]:
    runner = web.AppRunner(_app(FakeApi(tokens=TOKENS)), shutdown_timeout=0.1)
    with event_loop() as loop:
        run(loop, runner.setup())
        run(loop, web.TCPSite(runner, "127.0.0.1", 0).start())
        try:
            yield f"http://127.0.0.1:{runner.addresses[0][1]}"
        finally:
            run(loop, runner.cleanup())


def _app(api: FakeApi) -> web.Application:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", api.answer)
    return app
