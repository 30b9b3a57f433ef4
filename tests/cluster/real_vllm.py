"""The real vLLM with a tiny model as the Deployment of a node: this machine's installation and models, mounted where they lie."""

import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from tests.cluster.story import APP
from tests.images import host_vllm

SERVICES: Final = Path(__file__).resolve().parents[1] / "services"
MODEL: Final = "acme"


def python() -> Path:
    """vLLM's; installed if it is missing."""
    said = subprocess.run([sys.executable, SERVICES / "install_vllm.py"], stdout=subprocess.PIPE, text=True, check=True)
    return Path(said.stdout.strip())


def tiny_model(vllm_python: Path, seed: int) -> Path:
    """Made once a machine and recipe; another seed is another model."""
    script = SERVICES / "tiny_model.py"
    out = vllm_python.parents[2] / "models" / f"tiny-{script.stat().st_size}-{seed}"
    if not out.exists():
        subprocess.run([vllm_python, script, out, str(seed)], check=True, capture_output=True)
    return out


def deployment(image: str, vllm_python: Path, model: Path, annotations: dict[str, str]) -> dict[str, Any]:
    """Of one pod; `image` holds but an operating system."""
    volumes, mounts = host_vllm.volumes_and_mounts(vllm_python)
    volumes += [{"name": "model", "hostPath": {"path": str(model), "type": "Directory"}}, {"name": "tmp", "emptyDir": {}}]
    volumes += [{"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}}]
    mounts += [{"name": "model", "mountPath": str(model), "readOnly": True}, {"name": "tmp", "mountPath": "/tmp"}]
    mounts += [{"name": "shm", "mountPath": "/dev/shm"}]
    container = {
        "name": "server",
        "image": image,
        "imagePullPolicy": "Never",
        "command": [str(vllm_python), "-m", "vllm.entrypoints.openai.api_server"],
        "args": [
            *("--model", str(model), "--served-model-name", MODEL, "--max-model-len", "2048", "--enforce-eager", "--block-size", "32"),
        ],
        "env": [{"name": name, "value": value} for name, value in _ENVIRONMENT.items()],
        "ports": [{"name": "http", "containerPort": 8000}],
        "readinessProbe": {"httpGet": {"path": "/health", "port": "http"}, "periodSeconds": 1},
        "resources": {"requests": {"cpu": "100m", "memory": "3Gi"}},
        "volumeMounts": mounts,
        # As in vLLM's own image; only root may enter root's home, where the installation may lie.
        "securityContext": {"runAsUser": 0},
    }
    template = {
        "metadata": {"labels": {"app": APP}, "annotations": annotations},
        # Of a Service named vllm, Kubernetes would make a variable VLLM_PORT, which vLLM takes for its own.
        "spec": {"containers": [container], "volumes": volumes, "automountServiceAccountToken": False, "enableServiceLinks": False},
    }
    strategy = {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    spec = {"replicas": 1, "selector": {"matchLabels": {"app": APP}}, "template": template, "strategy": strategy}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": APP}, "spec": spec}


_ENVIRONMENT: Final = {
    "HOME": "/tmp",
    "USER": "vllm",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_HOST_IP": "127.0.0.1",
    "HF_HUB_OFFLINE": "1",
}
