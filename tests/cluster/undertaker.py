"""Clears up after a node, however its starter ended: `undertaker.py FOLDER CGROUP`.

It waits for the end of its own input, which comes when the starter closes it or dies; the node's processes die with the starter too.
Then it removes the node's cgroups (`CGROUP` in each hierarchy) and its folder.
"""

import shutil
import sys
import time
from pathlib import Path
from typing import Final

CGROUPS: Final = Path("/sys/fs/cgroup")
PATIENCE_SECONDS: Final = 60.0
POLL_SECONDS: Final = 0.1


def hierarchies() -> list[Path]:
    """One with version 2, one for each controller with version 1."""
    if (CGROUPS / "cgroup.controllers").exists():
        return [CGROUPS]
    return [folder for folder in CGROUPS.iterdir() if folder.is_dir() and not folder.is_symlink()]


def remove_cgroups(name: str) -> bool:
    """False while one still has a process."""
    gone = [remove_tree(hierarchy / name) for hierarchy in hierarchies()]
    return all(gone)


def remove_tree(cgroup: Path) -> bool:
    if not cgroup.exists():
        return True
    children = [remove_tree(child) for child in cgroup.iterdir() if child.is_dir()]
    try:
        cgroup.rmdir()
    except OSError:
        return False
    return all(children)


def main() -> None:
    folder, name = Path(sys.argv[1]), sys.argv[2]
    sys.stdin.read()
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not remove_cgroups(name) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
