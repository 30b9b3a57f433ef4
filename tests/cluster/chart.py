"""The chart as Helm sees it: rendered to objects, or installed with the images of the tests."""

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml
from tests.cluster.errors import CommandFailed
from tests.images.building import Image

CHART: Final = Path(__file__).resolve().parents[2] / "charts" / "inference-cache"
RELEASE: Final = "inference-cache"
IMAGES: Final = ("--set", "image.repository=registry.example/operator,sidecar.image.repository=registry.example/sidecar")
_SECONDS: Final = 300
Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Helm:
    """`images`: flags that name them; the chart names none."""

    program: Path
    kubeconfig: Path | None = None
    images: Sequence[str] = IMAGES

    def render(self, *arguments: str, namespace: str = "caches", release: str = RELEASE) -> str:
        """Raises CommandFailed with what Helm says of the values."""
        return self.run("template", release, str(CHART), "--namespace", namespace, *self.images, *arguments)

    def objects(self, *arguments: str, namespace: str = "caches", release: str = RELEASE) -> list[Object]:
        return [each for each in yaml.safe_load_all(self.render(*arguments, namespace=namespace, release=release)) if each]

    def install(self, namespace: str, *arguments: str, release: str = RELEASE) -> None:
        """Or upgrade. A definition that somebody else applied is taken over."""
        self.run("upgrade", "--install", release, str(CHART), "--namespace", namespace, "--take-ownership", *self.images, *arguments)

    def uninstall(self, namespace: str, release: str = RELEASE) -> None:
        self.run("uninstall", release, "--namespace", namespace)

    def run(self, *arguments: str) -> str:
        whole = [str(self.program), *arguments, *(["--kubeconfig", str(self.kubeconfig)] if self.kubeconfig else [])]
        done = subprocess.run(whole, capture_output=True, text=True, timeout=_SECONDS, check=False)
        if done.returncode:
            raise CommandFailed(f"helm {arguments[0]}: {done.stderr.strip()}")
        return done.stdout


def by_kind_and_name(objects: Sequence[Object]) -> Mapping[tuple[str, str], Object]:
    return {(each["kind"], each["metadata"]["name"]): each for each in objects}


def image_values(operator: Image, sidecar: Image, redis: Image | None = None) -> list[str]:
    """Flags that make the chart use images which were loaded into the node."""
    named = {"image": operator, "sidecar.image": sidecar} | ({"redis.image": redis} if redis is not None else {})
    return [part for path, image in named.items() for part in ("--set-string", _image_value(path, image))]


def _image_value(path: str, image: Image) -> str:
    return f"{path}.repository={image.repository},{path}.tag={image.tag},{path}.pullPolicy=Never"
