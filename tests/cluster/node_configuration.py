"""The configuration files of a node's parts."""

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from tests.cluster.certificates import Pair
from tests.cluster.errors import MissingProgram
from tests.cluster.network import Network
from tests.cluster.sandbox import Sandbox

NAME: Final = "ic-node"
PAUSE_IMAGE: Final = "cluster.local/pause:1"
SOCKET: Final = "/run/containerd/containerd.sock"
PLUGINS: Final = (Path("/usr/lib/cni"), Path("/opt/cni/bin"))


def containerd_file(sandbox: Sandbox) -> Path:
    """Written, with the pods' network beside it."""
    plugins = sandbox.folder / "cni"
    plugins.mkdir()
    (plugins / "10-bridge.conflist").write_text(json.dumps(pod_network(sandbox.network)))
    return _written(sandbox.folder / "containerd.toml", containerd(sandbox.folder, plugins))


def kubelet_file(sandbox: Sandbox, authority: Path, pair: Pair) -> Path:
    resolver = _written(sandbox.folder / "resolv.conf", f"nameserver {sandbox.network.node}\n")
    # JSON is YAML.
    return _written(sandbox.folder / "kubelet.yaml", json.dumps(kubelet_configuration(sandbox, authority, pair, resolver)))


def proxy_file(sandbox: Sandbox, kubeconfig: Path) -> Path:
    return _written(sandbox.folder / "proxy.yaml", json.dumps(proxy_configuration(sandbox.network, kubeconfig)))


def _written(file: Path, text: str) -> Path:
    file.write_text(text)
    return file


def kubelet_configuration(sandbox: Sandbox, authority: Path, pair: Pair, resolver: Path) -> Mapping[str, Any]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {"anonymous": {"enabled": False}, "webhook": {"enabled": True}, "x509": {"clientCAFile": str(authority)}},
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(pair.certificate),
        "tlsPrivateKeyFile": str(pair.key),
        "containerRuntimeEndpoint": f"unix://{SOCKET}",
        "cgroupRoot": f"/{sandbox.cgroup}",
        "cgroupDriver": "cgroupfs",
        "failCgroupV1": False,
        "failSwapOn": False,
        "resolvConf": str(resolver),
        "clusterDNS": [sandbox.network.node],
        "clusterDomain": "cluster.local",
        # The machine's disk may be nearly full, and one percent of a large one is more than a test needs: only memory counts.
        "evictionHard": {"memory.available": "100Mi"},
        "imageGCHighThresholdPercent": 100,
        "syncFrequency": "10s",
        "nodeStatusUpdateFrequency": "5s",
    }


def proxy_configuration(network: Network, kubeconfig: Path) -> Mapping[str, Any]:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": str(kubeconfig)},
        "mode": "nftables",
        "clusterCIDR": network.pods,
        "hostnameOverride": NAME,
        "bindAddress": "127.0.0.1",
        # The machine's own table, which is not the node's to size.
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        "nodePortAddresses": [f"{network.node}/24"],
    }


def pod_network(network: Network) -> Mapping[str, Any]:
    addresses = {"type": "host-local", "ranges": [[{"subnet": network.pods}]], "routes": [{"dst": "0.0.0.0/0"}], "dataDir": "/run/cni-ipam"}
    bridge = {"type": "bridge", "bridge": "cni0", "isGateway": True, "ipMasq": True, "hairpinMode": True, "ipam": addresses}
    return {"cniVersion": "0.4.0", "name": "pods", "plugins": [bridge, {"type": "portmap", "capabilities": {"portMappings": True}}]}


def containerd(state: Path, cni: Path) -> str:
    """`restrict_oom_score_adj`: runc may not lower a score where CAP_SYS_RESOURCE is missing."""
    runtime = 'plugins."io.containerd.grpc.v1.cri"'
    return f"""version = 2
root = "{state}/containerd"
state = "/run/containerd"
[grpc]
  address = "{SOCKET}"
[plugins."io.containerd.internal.v1.opt"]
  path = "{state}/opt"
[{runtime}]
  sandbox_image = "{PAUSE_IMAGE}"
  restrict_oom_score_adj = true
[{runtime}.cni]
  bin_dir = "{plugins_folder()}"
  conf_dir = "{cni}"
[{runtime}.containerd]
  snapshotter = "{snapshotter(state)}"
  default_runtime_name = "runc"
[{runtime}.containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[{runtime}.containerd.runtimes.runc.options]
  SystemdCgroup = false
"""


def plugins_folder() -> Path:
    for folder in PLUGINS:
        if (folder / "bridge").exists():
            return folder
    raise MissingProgram("the network plugins are missing: install the package containernetworking-plugins")


def snapshotter(state: Path) -> str:
    """`native` copies whole file systems; needed where the state itself lies on an overlay, as in a container."""
    kind = subprocess.run(["stat", "--file-system", "--format=%T", state], capture_output=True, text=True, check=True).stdout.strip()
    return "native" if kind == "overlayfs" else "overlayfs"
