"""Runs a command in an unpacked image as a restricted pod would: by runc, no root, no capabilities, nothing to write to but /tmp."""

import contextlib
import json
import secrets
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tests.cluster.binaries import program

SECONDS: Final = 120
USER: Final = 65532


def run(rootfs: Path, command: Sequence[str], environment: Mapping[str, str]) -> "subprocess.CompletedProcess[str]":
    """It has no network."""
    name = f"inference-cache-{secrets.token_hex(4)}"
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(_configuration(rootfs, command, environment)))
        started = [program("runc"), "--root", f"{folder}/state", "run", "--bundle", folder, name]
        try:
            return subprocess.run(started, capture_output=True, text=True, timeout=SECONDS, check=False)
        finally:
            with contextlib.suppress(subprocess.SubprocessError):
                subprocess.run([program("runc"), "--root", f"{folder}/state", "delete", "--force", name], capture_output=True, check=False)


def _configuration(rootfs: Path, command: Sequence[str], environment: Mapping[str, str]) -> dict[str, Any]:
    nothing = ["nosuid", "noexec", "nodev"]
    return {
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": USER, "gid": USER},
            "args": list(command),
            "env": [f"{key}={value}" for key, value in environment.items()],
            "cwd": "/",
            "noNewPrivileges": True,
        },
        "root": {"path": str(rootfs), "readonly": True},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
            {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": [*nothing, "mode=1777"]},
        ],
        "linux": {"namespaces": [{"type": kind} for kind in ("pid", "ipc", "uts", "mount", "network")]},
    }
