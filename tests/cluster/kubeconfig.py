"""Kubeconfig files, and kubectl with one."""

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.cluster import binaries, servers
from tests.cluster.certificates import Pair
from tests.cluster.errors import CommandFailed

KUBECTL_SECONDS: Final = 120.0


def write(file: Path, server: str, authority: Path, user: Mapping[str, str]) -> Path:
    """A kubeconfig of one context; `user` as kubeconfig spells it, e.g. `client-certificate` and `client-key`, or `token`."""
    file.touch(mode=0o600)
    file.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "test",
                "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
                "clusters": [{"name": "test", "cluster": {"server": server, "certificate-authority": str(authority)}}],
                "users": [{"name": "test", "user": dict(user)}],
            }
        )
    )
    return file


def by_certificate(pair: Pair) -> dict[str, str]:
    return {"client-certificate": str(pair.certificate), "client-key": str(pair.key)}


@dataclass(frozen=True, slots=True)
class Kubectl:
    """kubectl with one kubeconfig."""

    kubeconfig: Path

    def __call__(self, *arguments: str | Path, stdin: str | None = None, check: bool = True, seconds: float = KUBECTL_SECONDS) -> str:
        """What it wrote to stdout. Raises CommandFailed with what it wrote to stderr, unless not to `check`."""
        cache = self.kubeconfig.parent / "kubectl-cache"
        done = subprocess.run(
            [binaries.component("kubectl"), *arguments], input=stdin, capture_output=True, text=True, timeout=seconds, check=False,
            env={**servers.environment(), "KUBECONFIG": str(self.kubeconfig), "KUBECACHEDIR": str(cache)},
        )  # fmt: skip
        if check and done.returncode != 0:
            raise CommandFailed(f"kubectl {' '.join(map(str, arguments))}: {done.stderr.strip()}")
        return done.stdout

    def token(self, namespace: str, service_account: str) -> str:
        """A new one of that service account, good for a day."""
        return self("create", "token", service_account, "-n", namespace, "--duration=24h").strip()
