"""A test node by hand, from the project's folder: `sudo .venv/bin/python -m tests.cluster up`.

up           start a node that runs until `down`; prints its kubeconfig's path
load FILE    import an OCI or Docker image archive, for pods with `imagePullPolicy: Never`
sh COMMAND…  run a command in the node's namespaces; kubectl is on its PATH
down         end the node; nothing of it is left
plane        a control plane without nodes, no root needed, until Ctrl-C; prints its kubeconfig's path
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from tests.cluster.cached import cache_folder
from tests.cluster.control_plane import running_control_plane
from tests.cluster.errors import ClusterError
from tests.cluster.node import CTR, running_node

POLL_SECONDS: Final = 0.1
STOP_SECONDS: Final = 120.0


@dataclass(frozen=True, slots=True)
class Kept:
    """What the other commands must know of a node that runs."""

    keeper: int
    """The process that ends the node when it ends."""
    kubeconfig: str
    inside: list[str]
    """Stands before a command that runs in the node."""
    environment: dict[str, str]


def state_file() -> Path:
    return cache_folder() / "node.json"


def kept() -> Kept | None:
    """The node that runs, if one does."""
    try:
        state = Kept(**json.loads(state_file().read_text()))
    except FileNotFoundError:
        return None
    return state if _is_keeper(state.keeper) else None


def up() -> None:
    if kept() is not None:
        sys.exit("a node is up already: end it with `down` first")
    state_file().parent.mkdir(parents=True, exist_ok=True)
    state_file().unlink(missing_ok=True)
    log = state_file().with_suffix(".log")
    with log.open("wb") as sink:
        keeper = subprocess.Popen(
            [sys.executable, "-m", "tests.cluster", "keep"], stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, start_new_session=True
        )
    while (state := kept()) is None:
        if keeper.poll() is not None:
            sys.exit(f"the node did not start:\n{log.read_text()[-4000:]}")
        time.sleep(POLL_SECONDS)
    sys.stdout.write(f"{state.kubeconfig}\n")


def keep() -> None:
    """Run a node until SIGTERM or SIGINT."""
    ends = {signal.SIGTERM, signal.SIGINT}
    with running_node(Path(tempfile.mkdtemp(prefix="ic-"))) as node:
        # Only now: servers that were started with signals blocked would not hear them.
        signal.pthread_sigmask(signal.SIG_BLOCK, ends)
        environment = {name: value for name, value in node.environment().items() if name in {"KUBECONFIG", "KUBECACHEDIR", "PATH"}}
        state = Kept(os.getpid(), str(node.kubeconfig), list(map(str, node.sandbox.inside)), environment)
        fresh = state_file().with_suffix(".new")
        fresh.write_text(json.dumps(asdict(state)))
        fresh.rename(state_file())
        try:
            signal.sigwait(ends)
        finally:
            state_file().unlink(missing_ok=True)


def load(archive: str) -> None:
    with Path(archive).open("rb") as content:
        sys.exit(_inside(*CTR, "images", "import", "-", stdin=content.fileno()))


def sh(*command: str) -> None:
    sys.exit(_inside(*(command or ("bash",)), stdin=None))


def down() -> None:
    state = kept()
    if state is None:
        return
    os.kill(state.keeper, signal.SIGTERM)
    deadline = time.monotonic() + STOP_SECONDS
    while _is_keeper(state.keeper):
        if time.monotonic() > deadline:
            sys.exit(f"the node's process {state.keeper} does not end")
        time.sleep(POLL_SECONDS)


def plane() -> None:
    with tempfile.TemporaryDirectory(prefix="ic-") as folder, running_control_plane(Path(folder) / "plane") as running:
        sys.stdout.write(f"{running.kubeconfig}\n")
        sys.stdout.flush()
        with suppress(KeyboardInterrupt):
            signal.pause()


def _inside(*command: str, stdin: int | None) -> int:
    state = kept()
    if state is None:
        sys.exit("no node is up: start one with `up`")
    return subprocess.run([*state.inside, *command], stdin=stdin, env={**os.environ, **state.environment}, check=False).returncode


def _is_keeper(pid: int) -> bool:
    with suppress(FileNotFoundError, ProcessLookupError):
        return b"tests.cluster\0keep" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


def main() -> None:
    commands: dict[str, Callable[..., None]] = {"up": up, "keep": keep, "load": load, "sh": sh, "down": down, "plane": plane}
    if not sys.argv[1:] or sys.argv[1] not in commands:
        sys.exit(__doc__)
    try:
        commands[sys.argv[1]](*sys.argv[2:])
    except ClusterError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
