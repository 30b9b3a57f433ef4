"""OCI image archives from files and layers, without a registry or a daemon: `python -m tests.cluster.image --help`."""

import argparse
import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

PATH: Final = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
MEDIA: Final = "application/vnd.oci.image."


@dataclass(frozen=True, slots=True)
class Image:
    """What is in one, for the machine's own architecture amd64."""

    name: str
    """With its tag."""
    layers: Sequence[Path] = ()
    """Tar files of root file systems, the lowest first."""
    files: Mapping[str, Path] = field(default_factory=dict)
    """Single files on top of the layers, by their path in the image; all may read and run them."""
    entrypoint: Sequence[str] = ()
    environment: Sequence[str] = ()
    """NAME=VALUE."""
    user: str = ""


def write_image(image: Image, archive: Path) -> Path:
    """An archive that containerd, Docker and kind load; equal images give equal bytes."""
    blobs: dict[str, bytes] = {}
    layers = [file.read_bytes() for file in image.layers] + ([_layer(image.files)] if image.files else [])
    described = [_blob(blobs, layer, "layer.v1.tar") for layer in layers]
    config = _blob(blobs, json.dumps(_config(image, [layer["digest"] for layer in described])).encode(), "config.v1+json")
    manifest = {"schemaVersion": 2, "mediaType": f"{MEDIA}manifest.v1+json", "config": config, "layers": described}
    entry = _blob(blobs, json.dumps(manifest).encode(), "manifest.v1+json")
    entry["annotations"] = {"io.containerd.image.name": image.name, "org.opencontainers.image.ref.name": image.name.rpartition(":")[2]}
    index = {"schemaVersion": 2, "mediaType": f"{MEDIA}index.v1+json", "manifests": [entry]}
    files = {
        "oci-layout": b'{"imageLayoutVersion":"1.0.0"}',
        "index.json": json.dumps(index).encode(),
        **{f"blobs/sha256/{digest.removeprefix('sha256:')}": data for digest, data in blobs.items()},
    }
    with tarfile.open(archive, "w") as tar:
        for name, data in files.items():
            _add(tar, name, data, 0o644)
    return archive


def _config(image: Image, layers: Sequence[str]) -> dict[str, Any]:
    return {
        "architecture": "amd64",
        "os": "linux",
        "created": "2026-01-01T00:00:00Z",
        "config": {"Env": [PATH, *image.environment], "Entrypoint": list(image.entrypoint), "User": image.user},
        "rootfs": {"type": "layers", "diff_ids": list(layers)},
    }


def _layer(files: Mapping[str, Path]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for target, source in files.items():
            _add(tar, target.lstrip("/"), source.read_bytes(), 0o755)
    return buffer.getvalue()


def _add(tar: tarfile.TarFile, name: str, data: bytes, mode: int) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(data), mode
    tar.addfile(info, io.BytesIO(data))


def _blob(blobs: dict[str, bytes], data: bytes, media: str) -> dict[str, Any]:
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    blobs[digest] = data
    return {"mediaType": MEDIA + media, "digest": digest, "size": len(data)}


def main() -> None:
    arguments = argparse.ArgumentParser(prog="python -m tests.cluster.image")
    arguments.add_argument("name", help="with its tag")
    arguments.add_argument("archive", type=Path)
    arguments.add_argument("--layer", action="append", default=[], type=Path, help="a tar file of a root file system")
    arguments.add_argument("--file", action="append", default=[], metavar="SOURCE=TARGET", help="a file on top of the layers")
    arguments.add_argument("--entrypoint", action="append", default=[], metavar="ARGUMENT")
    arguments.add_argument("--env", action="append", default=[], metavar="NAME=VALUE")
    arguments.add_argument("--user", default="")
    given = arguments.parse_args()
    pairs = (pair.partition("=") for pair in given.file)
    files = {target: Path(source) for source, _, target in pairs}
    write_image(Image(given.name, given.layer, files, given.entrypoint, given.env, given.user), given.archive)


if __name__ == "__main__":
    main()
