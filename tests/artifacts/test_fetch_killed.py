"""`inference-cache fetch` killed at random moments, again and again: it goes on where it was, and leaves nothing half done."""

import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.artifacts import fetched
from tests.artifacts.fault_server import FaultServer

from inference_cache_artifacts.store import trees
from inference_cache_artifacts.store.layout import Store

pytestmark = [pytest.mark.services, pytest.mark.slow]
KILLS = 20
SECONDS = 300.0


@pytest.fixture
def large(files: Path) -> int:
    """Bytes of an artifact large enough to be killed amid of."""
    chance = random.Random(5)
    block = chance.randbytes(8 << 20)
    model = {f"part-{number}": b"%d" % number + block * count for number, count in enumerate((64, 32, 32))}
    fetched.put(files, model)
    return sum(map(len, model.values()))


def command(url: str, store: Path, to: Path) -> list[str]:
    program = [sys.executable, "-m", "inference_cache_toolkit", "fetch", url]
    return [*program, "--store", str(store), "--to", str(to), "--version", "v1", "--quiet"]


def test_twenty_kills_cost_a_tenth_at_most_and_leave_nothing(web: FaultServer, files: Path, large: int, tmp_path: Path) -> None:
    store, to = Store(tmp_path / "store"), tmp_path / "model"
    asked, chance, kills = command(web.url, store.root, to), random.Random(7), 0
    while kills < KILLS:
        with subprocess.Popen(asked) as process:
            begun = web.sent_bytes
            wanted = begun + chance.random() * large / KILLS
            until(lambda process=process, wanted=wanted: process.poll() is not None or web.sent_bytes > wanted)  # type: ignore[misc]
            process.kill()
        kills += 1
        assert fetched.nothing_published(store) or process.returncode == 0
        assert to.exists() == (process.returncode == 0)
    subprocess.run(asked, check=True, timeout=SECONDS)
    assert web.sent_bytes <= 1.10 * large
    (name,) = trees.names(store)
    assert trees.check(store, name, hashes=True) == ()
    assert {path.name: path.read_bytes() for path in to.iterdir()} == {
        path.name: path.read_bytes() for path in files.iterdir() if path.name.startswith("part-")
    }
    assert fetched.litter(store) == []


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + SECONDS
    while not true():
        assert time.monotonic() < end
        time.sleep(0.002)
