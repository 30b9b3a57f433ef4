"""`inference-cache fetch` and `inference-cache manifest` as people and pods call them."""

import hashlib
import json
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests.artifacts.fault_server import FaultServer
from tests.artifacts.fetched import manifest, model, put
from tests.artifacts.seaweedfs import SeaweedFS

from inference_cache_artifacts import manifest_command
from inference_cache_artifacts.command import main
from inference_cache_artifacts.ending import TERMINATION_MESSAGE_BYTES, termination_text
from inference_cache_artifacts.errors import ArtifactError, Corrupt, Unreachable
from inference_cache_artifacts.manifest import FILE_NAME
from inference_cache_artifacts.progress import Outcome, Progress
from inference_cache_artifacts.request import Limits, Request
from inference_cache_artifacts.store import using
from inference_cache_artifacts.store.layout import Store
from inference_cache_artifacts.store.trees import Tree

FILES = {"config.json": b"{}", "weights/a.bin": b"a" * 1000}
URL = "s3://bucket/model/"
WAIT_SECONDS = 120


@dataclass
class Fetch:
    """A fake: publishes the same files for every request, or raises."""

    failure: BaseException | None = None
    requests: list[Request] = field(default_factory=list)
    stores: list[Store] = field(default_factory=list)

    def __call__(self, request: Request, store: Store, progress: Progress) -> Tree:
        self.requests.append(request)
        self.stores.append(store)
        progress.planned(2, 1002, 0)
        if self.failure is not None:
            raise self.failure
        progress.received(1002)
        return published(store, request.tree_name)


def published(store: Store, name: str) -> Tree:
    store.prepare()
    files, made = store.tree(name) / "files", manifest(FILES)
    if not files.exists():
        put(files, FILES, with_manifest=False)
        head = json.dumps({"digest": made.digest, "size": made.size, "count": 2, "sources": []})
        (files.parent / "manifest.json").write_text(f"{head[:-1]},\n{made.text()[1:]}")
    return Tree(name, files, made.digest, made.size, 2, ())


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "models" / "llama"


@pytest.fixture
def run(target: Path) -> Callable[..., int]:
    """The command, with a fake for what fetches."""

    def run(*arguments: object, fetch: Fetch | None = None) -> int:
        return main([str(each) for each in (*arguments, "--to", target)], fetch or Fetch())

    return run


def test_the_folder_becomes_a_link_to_the_files(run: Callable[..., int], target: Path) -> None:
    assert run(URL, "--version", "v1") == 0
    assert (target / "weights" / "a.bin").read_bytes() == FILES["weights/a.bin"]
    assert not Path(target.readlink()).is_absolute()


def test_the_link_holds_where_the_volume_is_mounted_elsewhere(run: Callable[..., int], target: Path, tmp_path: Path) -> None:
    run(URL)
    target.parent.rename(tmp_path / "mounted")
    assert (tmp_path / "mounted" / "llama" / "config.json").read_bytes() == b"{}"


def test_another_version_takes_the_place_of_the_first_and_lets_go_of_it(run: Callable[..., int], target: Path) -> None:
    fetch = Fetch()
    assert run(URL, "--version", "v1", fetch=fetch) == 0
    first = target.resolve()
    assert run(URL, "--version", "v2", fetch=fetch) == 0
    assert target.resolve() != first
    store, (one, other) = fetch.stores[0], (each.tree_name for each in fetch.requests)
    assert using.users(store, one) == frozenset()
    assert len(using.users(store, other)) == 1
    assert one in fetch.requests[1].keep


def test_the_tree_of_a_folder_that_is_gone_is_nobodys_after_the_next_fetch(run: Callable[..., int], target: Path) -> None:
    fetch = Fetch()
    run(URL, "--version", "v1", fetch=fetch)
    target.unlink()
    assert main([URL, "--version", "v2", "--to", str(target.with_name("other"))], fetch) == 0
    assert [len(using.users(fetch.stores[0], each.tree_name)) for each in fetch.requests] == [0, 1]


def test_two_folders_hold_a_tree_each(run: Callable[..., int], target: Path) -> None:
    fetch = Fetch()
    run(URL, "--version", "v1", fetch=fetch)
    main([URL, "--version", "v2", "--to", str(target.with_name("other"))], fetch)
    assert [len(using.users(fetch.stores[0], each.tree_name)) for each in fetch.requests] == [1, 1]


def test_a_store_may_lie_elsewhere(run: Callable[..., int], target: Path, tmp_path: Path) -> None:
    fetch = Fetch()
    assert run(URL, "--store", tmp_path / "store", fetch=fetch) == 0
    assert fetch.stores == [Store(tmp_path / "store")]
    assert target.resolve().is_relative_to(tmp_path / "store")
    assert len(using.users(fetch.stores[0], fetch.requests[0].tree_name)) == 1


def test_an_empty_folder_is_replaced_and_one_with_files_is_not(
    run: Callable[..., int], target: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target.mkdir(parents=True)
    assert run(URL) == 0
    target.unlink()
    target.mkdir()
    (target / "mine").write_text("x")
    assert run(URL) == 2
    assert "was not made by this command" in capsys.readouterr().err
    assert (target / "mine").read_text() == "x"


def test_somebodys_own_link_is_left_alone(run: Callable[..., int], target: Path, tmp_path: Path) -> None:
    target.parent.mkdir()
    target.symlink_to(tmp_path)
    assert run(URL) == 2
    assert target.readlink() == tmp_path


def test_flags_become_a_request(run: Callable[..., int], tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    (secret / "..data").mkdir(parents=True)
    (secret / "AWS_ACCESS_KEY_ID").write_text("id")
    (secret / "AWS_SECRET_ACCESS_KEY").write_text("key\n")
    fetch = Fetch()
    limits = ("--limit-rate", "200Mi", "--connections", "8", "--reserve", "1Gi", "--timeout", "30m")
    other = ("--keep", "a", "--keep", "b", "--verify", "None", "--manifest-sha256", "AB" * 32, "--credentials-dir", secret)
    assert run(URL, "https://cdn.example/model", *limits, *other, fetch=fetch) == 0
    request = fetch.requests[0]
    assert request.sources == (URL, "https://cdn.example/model")
    assert request.limits == Limits(200 << 20, 8, 1 << 30, 1800)
    assert (request.keep, request.verify, request.manifest_sha256) == ({"a", "b"}, False, "ab" * 32)
    assert dict(request.options.credentials) == {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "key\n"}


def test_a_manifest_may_be_given(run: Callable[..., int], tmp_path: Path) -> None:
    given, fetch = manifest(FILES), Fetch()
    (tmp_path / "m.json").write_text(given.text())
    assert run(URL, "--manifest", tmp_path / "m.json", fetch=fetch) == 0
    assert fetch.requests[0].manifest == given
    assert fetch.requests[0].pin == given.digest


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        pytest.param([], "SOURCE is required", id="no-source"),
        pytest.param([URL, "--limit-rate", "fast"], "--limit-rate: 'fast' is no number of bytes", id="rate"),
        pytest.param([URL, "--limit-rate", "0"], "--limit-rate: '0' is too little", id="rate-of-nothing"),
        pytest.param([URL, "--timeout", "5"], "--timeout: '5' is no duration", id="timeout-without-unit"),
        pytest.param([URL, "--connections", "0"], "--connections: '0' is not a number from 1", id="no-connections"),
        pytest.param([URL, "--manifest-sha256", "abc"], "--manifest-sha256: not 64 hexadecimal digits", id="short-digest"),
        pytest.param([URL, "--verify", "Maybe"], "--verify", id="verify"),
        pytest.param([URL, "--json", "--quiet"], "not allowed with", id="json-and-quiet"),
        pytest.param([URL, "--vers", "1"], "unrecognized arguments", id="abbreviated"),
    ],
)
def test_wrong_usage_names_the_flag(run: Callable[..., int], arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run(*arguments)
    assert ended.value.code == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flag", "content", "told"),
    [
        pytest.param("--manifest", b"{", "BadManifest: ", id="manifest-is-no-json"),
        pytest.param("--manifest", None, "cannot be read: No such file", id="no-manifest"),
        pytest.param("--credentials-dir", None, "--credentials-dir", id="no-secret"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(
    run: Callable[..., int], tmp_path: Path, flag: str, content: bytes | None, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        (tmp_path / "given").write_bytes(content)
    assert run(URL, flag, tmp_path / "given") in {1, 2}
    error = capsys.readouterr().err
    assert told in error
    assert str(tmp_path / "given") in error


FAILURES = [
    pytest.param(Corrupt("weights/a.bin: other bytes", "weights/a.bin"), "Corrupt: weights/a.bin: other bytes", id="file-in-the-message"),
    pytest.param(Corrupt("other bytes", "weights/a.bin"), "Corrupt: weights/a.bin: other bytes", id="file-beside-the-message"),
    pytest.param(Unreachable("s3://bucket/: nobody there"), "Unreachable: s3://bucket/: nobody there", id="no-file"),
    pytest.param(
        ModuleNotFoundError("no boto3", name="boto3.session"),
        "PackageMissing: the package boto3.session is missing: pip install 'inference-cache[artifacts]'",
        id="package",
    ),
]


@pytest.mark.parametrize(("failure", "told"), FAILURES)
def test_a_failure_is_one_line(
    run: Callable[..., int], target: Path, failure: Exception, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(URL, "--quiet", fetch=Fetch(failure)) == 1
    assert capsys.readouterr().err == f"inference-cache fetch: {told}\n"
    assert not target.exists()


def test_a_failure_leaves_the_former_version(run: Callable[..., int], target: Path) -> None:
    run(URL, "--version", "v1")
    before = target.readlink()
    assert run(URL, "--version", "v2", fetch=Fetch(Corrupt("x"))) == 1
    assert target.readlink() == before


def test_the_pod_is_told_why(run: Callable[..., int], tmp_path: Path) -> None:
    log = tmp_path / "termination-log"
    assert run(URL, "--termination-message", log, fetch=Fetch(Corrupt("a.bin: other bytes", "a.bin"))) == 1
    assert json.loads(log.read_text()) == {"reason": "Corrupt", "file": "a.bin", "message": "a.bin: other bytes"}


def test_the_pod_is_told_of_a_fault_of_ours_as_well(run: Callable[..., int], tmp_path: Path) -> None:
    log = tmp_path / "termination-log"
    with pytest.raises(ZeroDivisionError):
        run(URL, "--termination-message", log, fetch=Fetch(ZeroDivisionError("of a value that is nobody's business")))
    told = json.loads(log.read_text())
    assert told == {"reason": "Failed", "file": None, "message": "inference-cache has a fault (ZeroDivisionError); the log has more"}


def test_a_termination_message_that_cannot_be_written_is_only_a_warning(
    run: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(URL, "--termination-message", tmp_path / "no" / "log", fetch=Fetch(Corrupt("other bytes"))) == 1
    assert "warning: --termination-message" in capsys.readouterr().err


@pytest.mark.parametrize("character", ["a", "ä", '"', "\x01", "日"])
def test_what_kubernetes_reads_is_short_and_whole(character: str) -> None:
    text = termination_text(Outcome("Corrupt", character * 300, character * 100_000))
    assert len(text) <= TERMINATION_MESSAGE_BYTES
    told = json.loads(text)
    assert told["reason"] == "Corrupt"
    assert told["message"].endswith("…")


def test_json_ends_with_how_it_went(run: Callable[..., int], target: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fetch = Fetch()
    assert run(URL, "--json", fetch=fetch) == 0
    done = last_line(capsys)
    assert (done["event"], done["bytes"], done["tree"], done["path"]) == ("done", 1002, fetch.requests[0].tree_name, str(target))
    assert run(URL, "--json", fetch=Fetch(Corrupt("other", "a"))) == 1
    assert {"event": "failed", "reason": "Corrupt", "file": "a", "message": "other"}.items() <= last_line(capsys).items()


def last_line(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return read


def test_quiet_says_nothing(run: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(URL, "--quiet") == 0
    assert capsys.readouterr() == ("", "")


def test_the_progress_file_says_how_it_went(run: Callable[..., int], tmp_path: Path) -> None:
    run(URL, "--progress-file", tmp_path / "progress.json")
    assert json.loads((tmp_path / "progress.json").read_text())["event"] == "done"


def test_a_tree_that_is_taken_away_at_once_is_fetched_again(run: Callable[..., int], target: Path) -> None:
    class Elusive(Fetch):
        def __call__(self, request: Request, store: Store, progress: Progress) -> Tree:
            tree = super().__call__(request, store, progress)
            if len(self.requests) == 1:
                (tree.files.parent / "manifest.json").unlink()
                for file in tree.files.rglob("*.*"):
                    file.unlink()
                (tree.files / "weights").rmdir()
                tree.files.rmdir()
            return tree

    fetch = Elusive()
    assert run(URL, fetch=fetch) == 0
    assert len(fetch.requests) == 2
    assert (target / "config.json").exists()


def test_what_is_there_is_checked_without_a_source(run: Callable[..., int], target: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(URL)
    assert run("--check") == 0
    (target / "weights" / "a.bin").write_bytes(b"b" * 1000)
    assert run("--check") == 1
    assert "Corrupt: weights/a.bin: has SHA-256" in capsys.readouterr().err
    (target / "config.json").unlink()
    assert run("--check") == 1
    assert "2 files differ\n  config.json: missing\n  weights/a.bin" in capsys.readouterr().err


def test_a_folder_without_a_manifest_cannot_be_checked(run: Callable[..., int], target: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--check") == 2
    target.mkdir(parents=True)
    assert run("--check") == 2
    told = capsys.readouterr().err
    assert "is no folder" in told
    assert "has no manifest" in told


HEAVY = "boto3 botocore urllib3 tqdm awscrt ssl asyncio concurrent.futures http.client"


def test_a_warm_start_loads_nothing_that_speaks_to_a_source(run: Callable[..., int], target: Path) -> None:
    assert run(URL) == 0
    code = (
        "import sys; from inference_cache_toolkit.main import main; status = main(sys.argv[2:]); "
        "print([each for each in sys.argv[1].split() if each in sys.modules]); sys.exit(status)"
    )
    command = [sys.executable, "-c", code, HEAVY, "fetch", URL, "--to", str(target), "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=WAIT_SECONDS)
    assert done.stdout == "[]\n"


def test_a_warm_start_works_where_nothing_can_be_written(run: Callable[..., int], target: Path) -> None:
    run(URL)
    before = {each: each.lstat().st_mtime_ns for each in [target, *target.parent.rglob("*")]}
    assert main([URL, "--to", str(target)]) == 0
    assert {each: each.lstat().st_mtime_ns for each in [target, *target.parent.rglob("*")]} == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_and_says_so(number: signal.Signals, target: Path, tmp_path: Path) -> None:
    code = (
        "import sys, threading, time\n"
        "from inference_cache_artifacts.command import main\n"
        "def fetch(request, store, progress):\n"
        "    print('here', flush=True)\n"
        # A signal that comes right before a sleep is heard after it.
        "    while True:\n"
        "        time.sleep(0.05)\n"
        "sys.exit(main(sys.argv[1:], fetch))\n"
    )
    log = tmp_path / "log"
    command = [sys.executable, "-c", code, URL, "--to", str(target), "--quiet", "--termination-message", str(log)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "here\n"
        process.send_signal(number)
        _, error = process.communicate(timeout=WAIT_SECONDS)
    assert process.returncode == 128 + number
    assert f"Interrupted: ended by {number.name}" in error
    assert json.loads(log.read_text())["reason"] == "Interrupted"


def test_a_signal_ends_it_in_seconds_though_the_main_thread_hears_nothing(target: Path) -> None:
    code = (
        "import hashlib, sys\n"
        "from inference_cache_artifacts import command, interrupting\n"
        "interrupting.GRACE_SECONDS = 0.1\n"
        "def fetch(request, store, progress):\n"
        "    print('here', flush=True)\n"
        "    hashlib.pbkdf2_hmac('sha256', b'a', b'b', 2_000_000_000)\n"
        "sys.exit(command.main(sys.argv[1:], fetch))\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, URL, "--to", str(target), "--quiet"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "here\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(WAIT_SECONDS) == 128 + signal.SIGTERM


def make_manifest(*arguments: object) -> int:
    return manifest_command.main([str(each) for each in arguments])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "model"
    put(made, FILES, with_manifest=False)
    return made


def test_a_manifest_lies_beside_the_files_and_its_digest_is_printed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert make_manifest(folder) == 0
    written = (folder / FILE_NAME).read_bytes()
    assert written == manifest(FILES).text().encode()
    assert capsys.readouterr().out == f"{hashlib.sha256(written).hexdigest()}  {folder / FILE_NAME}\n"
    assert make_manifest(folder) == 0
    assert (folder / FILE_NAME).read_bytes() == written


def test_a_manifest_may_go_to_stdout_or_elsewhere(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert make_manifest(folder, "--output", "-") == 0
    assert capsys.readouterr().out == manifest(FILES).text()
    assert make_manifest(folder, "-o", tmp_path / "m.json", "--json") == 0
    assert last_line(capsys)["sha256"] == manifest(FILES).digest
    assert (tmp_path / "m.json").read_text() == manifest(FILES).text()
    assert not (folder / FILE_NAME).exists()


def test_a_folder_is_compared_with_a_manifest(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_manifest(folder, "-o", tmp_path / "m.json")
    assert make_manifest(folder, "--check", tmp_path / "m.json") == 0
    (folder / "more").write_text("x")
    assert make_manifest(folder, "--check", tmp_path / "m.json") == 1
    assert "Corrupt: more: the manifest does not name it" in capsys.readouterr().err


def test_a_manifest_that_cannot_be_written_is_an_error(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert make_manifest(folder, "-o", tmp_path / "no" / "m.json") == 1
    assert "DiskFailed" in capsys.readouterr().err


def test_a_url_is_not_compared(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        make_manifest(URL, "--check", "m.json")
    assert "--check compares a folder" in capsys.readouterr().err


def ran(*arguments: object) -> subprocess.CompletedProcess[str]:
    code = "import sys; from inference_cache_toolkit.main import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=WAIT_SECONDS)


def test_from_a_folder_to_a_server_to_a_node(web: FaultServer, files: Path, target: Path) -> None:
    content = model()
    put(files, content, with_manifest=False)
    pin = ran("manifest", files).stdout.split()[0]
    arguments = ("fetch", web.url, "--to", target, "--version", "v1", "--manifest-sha256", pin)
    cold = ran(*arguments)
    assert cold.returncode == 0, cold.stderr
    assert {path: (target / path).read_bytes() for path in content} == content
    web.forget()
    assert "already there" in ran(*arguments).stderr
    assert web.requests == []
    assert ran("fetch", "--check", "--to", target).returncode == 0


def test_a_corrupt_source_leaves_the_former_version_serving(web: FaultServer, files: Path, target: Path, tmp_path: Path) -> None:
    put(files, FILES)
    assert ran("fetch", web.url, "--to", target, "--version", "v1").returncode == 0
    former = target.readlink()
    put(files, FILES | {"weights/a.bin": b"c" * 1000})
    web.faults.flip = {"weights/a.bin": 500}
    failed = ran("fetch", web.url, "--to", target, "--version", "v2", "--termination-message", tmp_path / "log")
    assert failed.returncode == 1
    assert "Corrupt" in failed.stderr
    assert json.loads((tmp_path / "log").read_text())["file"] == "weights/a.bin"
    assert target.readlink() == former


@pytest.mark.services
@pytest.mark.slow
def test_a_buckets_manifest_is_that_of_the_folder(s3: SeaweedFS, tmp_path: Path, target: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = model()
    s3.bucket("manifests")
    for path, each in content.items():
        s3.put("manifests", f"llama/v1.2/{path}", each)
    s3.put("manifests", "llama/v1.20/other", b"of another version")
    put(tmp_path / "secret", {name: value.encode() for name, value in s3.credentials.items()}, with_manifest=False)
    access = ("--credentials-dir", tmp_path / "secret")
    url, written = "s3://manifests/llama/v1.2", tmp_path / "m.json"
    assert make_manifest(url, "-o", written, *access) == 0
    assert written.read_text() == manifest(content).text()
    assert main([url, "--to", str(target), "--manifest", str(written), *map(str, access)]) == 0, capsys.readouterr().err
    assert make_manifest(target, "--check", written) == 0


def test_all_errors_have_a_reason_that_is_one_word() -> None:
    reasons = [each.reason for each in ArtifactError.__subclasses__()]
    assert len(set(reasons)) == len(reasons)
    assert all(each.isalpha() and each[0].isupper() for each in reasons)


def into_store(store: Path, version: str, *more: str) -> list[str]:
    return [URL, "--store", str(store), "--holder", "llm.faq-bot", "--version", version, "--quiet", *more]


def test_a_holder_uses_what_it_asked_for_last_and_what_it_says_besides(tmp_path: Path) -> None:
    fetch, store = Fetch(), Store(tmp_path / "store")
    names = [Request((URL,), version).tree_name for version in ("v1", "v2", "v3")]
    for version, keep in (("v1", []), ("v2", [f"--keep={names[0]}"]), ("v3", [f"--keep={names[1]}"])):
        assert main(into_store(store.root, version, *keep), fetch) == 0
    assert [using.users(store, name) for name in names] == [frozenset(), {"llm.faq-bot"}, {"llm.faq-bot"}]


def test_another_holder_keeps_what_it_has(tmp_path: Path) -> None:
    fetch, store = Fetch(), Store(tmp_path / "store")
    first = Request((URL,), "v1").tree_name
    store.prepare()
    using.mark_used(store, first, "other.bot")
    for version in ("v1", "v2"):
        assert main(into_store(store.root, version), fetch) == 0
    assert using.users(store, first) == {"other.bot"}


def test_a_manifest_may_stand_in_a_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetch, made = Fetch(), manifest(FILES)
    monkeypatch.setenv("THE_MANIFEST", made.text())
    assert main(into_store(tmp_path / "store", "v1", "--manifest", "env:THE_MANIFEST"), fetch) == 0
    assert fetch.requests[0].manifest == made


def test_a_variable_that_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(into_store(tmp_path / "store", "v1", "--manifest", "env:NO_SUCH"), Fetch()) == 1
    assert "env:NO_SUCH: there is no such variable" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        pytest.param([URL], "either --to", id="neither"),
        pytest.param([URL, "--to", "a", "--holder", "b", "--store", "c"], "either --to", id="both"),
        pytest.param([URL, "--holder", "b"], "--holder needs --store", id="no store"),
        pytest.param([URL, "--holder", "a/b", "--store", "c"], "letters, digits", id="a slash"),
    ],
)
def test_where_the_files_go_is_said_once(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments, Fetch())
    assert ended.value.code == 2
    assert words in capsys.readouterr().err
