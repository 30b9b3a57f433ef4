"""The project's images and those of its tests, built without Docker and without a registry; one archive each, made once a machine.

`docker-archive` files that a node imports (`ctr image import`), with names that end in a digest of what they were made from. The
layers of dependencies live on in the cache, so that a change of the sources costs seconds.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.cluster.cached import cache_folder, made_once
from tests.images import base, buildah

PROJECT: Final = Path(__file__).resolve().parents[2]
HERE: Final = Path(__file__).parent
REGISTRY: Final = "inference-cache.test"
"""Of names that no registry answers to: pods use them with `imagePullPolicy: Never`."""
ARCHIVE: Final = "image.tar"
_NEVER_COPIED: Final = frozenset({"__pycache__", "Dockerfile"})


@dataclass(frozen=True, slots=True)
class Image:
    repository: str
    """Without tag, as a chart's `image.repository` takes it."""
    tag: str
    """Says what it was made from: another content, another tag."""
    archive: Path
    """docker-archive, uncompressed."""

    @property
    def reference(self) -> str:
        return f"{self.repository}:{self.tag}"


@dataclass(frozen=True, slots=True)
class Recipe:
    name: str
    dockerfile: Path
    copied: tuple[str, ...]
    """Files and folders of the project that go in."""
    stands_on: Image | None
    """Another of these images; BASE is the one below them all."""

    @property
    def folder(self) -> str:
        return f"image-{self.name}"

    def image(self, digest: str) -> Image:
        return Image(f"{REGISTRY}/{self.name}", digest[:12], cache_folder() / self.folder / ARCHIVE)

    def digest(self) -> str:
        below = base.made().digest if self.stands_on is None else self.stands_on.tag
        summed = hashlib.sha256(below.encode())
        for file in (self.dockerfile, *self._files()):
            summed.update(f"{file.relative_to(PROJECT)}\0".encode() + hashlib.sha256(file.read_bytes()).digest())
        return summed.hexdigest()

    def _files(self) -> Iterator[Path]:
        for name in self.copied:
            path = PROJECT / name
            found = sorted(path.rglob("*")) if path.is_dir() else [path]
            yield from (each for each in found if each.is_file() and not _NEVER_COPIED & set(each.relative_to(PROJECT).parts))


BASE: Final = None
_SOURCES: Final = ("pyproject.toml", "README.md", "LICENSE", "artifacts", "contract", "operator", "sidecar", "toolkit", "locks/build.txt")


def operator() -> Image:
    return _made(Recipe("operator", PROJECT / "operator" / "Dockerfile", (*_SOURCES, "locks/operator.txt"), BASE))


def sidecar() -> Image:
    return _made(Recipe("sidecar", PROJECT / "sidecar" / "Dockerfile", (*_SOURCES, "locks/sidecar.txt", "locks/demo.txt"), BASE))


def vllm(sidecar_image: Image) -> Image:
    """The stand-in, under a name by which the webhook takes it for vLLM; understands `vllm serve MODEL --port …`."""
    return _made(Recipe("vllm-openai", HERE / "vllm.Dockerfile", ("tests/cluster/workload",), sidecar_image))


def redis() -> Image:
    return _made(Recipe("redis", HERE / "redis.Dockerfile", (), BASE))


def plain() -> Image:
    """Debian with Python and nothing else: with mounts of this machine's folders, a real vLLM runs in it."""
    return _made(Recipe("plain", HERE / "plain.Dockerfile", (), BASE))


def _made(recipe: Recipe) -> Image:
    digest = recipe.digest()
    image = recipe.image(digest)

    def make(folder: Path) -> None:
        with buildah.storage() as storage:
            arguments = {"BASE": in_storage(storage, recipe.stands_on)}
            storage.build(_local(image), recipe.dockerfile, PROJECT, arguments)
            storage.save(_local(image), folder / ARCHIVE, image.reference)

    made_once(recipe.folder, digest, make, f"building the image {recipe.name}")
    return image


def in_storage(storage: buildah.Storage, wanted: Image | None) -> str:
    """The name of an image, or of the base, once `storage` has it."""
    if wanted is None:
        return base.in_storage(storage)
    if not storage.holds(_local(wanted)):
        storage.load(wanted.archive, _local(wanted))
    return _local(wanted)


def _local(image: Image) -> str:
    return f"localhost/{image.reference}"
