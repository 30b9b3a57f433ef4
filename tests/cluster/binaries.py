"""Where the cluster's programs are: named by KUBEBUILDER_ASSETS, built once into the cache, or Debian's."""

import os
import re
import shutil
from pathlib import Path
from typing import Final

from tests.cluster import go_toolchain
from tests.cluster.cached import made_once, recipe_of
from tests.cluster.errors import MissingProgram

HERE: Final = Path(__file__).parent
MODULE: Final = HERE / "kube"
CERT_MANAGER: Final = HERE / "certmanager"
_CERT_MANAGER_PATH: Final = "github.com/cert-manager/cert-manager"
COMPONENTS: Final = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "kubelet", "kubectl")
HELM: Final = "v4.3.1"
PACKAGES: Final = {
    "etcd": "etcd-server", "containerd": "containerd", "ctr": "containerd", "runc": "runc", "nft": "nftables", "ip": "iproute2",
    "nsenter": "util-linux", "unshare": "util-linux", "setpriv": "util-linux", "gcc": "gcc",
}  # fmt: skip
"""Debian's, by program."""


def component(name: str) -> Path:
    """A Kubernetes component or kubectl: KUBEBUILDER_ASSETS may hold some of them, the others are built."""
    named = _of_assets(name)
    return named if named is not None else kubernetes() / name


def program(name: str) -> Path:
    """A program of the machine. Raises MissingProgram with the package to install."""
    named = _of_assets(name) or shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if named is None:
        raise MissingProgram(f"{name} is missing: `make cluster` installs it, on Debian and Ubuntu the package {PACKAGES.get(name, name)}")
    return Path(named)


def version() -> str:
    """Kubernetes' version, as go.mod pins it: `v1.35.4`."""
    return _required(MODULE, "k8s.io/kubernetes")


def kubernetes() -> Path:
    """The folder of the components, kubectl and `pause`."""
    recipe = recipe_of([MODULE / "go.mod", MODULE / "go.sum", MODULE / "main.go", HERE / "pause.c"])
    announcement = f"building Kubernetes {version()} (4 minutes, once)"
    return made_once(f"kubernetes-{version().removeprefix('v')}", recipe, _build_kubernetes, announcement)


def helm() -> Path:
    """Helm, built from its Go module."""
    folder = made_once(f"helm-{HELM.removeprefix('v')}", HELM, _build_helm, f"building Helm {HELM} (2 minutes, once)")
    return folder / "helm"


def cert_manager() -> Path:
    """The folder of cert-manager's controllers, `cert-manager`, and of its definitions, `crds`."""
    version = _required(CERT_MANAGER, _CERT_MANAGER_PATH)
    recipe = recipe_of([CERT_MANAGER / "go.mod", CERT_MANAGER / "go.sum", CERT_MANAGER / "main.go"])
    announcement = f"building cert-manager {version} (2 minutes, once)"
    return made_once(f"cert-manager-{version.removeprefix('v')}", recipe, _build_cert_manager, announcement)


def _required(module: Path, path: str) -> str:
    """The version of another module that the one in the folder `module` requires."""
    found = re.search(rf"{re.escape(path)} (v[\d.]+)$", (module / "go.mod").read_text(), re.MULTILINE)
    assert found is not None, f"{module.name}/go.mod requires no {path}"
    return found[1]


def _of_assets(name: str) -> Path | None:
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    named = Path(assets) / name if assets else None
    return named if named is not None and named.exists() else None


def _build_kubernetes(folder: Path) -> None:
    stated = "k8s.io/component-base/version"
    major, minor, _ = version().removeprefix("v").split(".")
    states = {"gitVersion": version(), "gitMajor": major, "gitMinor": minor, "gitTreeState": "clean"}
    flags = " ".join(["-s", "-w", *(f"-X {stated}.{name}={value}" for name, value in states.items())])
    _go(folder).build(["build", "-mod=readonly", "-trimpath", "-ldflags", flags, "-o", folder / "kube", "."], MODULE)
    for name in COMPONENTS:
        (folder / name).symlink_to("kube")
    go_toolchain.run([program("gcc"), "-Os", "-static", "-o", folder / "pause", HERE / "pause.c"], folder)


def _build_helm(folder: Path) -> None:
    _go(folder).build(["install", "-trimpath", "-ldflags", "-s -w", f"helm.sh/helm/v4/cmd/helm@{HELM}"], folder, {"GOBIN": str(folder)})


def _build_cert_manager(folder: Path) -> None:
    program, go = folder / "cert-manager", _go(folder)
    go.build(["build", "-mod=readonly", "-trimpath", "-ldflags", "-s -w", "-o", program, "."], CERT_MANAGER)
    (folder / "crds").mkdir()
    # Those of ACME are not needed.
    for file in (go.sources(_CERT_MANAGER_PATH, CERT_MANAGER) / "deploy" / "crds").glob("cert-manager.io_*.yaml"):
        shutil.copyfile(file, folder / "crds" / file.name)


def _go(folder: Path) -> go_toolchain.Toolchain:
    """For what is built into `folder`, which stands in a temporary one."""
    return go_toolchain.Toolchain(folder.parent / "go")
