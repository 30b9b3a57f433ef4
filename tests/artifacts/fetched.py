"""An artifact of random files, and what the tests of whole fetches ask of it."""

import hashlib
import random
import threading
from collections.abc import Mapping
from pathlib import Path

from inference_cache_artifacts.manifest import FILE_NAME, File, Manifest, manifest_of
from inference_cache_artifacts.progress import Silent
from inference_cache_artifacts.store import trees
from inference_cache_artifacts.store.layout import Store
from inference_cache_artifacts.store.trees import Tree

COMMAND = (
    "import sys; from inference_cache_artifacts import interrupting; interrupting.GRACE_SECONDS = 25.0; "
    "from inference_cache_toolkit.main import main; sys.exit(main(sys.argv[1:]))"
)
"""The whole program; what hangs when it is told to end ends without a word after five times as long as it does in the field."""


def model(seed: int = 1, big: int = 3 << 20) -> dict[str, bytes]:
    """Files as a model has them: two large, some small, one empty."""
    chance = random.Random(seed)
    return {
        "model-00001-of-00002.safetensors": chance.randbytes(big),
        "model-00002-of-00002.safetensors": chance.randbytes(big // 3 + 1),
        "config.json": b'{"model_type": "llama"}',
        "nested/tokenizer.json": chance.randbytes(70_000),
        "nested/empty": b"",
    }


def manifest(files: Mapping[str, bytes]) -> Manifest:
    return manifest_of(File(path, len(content), hashlib.sha256(content).hexdigest()) for path, content in files.items())


def put(folder: Path, files: Mapping[str, bytes], *, with_manifest: bool = True) -> Manifest:
    """Into a folder that a server serves."""
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    made = manifest(files)
    if with_manifest:
        (folder / FILE_NAME).write_text(made.text())
    return made


def content(tree: Tree) -> dict[str, bytes]:
    return {path.relative_to(tree.files).as_posix(): path.read_bytes() for path in tree.files.rglob("*") if path.is_file()}


def litter(store: Store) -> list[str]:
    """What a store has besides blobs and trees; nothing, when all went well."""
    kept = {store.blobs, store.trees, store.used}
    rest = [path for path in store.root.rglob("*") if path.is_file() and not any(path.is_relative_to(each) for each in kept)]
    odd = [path for path in store.trees.iterdir() if path.name.startswith(".")]
    return [path.relative_to(store.root).as_posix() for path in (*rest, *odd) if path != store.lock]


def nothing_published(store: Store) -> bool:
    return trees.names(store) == []


class Counting(Silent):
    """A Progress that remembers."""

    def __init__(self) -> None:
        self.bytes = 0
        self.events: list[str] = []
        self._lock = threading.Lock()

    def received(self, count: int) -> None:
        with self._lock:
            self.bytes += count

    def noted(self, event: str, **fields: object) -> None:
        self.events.append(event)
