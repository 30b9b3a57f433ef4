"""A watch that is dead without an error: its connection stays open and nothing comes."""

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from tests.cluster.control_plane import ControlPlane
from tests.cluster.servers import until
from tests.cluster.webhook_processes import SECONDS, installed, is_injected, vllm_pod

pytestmark = [pytest.mark.services, pytest.mark.slow]


@dataclass(slots=True)
class FreezingProxy:
    """Passes bytes on; `freeze` stops all connections that are open, and none that comes later."""

    upstream: int
    port: int = 0
    _links: list["_Link"] = field(default_factory=list)

    def freeze(self) -> None:
        for link in self._links:
            link.frozen = True

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = _Link()
        self._links.append(link)
        answers, asked = await asyncio.open_connection("127.0.0.1", self.upstream)
        pumps = [asyncio.create_task(link.pump(reader, asked)), asyncio.create_task(link.pump(answers, writer))]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in pumps:
                each.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            for end in (writer, asked):
                end.close()
                with suppress(OSError):
                    await end.wait_closed()


@dataclass(slots=True)
class _Link:
    frozen: bool = False

    async def pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(65536):
            if self.frozen:
                await asyncio.Event().wait()
            writer.write(piece)
            await writer.drain()


@contextmanager
def freezing_proxy(upstream: int) -> Iterator[FreezingProxy]:
    proxy, ending, started = FreezingProxy(upstream), threading.Event(), threading.Event()

    async def serve() -> None:
        server = await asyncio.start_server(proxy.accept, "127.0.0.1", 0)
        proxy.port = server.sockets[0].getsockname()[1]
        started.set()
        while not ending.is_set():
            await asyncio.sleep(0.05)
        server.close()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), name="freezing proxy")
    thread.start()
    try:
        assert started.wait(SECONDS)
        yield proxy
    finally:
        ending.set()
        thread.join(SECONDS)


def test_a_dead_watch_is_seen_and_pods_are_injected_meanwhile(control_plane: ControlPlane, namespace: str, tmp_path: Path) -> None:
    upstream = urlsplit(control_plane.url).port
    assert upstream is not None
    with (
        freezing_proxy(upstream) as proxy,
        installed(control_plane, namespace, tmp_path, replicas=1, freshness_every=1.0, stale_after=3.0, list_deadline=2.0) as install,
    ):
        webhook = install.webhooks[0]
        by_proxy(webhook.server.command[1], proxy.port, tmp_path / "by-proxy.kubeconfig", webhook.server.command)
        webhook.server.kill()
        webhook.server.start()
        webhook.server.wait(webhook.is_ready, SECONDS)
        until(lambda: webhook.answers("/livez") == (200, "ok\n"), "the watch to be seen alive", SECONDS)
        proxy.freeze()
        install.create_cache()
        until(lambda: says_dead(*webhook.answers("/livez")), "the dead watch to be seen", SECONDS)
        until(lambda: is_injected(install.create_pod(vllm_pod(), dry_run=True)), "injection by reading live", SECONDS)


def says_dead(status: int, text: str) -> bool:
    return status == 503 and "the watch of InferenceCaches has missed a change" in text


def by_proxy(setting: str | Path, port: int, file: Path, command: object) -> None:
    """The same kubeconfig with the proxy's port, in the process's command."""
    name, _, path = str(setting).partition("=")
    kubeconfig = json.loads(Path(path).read_text())
    kubeconfig["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{port}"
    file.write_text(json.dumps(kubeconfig))
    assert isinstance(command, list)
    command[1] = f"{name}={file}"
