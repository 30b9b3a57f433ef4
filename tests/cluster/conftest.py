"""Real Kubernetes for tests: a control plane without nodes, a whole node, and Helm."""

import secrets
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from tests.cluster import binaries
from tests.cluster.clusters import ForeignCluster, named_cluster
from tests.cluster.control_plane import ControlPlane, fresh_namespace, running_control_plane
from tests.cluster.node import Node, running_node


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """The one that most tests share; whoever pauses or kills a part of it starts its own with `running_control_plane`."""
    with running_control_plane(tmp_path_factory.mktemp("control-plane")) as plane:
        yield plane


@pytest.fixture
def namespace(control_plane: ControlPlane) -> Iterator[str]:
    """A fresh namespace on `control_plane`."""
    with fresh_namespace(control_plane.api, f"test-{secrets.token_hex(4)}") as name:
        yield name


@pytest.fixture(scope="session")
def node(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node | ForeignCluster]:
    """The cluster that KUBECONFIG names, else `own_node`. Both have `kubeconfig`, `kubectl`, `load` and `forward`."""
    named = named_cluster(tmp_path_factory.mktemp("cluster"))
    if named is None:
        yield request.getfixturevalue("own_node")
    else:
        with named:
            yield named


@pytest.fixture(scope="session")
def own_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node of this machine, whatever KUBECONFIG says: for tests that pause its parts or look inside."""
    # Sockets lie in the folder, and their paths may not be long. The node removes it.
    with running_node(Path(tempfile.mkdtemp(prefix="ic-"))) as running:
        try:
            yield running
        finally:
            # A pod's log may go meanwhile.
            with suppress(OSError):
                running.save_logs(tmp_path_factory.mktemp("node-logs"))


@pytest.fixture
def node_namespace(node: Node | ForeignCluster) -> Iterator[str]:
    """A fresh namespace on `node`; its deletion is ordered in the end and not waited for."""
    name = f"test-{secrets.token_hex(4)}"
    node.kubectl("create", "namespace", name)
    try:
        yield name
    finally:
        node.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture(scope="session")
def helm() -> Path:
    """The program."""
    return binaries.helm()
