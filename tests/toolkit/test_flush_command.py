"""`inference-cache flush` against the sidecar's own admin port, behind which these tests stand."""

import asyncio
import json
import os
import pty
import signal
import sys
from collections.abc import AsyncIterator
from io import StringIO

import pytest
from aiohttp import web

from inference_cache_sidecar.admin.app import build_admin
from inference_cache_sidecar.admin.services import AdminServices, FeedbackRequest, FeedbackResult, Status
from inference_cache_sidecar.exposition import registry
from inference_cache_sidecar.flush import FlushIncomplete, FlushRequest, FlushResult
from inference_cache_sidecar.metrics import Metrics
from inference_cache_sidecar.shared.purging import Purge
from inference_cache_sidecar.store.protocol import StoreStats
from inference_cache_toolkit.flush import ordering, progress
from inference_cache_toolkit.flush.command import main
from inference_cache_toolkit.processes import free_port

TOKEN = "flush-test-token"
KEY = "ab" * 32
STATS = StoreStats(0, 0, 0, 0, 0, 0, 0, 0, 0, 0)


class Sidecar:
    """What stands behind the admin port. A flush ends when `go_on` is set."""

    def __init__(self) -> None:
        self.asked: list[FlushRequest] = []
        self.failure: FlushIncomplete | None = None
        self.purge: Purge | None = None
        self.go_on = asyncio.Event()
        self.go_on.set()
        self.heard = asyncio.Event()
        self.looks = 0
        self.url = ""

    def status(self) -> Status:
        self.looks += 1
        return Status("llm/faq", "m", "v1", "Enabled", "Serve", b"", True, {}, "off", STATS, 1.0, self.purge, None)

    async def flush(self, request: FlushRequest, by: str) -> FlushResult:
        self.asked.append(request)
        self.heard.set()
        await self.go_on.wait()
        if self.failure is not None:
            raise self.failure
        if request.dry_run or request.target == "key":
            return FlushResult(1234, None)
        return FlushResult(None if request.background else 1234, 42, 0.01)

    async def feedback(self, request: FeedbackRequest) -> FeedbackResult | None:
        return None


async def serve(app: web.Application) -> AsyncIterator[str]:
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


@pytest.fixture
async def sidecar(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Sidecar]:
    monkeypatch.setenv("INFERENCE_CACHE_ADMIN_TOKEN", TOKEN)
    monkeypatch.setattr(ordering, "POLL_SECONDS", 0.01)
    made = Sidecar()
    services = AdminServices(made.status, list, made.flush, made.feedback, registry(Metrics(), lambda: STATS))
    async for url in serve(build_admin(services, TOKEN)):
        made.url = url
        yield made


async def run(*arguments: str) -> int:
    """In a thread: the command has an event loop of its own."""
    return await asyncio.to_thread(main, arguments)


@pytest.mark.parametrize(
    ("flags", "request_", "said"),
    [
        pytest.param(["--all"], FlushRequest("all"), "flushed 1,234 answers; no replica serves them any more\n", id="all"),
        pytest.param(["--version", "v1"], FlushRequest("version", "v1"), "flushed 1,234 answers; no replica", id="version"),
        pytest.param(["--tag", "user:7"], FlushRequest("tag", "user:7"), "flushed 1,234 answers; no replica", id="tag"),
        pytest.param(["--category", "c"], FlushRequest("category", "c"), "flushed 1,234 answers; no replica", id="category"),
        pytest.param(["--adapter", "lora"], FlushRequest("adapter", "lora"), "flushed 1,234 answers; no replica", id="adapter"),
        pytest.param(["--key", KEY], FlushRequest("key", KEY), "flushed 1,234 answers\n", id="key"),
        pytest.param(["--all", "--dry-run"], FlushRequest("all", dry_run=True), "would flush 1,234 answers\n", id="dry-run"),
        pytest.param(
            ["--tag", "a", "--background"], FlushRequest("tag", "a", background=True), "their bytes are being deleted\n", id="background"
        ),
    ],
)
async def test_what_is_asked_for_is_ordered_and_its_outcome_said(
    sidecar: Sidecar, capsys: pytest.CaptureFixture[str], flags: list[str], request_: FlushRequest, said: str
) -> None:
    assert await run(*flags, "--yes", "--admin", sidecar.url) == 0
    assert sidecar.asked == [request_]
    assert said in capsys.readouterr().out


async def test_json_is_the_sidecars_own_answer(sidecar: Sidecar, capsys: pytest.CaptureFixture[str]) -> None:
    assert await run("--tag", "a", "--json", "--admin", sidecar.url + "/") == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out) == {"flushed": 1234, "epoch": 42, "acknowledged": True}
    assert printed.err == ""


async def test_progress_is_shown_until_the_answer_comes(
    sidecar: Sidecar, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    sidecar.go_on.clear()
    sidecar.purge = Purge("tag", scanned=123_400, deleted=5_600)
    flushing = asyncio.create_task(run("--tag", "a", "--admin", sidecar.url))
    async with asyncio.timeout(30):
        while sidecar.looks < 3:
            await asyncio.sleep(0.01)
        sidecar.purge.done = True
        seen = sidecar.looks
        while sidecar.looks < seen + 3:
            await asyncio.sleep(0.01)
    sidecar.go_on.set()
    assert await flushing == 0
    printed = capsys.readouterr()
    assert "deleting by tag: 123,400 keys seen, 5,600 deleted\n" in printed.err
    assert "waiting for the sidecar\n" in printed.err, "a purge that is done is an earlier one"
    assert printed.out == "flushed 1,234 answers; no replica serves them any more\n"


async def test_on_a_terminal_progress_moves_and_leaves_nothing_behind(sidecar: Sidecar) -> None:
    sidecar.go_on.clear()
    sidecar.purge = Purge("version:[red]v1", scanned=123_400, deleted=5_600)
    ours, theirs = pty.openpty()
    child = await start(sidecar.url, stderr=theirs)
    os.close(theirs)
    seen = b""
    async with asyncio.timeout(60):
        while b"123,400 keys seen" not in seen:
            seen += await asyncio.to_thread(os.read, ours, 4096)
    assert b"[red]v1" in seen
    sidecar.go_on.set()
    out, _ = await child.communicate()
    os.close(ours)
    assert (child.returncode, out) == (0, b"flushed 1,234 answers; no replica serves them any more\n")


async def test_an_interrupt_ends_it_without_a_traceback(sidecar: Sidecar) -> None:
    sidecar.go_on.clear()
    child = await start(sidecar.url, stderr=asyncio.subprocess.PIPE)
    async with asyncio.timeout(60):
        await sidecar.heard.wait()
    child.send_signal(signal.SIGINT)
    _, said = await child.communicate()
    assert child.returncode == 130
    assert said == b"inference-cache flush: interrupted; what the sidecar has heard of goes on\n"
    sidecar.go_on.set()


async def start(url: str, stderr: int) -> asyncio.subprocess.Process:
    command = (sys.executable, "-m", "inference_cache_toolkit", "flush", "--all", "--admin", url)
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    pipe, nothing = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
    return await asyncio.create_subprocess_exec(*command, stdin=nothing, stdout=pipe, stderr=stderr, env=environment)


@pytest.mark.parametrize("as_json", [False, True], ids=["text", "json"])
async def test_a_flush_that_is_not_acknowledged_fails_and_says_why(
    sidecar: Sidecar, capsys: pytest.CaptureFixture[str], as_json: bool
) -> None:
    sidecar.failure = FlushIncomplete("in force on this replica alone", 42)
    assert await run("--tag", "a", "--admin", sidecar.url, *(["--json"] if as_json else [])) == 1
    printed = capsys.readouterr()
    assert printed.err == "inference-cache flush: in force on this replica alone\n"
    assert printed.out == "" if not as_json else json.loads(printed.out)["acknowledged"] is False


async def test_a_wrong_token_fails(sidecar: Sidecar, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFERENCE_CACHE_ADMIN_TOKEN", "another-token")
    assert await run("--tag", "a", "--admin", sidecar.url) == 1
    said = capsys.readouterr().err
    assert "this needs the admin token" in said
    assert "another-token" not in said
    assert sidecar.asked == []


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_sidecar_that_is_not_there_fails_on_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    monkeypatch.setenv("INFERENCE_CACHE_ADMIN_TOKEN", TOKEN)
    url = f"{scheme}://127.0.0.1:{free_port()}"
    assert await run("--tag", "a", "--admin", url) == 1
    assert capsys.readouterr().err == f"inference-cache flush: {url} cannot be reached: Connection refused\n"


@pytest.mark.parametrize("url", ["http://127.0.0.1:99999", "http://[", "http://name.invalid:1"])
async def test_an_address_that_leads_nowhere_fails_on_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("INFERENCE_CACHE_ADMIN_TOKEN", TOKEN)
    assert await run("--tag", "a", "--admin", url) == 1
    said = capsys.readouterr().err
    assert said.startswith("inference-cache flush: http://")
    assert said.count("\n") == 1


async def test_another_server_than_a_sidecar_is_told_apart(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFERENCE_CACHE_ADMIN_TOKEN", TOKEN)
    async for url in serve(web.Application()):
        assert await run("--tag", "a", "--admin", url) == 1
        assert "status 404 and no JSON: is this a sidecar's admin port?" in capsys.readouterr().err


async def test_a_sidecar_that_falls_silent_is_given_up(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFERENCE_CACHE_ADMIN_TOKEN", TOKEN)
    monkeypatch.setattr(ordering, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(ordering, "SILENT_SECONDS", 0.0)

    async def hang(_: web.Request) -> web.Response:
        await asyncio.Event().wait()
        raise AssertionError

    app = web.Application()
    app.router.add_post("/flush", hang)
    async for url in serve(app):
        assert await run("--tag", "a", "--admin", url) == 1
        assert capsys.readouterr().err == "inference-cache flush: the sidecar has not told its status for 0 s\n"


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("typed", "flags", "status", "asks"),
    [
        pytest.param("y\n", ["--all"], 0, True, id="yes"),
        pytest.param("n\n", ["--all"], 1, True, id="no"),
        pytest.param("\n", ["--all"], 1, True, id="nothing-typed"),
        pytest.param("", ["--all"], 1, True, id="end-of-input"),
        pytest.param("", ["--all", "--yes"], 0, False, id="told-not-to-ask"),
        pytest.param("", ["--all", "--dry-run"], 0, False, id="dry-run"),
        pytest.param("", ["--tag", "a"], 0, False, id="a-tag"),
    ],
)
async def test_before_everything_is_flushed_a_person_is_asked(
    sidecar: Sidecar,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    typed: str,
    flags: list[str],
    status: int,
    asks: bool,
) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal(typed))
    assert await run(*flags, "--admin", sidecar.url) == status
    assert len(sidecar.asked) == (status == 0)
    assert ("every answer of the cache llm/faq, on all replicas? [y/N]" in capsys.readouterr().err) is asks


@pytest.mark.parametrize(
    ("flags", "names"),
    [
        pytest.param([], "--all", id="nothing-named"),
        pytest.param(["--all", "--tag", "a"], "not allowed with", id="two-named"),
        pytest.param(["--al"], "--all", id="abbreviated"),
        pytest.param(["--key", "abc"], "--key", id="no-key"),
        pytest.param(["--all", "--admin", "127.0.0.1:9180"], "--admin", id="no-url"),
        pytest.param(["--all", "--admin", "http://"], "--admin", id="no-host"),
        pytest.param(["--all", "--dry-run", "--background"], "--background", id="dry-run-in-the-background"),
        pytest.param(["--all", "--token", "x"], "--token", id="a-token-is-no-flag"),
    ],
)
def test_a_wrong_use_is_refused(flags: list[str], names: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFERENCE_CACHE_ADMIN_TOKEN", TOKEN)
    with pytest.raises(SystemExit) as ended:
        main(flags)
    assert ended.value.code == 2
    assert names in capsys.readouterr().err


@pytest.mark.parametrize("token", [None, " ", "two words", "line\nbreak", "ümlaut"])
def test_without_a_usable_token_nothing_is_tried(
    token: str | None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("INFERENCE_CACHE_ADMIN_TOKEN", raising=False)
    if token is not None:
        monkeypatch.setenv("INFERENCE_CACHE_ADMIN_TOKEN", token)
    with pytest.raises(SystemExit) as ended:
        main(["--all"])
    assert ended.value.code == 2
    assert "INFERENCE_CACHE_ADMIN_TOKEN must hold the sidecar's admin token" in capsys.readouterr().err


async def test_without_rich_progress_comes_in_lines(
    sidecar: Sidecar, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setitem(sys.modules, "rich", None)
    with progress.shown(quiet=False) as show:
        show(None)
    assert await run("--tag", "a", "--admin", sidecar.url) == 0
