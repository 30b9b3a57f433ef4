"""The images that a user builds from the two Dockerfiles: built here, looked into, and run as a restricted pod runs them."""

import json
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.images import base, buildah, building, container
from tests.images.building import Image

pytestmark = [pytest.mark.slow, pytest.mark.services]

MEGABYTE = 1e6
SIDECAR_MEGABYTES = 600
OPERATOR_MEGABYTES = 450
PROMPT = "How long does shipping take?"


@dataclass(frozen=True, slots=True)
class Unpacked:
    image: Image
    rootfs: Path
    environment: dict[str, str]
    user: str
    entry: list[str]

    def run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """With the image's entry point."""
        return container.run(self.rootfs, [*self.entry, *arguments], self.environment)

    def python(self, script: str) -> "subprocess.CompletedProcess[str]":
        return container.run(self.rootfs, ["python", "-c", script], self.environment)

    def files(self) -> Iterator[Path]:
        return (each for each in self.rootfs.rglob("*") if each.is_file() and not each.is_symlink())

    def megabytes(self) -> float:
        return sum(each.stat().st_size for each in self.files()) / MEGABYTE


def _unpacked(make: Callable[[], Image]) -> Iterator[Unpacked]:
    image = make()
    with buildah.storage() as storage:
        name = building.in_storage(storage, image)
    # Others may build meanwhile.
    said = json.loads(storage.run(["inspect", "--type", "image", name]))["OCIv1"]["config"]
    with storage.mounted(name) as rootfs:
        yield Unpacked(image, rootfs, dict(each.split("=", 1) for each in said["Env"]), said["User"], said["Entrypoint"])


@pytest.fixture(scope="module", params=["operator", "sidecar"])
def unpacked(request: pytest.FixtureRequest) -> Iterator[Unpacked]:
    yield from _unpacked({"operator": building.operator, "sidecar": building.sidecar}[request.param])


@pytest.fixture(scope="module")
def sidecar() -> Iterator[Unpacked]:
    yield from _unpacked(building.sidecar)


def test_it_runs_without_root_on_a_read_only_root(unpacked: Unpacked) -> None:
    said = unpacked.run("--version")
    assert (said.stdout.strip(), said.stderr) == ("0.1.0", "")
    assert unpacked.user == "65532:65532"
    assert "OSError: [Errno 30]" in unpacked.python("open('/opt/inference-cache/x', 'w')").stderr


def test_it_holds_no_compiler_no_torch_and_no_installer(unpacked: Unpacked) -> None:
    programs = {"gcc", "cc", "g++", "clang", "make", "ld", "as", "pip", "pip3", "uv", "nvcc", "rustc", "cargo"}
    named = (each for each in unpacked.rootfs.rglob("*") if each.name in programs | {"torch", "ensurepip"})
    found = [each for each in named if each.parent.name in ("bin", "sbin", "site-packages", "dist-packages", "python3.11")]
    assert [str(each.relative_to(unpacked.rootfs)) for each in found] == []


def test_it_holds_nothing_of_the_machine_that_built_it(unpacked: Unpacked) -> None:
    assert not (unpacked.rootfs / "run" / "secrets" / "pip.conf").exists()
    assert not list((unpacked.rootfs / "root").rglob("*.conf"))
    assert not [name for name in unpacked.environment if name.startswith("PIP_")]


def test_it_is_as_small_as_promised(unpacked: Unpacked) -> None:
    allowed = SIDECAR_MEGABYTES if unpacked.image.repository.endswith("sidecar") else OPERATOR_MEGABYTES
    assert unpacked.megabytes() <= allowed


def test_the_sidecar_explains_its_flags(sidecar: Unpacked) -> None:
    said = sidecar.run("sidecar", "--help")
    assert "--upstream" in said.stdout
    assert said.returncode == 0


def test_the_sidecars_embedding_model_is_whole_and_computes(sidecar: Unpacked) -> None:
    script = f"""
from inference_cache_sidecar.embedder.loading import load_embedder
embedder = load_embedder("all-MiniLM-L6-v2")
print(embedder.embed([{PROMPT!r}])[0].shape)
"""
    said = sidecar.python(script)
    assert said.stdout.strip() == "(384,)", said.stderr


def test_the_sidecar_can_read_every_source_of_events(sidecar: Unpacked) -> None:
    said = sidecar.python("import aiokafka, cramjam, redis, hiredis, faiss, zstandard; print(zstandard.backend)")
    assert said.stdout.strip() == "cext", said.stderr


def test_an_image_is_not_built_twice() -> None:
    before = building.plain()
    made = before.archive.stat().st_mtime_ns
    assert building.plain() == before
    assert before.archive.stat().st_mtime_ns == made
    assert before.tag in before.reference
    assert base.made().digest
