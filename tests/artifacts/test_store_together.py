"""Processes that fetch, use and collect at the same time: what one relies on, no other takes away."""

import subprocess
import sys
from pathlib import Path

import pytest
from tests.artifacts.stores import litter, new_store, small_disk

REPOSITORY = Path(__file__).parents[2]
DEADLINE_SECONDS = 500.0


@pytest.mark.slow
def test_trees_in_use_stay_whole_while_others_are_fetched_and_removed(tmp_path: Path):
    with small_disk(tmp_path / "disk", "8m") as disk:
        store = new_store(disk / "store")
        roles = [("collect", 150), ("collect", 150), ("one", 60), ("two", 60), ("three", 60)]
        command = [sys.executable, "-m", "tests.artifacts.store_worker", str(store.root)]
        running = [subprocess.Popen([*command, role, str(rounds)], cwd=REPOSITORY) for role, rounds in roles]
        try:
            assert [each.wait(DEADLINE_SECONDS) for each in running] == [0] * len(running)
        finally:
            for each in running:
                each.kill()
                each.wait()
        store.prepare()
        assert litter(store) == []
