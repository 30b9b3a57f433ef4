"""The parts of the test clusters that need no cluster."""

import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.cluster import binaries, clusters
from tests.cluster.cached import made_once
from tests.cluster.dns import Remembered, answer_to, resolve
from tests.cluster.errors import ClusterError, MissingProgram
from tests.cluster.image import Image, write_image
from tests.cluster.network import Network, free_numbers

SERVICE = "/api/v1/namespaces/llm/services/vllm"
SLICES = "/apis/discovery.k8s.io/v1/namespaces/llm/endpointslices?labelSelector=kubernetes.io/service-name%3Dvllm"
ENDPOINTS = {
    "items": [
        {
            "endpoints": [
                {"addresses": ["10.1.64.2"], "conditions": {"ready": True}, "targetRef": {"name": "vllm-a"}},
                {"addresses": ["10.1.64.3"], "conditions": {"ready": True}, "targetRef": {"name": "vllm-b"}},
                {"addresses": ["10.1.64.4"], "conditions": {"ready": False}, "targetRef": {"name": "vllm-c"}},
            ]
        }
    ]
}


def told(answers: Mapping[str, Any]) -> Callable[[str], Any]:
    return answers.get


@pytest.mark.parametrize(
    ("name", "cluster_ip", "addresses"),
    [
        pytest.param("vllm.llm.svc.cluster.local", "10.1.128.9", ["10.1.128.9"], id="cluster-ip"),
        pytest.param("VLLM.llm.svc.cluster.local.", "10.1.128.9", ["10.1.128.9"], id="case-and-final-dot"),
        pytest.param("vllm.llm.svc.cluster.local", "None", ["10.1.64.2", "10.1.64.3"], id="headless"),
        pytest.param("vllm-b.vllm.llm.svc.cluster.local", "None", ["10.1.64.3"], id="pod-of-headless"),
        pytest.param("vllm.other.svc.cluster.local", "10.1.128.9", [], id="other-namespace"),
        pytest.param("vllm.llm", "10.1.128.9", [], id="short"),
        pytest.param("example.com", "10.1.128.9", [], id="outside"),
    ],
)
def test_a_name_of_a_service_becomes_addresses(name: str, cluster_ip: str, addresses: list[str]) -> None:
    assert resolve(name, told({SERVICE: {"spec": {"clusterIP": cluster_ip}}, SLICES: ENDPOINTS})) == addresses


def test_a_question_for_an_unknown_name_is_answered_with_a_name_error() -> None:
    question = struct.pack(">HHHHHH", 7, 0x0100, 1, 0, 0, 0) + b"\x07example\x03com\0" + struct.pack(">HH", 1, 1)
    answer = answer_to(question, told({}))
    number, flags, questions, answers, _, _ = struct.unpack(">HHHHHH", answer[:12])
    assert (number, flags & 0xF, questions, answers) == (7, 3, 1, 0)


def test_what_was_found_last_is_told_while_the_api_server_does_not_answer() -> None:
    now = [0.0]
    answers: list[str | OSError] = ["first", OSError(), "second"]
    asked: list[str] = []

    def get(path: str) -> str:
        asked.append(path)
        answer = answers[len(asked) - 1]
        if isinstance(answer, OSError):
            raise answer
        return answer

    remembered = Remembered(get, lambda: now[0])
    assert [remembered("/a"), remembered("/a")] == ["first", "first"]
    now[0] = 0.6
    assert [remembered("/a"), remembered("/a")] == ["first", "first"]
    assert len(asked) == 2, "after a failure it does not ask again at once"
    now[0] = 1.7
    assert remembered("/a") == "second"


def test_a_name_that_was_never_looked_up_is_not_denied_while_the_api_server_does_not_answer() -> None:
    def get(_path: str) -> str:
        raise TimeoutError

    remembered = Remembered(get, lambda: 0.0)
    for path in ("/a", "/a", "/b"):
        with pytest.raises(TimeoutError):
            remembered(path)


def test_a_network_that_is_in_use_is_not_taken() -> None:
    assert next(iter(free_numbers(["10.101.3.0/24", "10.102.0.0/16", "192.168.0.0/16", "10.103.0.1"]))) == 104
    assert list(free_numbers(["10.0.0.0/8"])) == []


def test_the_parts_of_a_network_do_not_overlap() -> None:
    network = Network(101)
    assert {network.node, network.machine, network.pods, network.services, network.whole} == {
        *("10.101.0.1", "10.101.0.254", "10.101.64.0/22", "10.101.128.0/17", "10.101.0.0/16")
    }


def test_equal_images_are_equal_bytes(tmp_path: Path) -> None:
    (tmp_path / "program").write_text("x")
    image = Image("example.com/x:1", files={"/program": tmp_path / "program"}, entrypoint=["/program"], user="65532")
    first, second = (write_image(image, tmp_path / name) for name in ("first.tar", "second.tar"))
    assert first.read_bytes() == second.read_bytes()


def test_what_was_made_is_made_again_only_from_another_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFERENCE_CACHE_CACHE", str(tmp_path))
    made: list[Path] = []

    def make(folder: Path) -> None:
        made.append(folder)
        (folder / "program").write_text(str(len(made)))

    def fails(_folder: Path) -> None:
        raise ClusterError("no compiler")

    assert [made_once("thing", "1", make, "making").joinpath("program").read_text() for _ in range(2)] == ["1", "1"]
    with pytest.raises(ClusterError):
        made_once("thing", "2", fails, "making")
    assert (tmp_path / "thing" / "program").read_text() == "1"
    assert made_once("thing", "2", make, "making").joinpath("program").read_text() == "2"


@pytest.mark.parametrize(
    ("context", "environment", "command"),
    [
        pytest.param("kind-inference-cache", {}, ["kind", "load", "image-archive", "--name", "inference-cache"], id="kind"),
        pytest.param("mine", {"INFERENCE_CACHE_LOAD": "tool load 'a b'"}, ["tool", "load", "a b"], id="told"),
    ],
)
def test_images_are_loaded_by_a_command(context: str, environment: dict[str, str], command: list[str]) -> None:
    assert clusters.load_command(context, environment) == command


def test_a_cluster_of_an_unknown_kind_says_what_it_needs() -> None:
    with pytest.raises(ClusterError, match="INFERENCE_CACHE_LOAD"):
        clusters.load_command("minikube", {})


def test_no_kubeconfig_means_no_foreign_cluster(tmp_path: Path) -> None:
    assert clusters.named_cluster(tmp_path, {}) is None


def test_a_program_among_the_assets_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(tmp_path))
    (tmp_path / "kube-apiserver").touch()
    assert binaries.component("kube-apiserver") == tmp_path / "kube-apiserver"
    assert binaries.program("sh") != tmp_path / "sh"


def test_a_missing_program_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(binaries.PACKAGES, "no-such-program", "some-package")
    with pytest.raises(MissingProgram, match="some-package"):
        binaries.program("no-such-program")
