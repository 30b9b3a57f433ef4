"""The chart, installed on a node as a user would: `helm install` with the images of this source tree."""

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.cluster.clusters import ForeignCluster
from tests.cluster.errors import CommandFailed
from tests.cluster.node import Node
from tests.cluster.story import Cluster
from tests.images import building

CHART: Final = Path(__file__).resolve().parents[2] / "charts" / "inference-cache"
RELEASE: Final = "inference-cache"
SYSTEM: Final = "inference-cache-system"


@dataclass(frozen=True, slots=True)
class Installed(Cluster):
    helm: Path
    kubeconfig: Path

    def run_helm(self, *arguments: str) -> str:
        """Raises CommandFailed."""
        environment = {**os.environ, "KUBECONFIG": str(self.kubeconfig)}
        done = subprocess.run([self.helm, *arguments], check=False, env=environment, capture_output=True, text=True, timeout=300)
        if done.returncode:
            raise CommandFailed(f"helm {arguments[0]}: {done.stderr.strip()}")
        return done.stdout

    def uninstall(self) -> None:
        self.run_helm("uninstall", RELEASE, "--namespace", SYSTEM, "--wait", "--timeout", "2m")


def loaded(node: Node | ForeignCluster) -> dict[str, building.Image]:
    """The images on the node, by what they are for."""
    # Each at once: another run may make its successor in the same place.
    sidecar = _loaded(node, building.sidecar())
    return {"sidecar": sidecar, "operator": _loaded(node, building.operator()), "vllm": _loaded(node, building.vllm(sidecar))}


def _loaded(node: Node | ForeignCluster, image: building.Image) -> building.Image:
    node.load(image.archive)
    return image


def install(node: Node | ForeignCluster, helm: Path, images: dict[str, building.Image], values: Sequence[str] = ()) -> Installed:
    """Waits until all is ready. `values`: more of what `--set` takes. Raises CommandFailed."""
    made = Installed(node.kubectl, node.forward, images["vllm"].reference, helm, node.kubeconfig)
    given = [*_of_image("image", images["operator"]), *_of_image("sidecar.image", images["sidecar"]), *values]
    options = [option for value in given for option in ("--set", value)]
    made.run_helm(
        *("upgrade", "--install", RELEASE, str(CHART), "--namespace", SYSTEM, "--create-namespace", "--wait", "--timeout", "4m"), *options
    )
    return made


def _of_image(path: str, image: building.Image) -> list[str]:
    return [f"{path}.repository={image.repository}", f"{path}.tag={image.tag}", f"{path}.pullPolicy=Never"]


def left_behind(installed: Installed) -> list[str]:
    """Objects of the release, wherever they are, but for the definition and what users made."""
    kinds = "deployments,daemonsets,pods,services,secrets,leases,serviceaccounts,roles,rolebindings,poddisruptionbudgets"
    own = installed.kubectl("get", "-n", SYSTEM, kinds, "-o", "name").split()
    cluster_wide = "clusterroles,clusterrolebindings,mutatingwebhookconfigurations,validatingwebhookconfigurations"
    everywhere = installed.kubectl("get", cluster_wide, "-o", "name").split()
    return [name for name in own if "default" not in name] + [name for name in everywhere if "inference-cache" in name]
