"""The node that other tests build on: pods with sidecars run, Services and names are found, and nothing is left behind."""

import json
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from tests.cluster import binaries, undertaker
from tests.cluster.clusters import LABEL, ForeignCluster, NotForTests, named_cluster
from tests.cluster.image import Image, write_image
from tests.cluster.node import Node
from tests.cluster.servers import until

pytestmark = [pytest.mark.services, pytest.mark.slow]
SECONDS = 120.0
TRIES = 24
"""Of five seconds each."""
PROJECT = Path(__file__).resolve().parents[2]
IMAGE = "cluster.local/hello:1"
HELLO = r"""
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
int main(int count, char **arguments) {
    struct sockaddr_in any = {.sin_family = AF_INET, .sin_port = htons(atoi(arguments[1]))};
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    signal(SIGTERM, _exit);
    if (bind(listener, (struct sockaddr *)&any, sizeof any) || listen(listener, 16)) return 1;
    for (;;) {
        char request[4096];
        int client = accept(listener, 0, 0);
        if (read(client, request, sizeof request) > 0) dprintf(client, "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello");
        close(client);
    }
}
"""


@pytest.fixture(scope="module")
def hello(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archive of an image whose entry point answers `hello` to every request, on the port in its argument."""
    folder = tmp_path_factory.mktemp("hello")
    (folder / "hello.c").write_text(HELLO)
    subprocess.run([binaries.program("gcc"), "-Os", "-static", "-o", folder / "hello", folder / "hello.c"], check=True)
    return write_image(Image(IMAGE, files={"/hello": folder / "hello"}, entrypoint=["/hello"]), folder / "hello.tar")


def run_hello(node: Node | ForeignCluster, namespace: str, archive: Path) -> None:
    """Until the pod is Ready."""
    node.load(archive)
    node.kubectl("apply", "-n", namespace, "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": served()}))
    node.kubectl("wait", "-n", namespace, "pod/hello", "--for=condition=Ready", "--timeout=110s")


def served() -> list[dict[str, Any]]:
    """A pod that a sidecar stands in front of, and its Service."""
    sidecar = {
        "name": "side",
        "image": IMAGE,
        "imagePullPolicy": "Never",
        "args": ["8080"],
        "restartPolicy": "Always",
        "startupProbe": {"httpGet": {"port": 8080, "path": "/"}, "periodSeconds": 1},
    }
    main = {"name": "main", "image": IMAGE, "imagePullPolicy": "Never", "args": ["8081"]}
    spec = {"initContainers": [sidecar], "containers": [main], "terminationGracePeriodSeconds": 1}
    service = {"selector": {"app": "hello"}, "ports": [{"port": 80, "targetPort": 8080}]}
    return [
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "hello", "labels": {"app": "hello"}}, "spec": spec},
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "hello"}, "spec": service},
    ]


def fetched(url: str) -> str:
    try:
        with urlopen(url, timeout=10) as answer:
            return str(answer.read().decode())
    except (URLError, OSError) as error:
        return str(error)


def test_a_pod_with_a_sidecar_runs_and_its_service_is_reached(node: Node | ForeignCluster, node_namespace: str, hello: Path) -> None:
    run_hello(node, node_namespace, hello)
    service = node.forward(node_namespace, "service/hello", 80)
    until(lambda: fetched(service) == "hello", "the Service", SECONDS)
    pod = node.forward(node_namespace, "pod/hello", 8080)
    until(lambda: fetched(pod) == "hello", "the pod", SECONDS)


def test_names_of_services_are_found_also_while_the_api_server_hangs(own_node: Node) -> None:
    assert address_of(own_node, "kubernetes.default.svc.cluster.local") == own_node.plane.place.names()[1]
    assert address_of(own_node, "nothing.default.svc.cluster.local") is None
    assert address_of(own_node, "example.com") is None
    own_node.plane.api_server.pause()
    try:
        assert address_of(own_node, "kubernetes.default.svc.cluster.local") == own_node.plane.place.names()[1]
    finally:
        own_node.plane.api_server.resume()


def test_a_cluster_elsewhere_is_only_used_if_it_says_that_it_is_for_tests(own_node: Node, tmp_path: Path) -> None:
    named = {"KUBECONFIG": str(own_node.kubeconfig)}
    with pytest.raises(NotForTests, match="unset the variable"):
        named_cluster(tmp_path, named)
    own_node.kubectl("label", "nodes", "--all", LABEL)
    try:
        assert named_cluster(tmp_path, named) is not None
    finally:
        own_node.kubectl("label", "nodes", "--all", f"{LABEL.partition('=')[0]}-")


def address_of(node: Node, name: str) -> str | None:
    """What the node's DNS says."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    question = struct.pack(">HHHHHH", 7, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack(">HH", 1, 1)
    answer = next(filter(None, (asked(node, question) for _ in range(TRIES))), b"")
    assert answer, f"nobody answers for {name}"
    return socket.inet_ntoa(answer[-4:]) if struct.unpack(">H", answer[6:8])[0] else None


def asked(node: Node, question: bytes) -> bytes:
    """The answer; empty where it does not come soon, as while the server starts: a client asks again."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(5)
        client.sendto(question, (node.sandbox.network.node, 53))
        with suppress(TimeoutError):
            return client.recv(1500)
    return b""


def test_a_cluster_that_is_only_known_by_its_kubeconfig_is_used_by_port_forwarding(own_node: Node, hello: Path, tmp_path: Path) -> None:
    own_node.kubectl("create", "namespace", "foreign")
    run_hello(own_node, "foreign", hello)
    with ForeignCluster(own_node.kubeconfig, tmp_path) as cluster:
        for target, port in (("service/hello", 80), ("pod/hello", 8080)):
            url = cluster.forward("foreign", target, port)
            until(lambda url=url: fetched(url) == "hello", target, SECONDS)
    own_node.kubectl("delete", "namespace", "foreign", "--wait=false")


ENDS_WITHOUT_CLEARING_UP = """
import sys, time
from pathlib import Path
from tests.cluster.node import running_node
with running_node(Path(sys.argv[1])) as node:
    print(node.sandbox.pid, node.sandbox.cgroup, node.sandbox.network.device, flush=True)
    time.sleep(600)
"""


def test_nothing_is_left_of_a_node_whose_starter_was_killed() -> None:
    folder = Path(tempfile.mkdtemp(prefix="ic-")) / "node"
    with subprocess.Popen(
        [sys.executable, "-c", ENDS_WITHOUT_CLEARING_UP, folder], cwd=PROJECT, stdout=subprocess.PIPE, text=True
    ) as starter:
        assert starter.stdout is not None
        pid, cgroup, device = starter.stdout.readline().split()
        assert cgroups(cgroup)
        starter.send_signal(signal.SIGKILL)
    until(lambda: not Path("/proc", pid).exists(), "the node's processes to end", SECONDS)
    until(lambda: not folder.exists(), "the node's files to go", SECONDS)
    assert cgroups(cgroup) == []
    until(lambda: not Path("/sys/class/net", device).exists(), "the node's network to go", SECONDS)
    assert str(folder) not in Path("/proc/self/mounts").read_text()
    folder.parent.rmdir()


def cgroups(name: str) -> list[Path]:
    return [hierarchy / name for hierarchy in undertaker.hierarchies() if (hierarchy / name).exists()]
