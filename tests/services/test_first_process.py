"""A container that is told to end while it starts ends: its first process ignores every signal that it does not handle."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from tests.services.supervised import PROGRAM

from inference_cache_toolkit.processes import free_port

pytestmark = [pytest.mark.services]
SECONDS = 60.0
AS_FIRST = ("unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child")


def test_a_sidecar_that_is_still_starting_ends_when_told(tmp_path: Path) -> None:
    addresses = ("--listen", f"127.0.0.1:{free_port()}", "--admin", f"127.0.0.1:{free_port()}", "--upstream", "http://127.0.0.1:9")
    log, spec = tmp_path / "log", tmp_path / "spec"
    # Nobody writes into it: there the start waits, however slow the machine is.
    os.mkfifo(spec)
    with log.open("wb") as sink:
        outer = subprocess.Popen([*AS_FIRST, PROGRAM, "sidecar", "--supervise", *addresses, "--spec", spec], stdout=sink, stderr=sink)
    try:
        deadline = time.monotonic() + SECONDS
        while outer.poll() is None:
            assert time.monotonic() < deadline, "it does not end"
            for pid in Path(f"/proc/{outer.pid}/task/{outer.pid}/children").read_text().split():
                subprocess.run(["kill", f"-{signal.SIGTERM.value}", pid], check=False, capture_output=True)
            time.sleep(0.01)
    finally:
        outer.kill()
        outer.wait()
    assert "supervising" not in log.read_text()
