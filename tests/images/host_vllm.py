"""The real vLLM of this machine inside a pod: its environment and its Python are mounted where they lie, read-only."""

import subprocess
from pathlib import Path
from typing import Any

_PREFIX = "import sys; print(sys.base_prefix)"


def volumes_and_mounts(python: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Of a pod whose container has the image `building.plain()`; `python` is what tests/services/install_vllm.py prints."""
    said = subprocess.run([python, "-c", _PREFIX], capture_output=True, text=True, check=True).stdout.strip()
    folders = {"vllm": python.parent.parent, "python": Path(said)}
    volumes = [{"name": name, "hostPath": {"path": str(folder), "type": "Directory"}} for name, folder in folders.items()]
    mounts = [{"name": name, "mountPath": str(folder), "readOnly": True} for name, folder in folders.items()]
    return volumes, mounts
