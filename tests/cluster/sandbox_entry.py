"""The first process in a node's namespaces: arranges the mounts, then becomes `pause`.

`sandbox_entry.py FOLDER PAUSE`. Everything inside ends with this process. It runs before anything else is there, so it imports
nothing of the project.
"""

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Final

SYSCTLS: Final = {
    "vm/overcommit_memory": 1,
    "vm/panic_on_oom": 0,
    "kernel/panic": 10,
    "kernel/panic_on_oops": 1,
    "kernel/keys/root_maxkeys": 1_000_000,
    "kernel/keys/root_maxbytes": 25_000_000,
}
"""The machine's own are out of bounds, and kubelet ends where they are not as it wants them: it is shown these."""


def mount(*arguments: str | Path) -> None:
    subprocess.run(["mount", *arguments], check=True)


def enter(folder: Path) -> None:
    socket.sethostname("ic-node")
    show_cgroups(folder / "cgroup")
    mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run")
    for name in ("lock", "netns"):
        Path("/run", name).mkdir()
    mount("--bind", folder / "var-log", "/var/log")
    # kubelet and the network plugins keep small files there, wherever else they are told to keep theirs.
    mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", "/var/lib")
    show_sysctls(folder / "sysctl")
    mount("--make-rshared", "/")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")


def show_cgroups(aside: Path) -> None:
    """A new /sys shows the new network's devices, but not the machine's cgroups."""
    aside.mkdir()
    mount("--rbind", "/sys/fs/cgroup", aside)
    mount("-t", "sysfs", "sysfs", "/sys")
    mount("--rbind", aside, "/sys/fs/cgroup")
    subprocess.run(["umount", "--lazy", aside], check=True)


def show_sysctls(folder: Path) -> None:
    folder.mkdir()
    for name, value in SYSCTLS.items():
        shown = folder / name.replace("/", ".")
        shown.write_text(f"{value}\n")
        mount("--bind", shown, Path("/proc/sys", name))


if __name__ == "__main__":
    state, pause = Path(sys.argv[1]), sys.argv[2]
    enter(state)
    (state / "entered").touch()
    os.execv(pause, [pause])
