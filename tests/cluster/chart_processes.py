"""The chart's pods as processes: with the arguments, variables and service account of a pod that its Deployment made."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.cluster.control_plane import ControlPlane
from tests.cluster.servers import Server
from tests.cluster.webhook_processes import Replica

from inference_cache_toolkit.processes import free_port

_FIELDS: Final = {"metadata.name": "name", "metadata.namespace": "namespace"}


def process(plane: ControlPlane, pod: Mapping[str, Any], logs: Path, replaced: Sequence[str] = ()) -> Replica:
    """Not yet started. `replaced`: flags instead of the pod's; addresses are this machine's in any case."""
    (container,) = pod["spec"]["containers"]
    metadata, port, health = pod["metadata"], free_port(), free_port()
    account = f"{metadata['namespace']}/{pod['spec']['serviceAccountName']}"
    addresses = [f"--health=127.0.0.1:{health}", *([f"--listen=127.0.0.1:{port}"] if container["name"] == "webhook" else [])]
    command = [
        "env",
        f"KUBECONFIG={plane.kubeconfig_for(account)}",
        *(f"{each['name']}={_value(each, metadata)}" for each in container["env"]),
        *(sys.executable, "-m", "inference_cache_toolkit"),
        *_without(container["args"], [*addresses, *replaced]),
        *addresses,
        *replaced,
    ]
    return Replica(Server(metadata["name"], command, logs / f"{metadata['name']}.log"), port, health)


def _value(variable: Mapping[str, Any], metadata: Mapping[str, Any]) -> str:
    return str(variable.get("value") or metadata[_FIELDS[variable["valueFrom"]["fieldRef"]["fieldPath"]]])


def _without(arguments: Sequence[str], replaced: Sequence[str]) -> list[str]:
    names = {each.partition("=")[0] for each in replaced}
    return [each for each in arguments if each.partition("=")[0] not in names]


@dataclass(slots=True)
class SecretVolume:
    """A folder that holds a Secret's content as kubelet mounts it: all files are swapped at once, by one link."""

    folder: Path
    swaps: int = 0

    def put(self, data: Mapping[str, bytes]) -> None:
        self.swaps += 1
        fresh, link = self.folder / f"..{self.swaps}", self.folder / "..data_tmp"
        fresh.mkdir(parents=True)
        for name, content in data.items():
            (fresh / name).write_bytes(content)
            if not (self.folder / name).is_symlink():
                (self.folder / name).symlink_to(Path("..data") / name)
        link.symlink_to(fresh.name)
        link.replace(self.folder / "..data")
