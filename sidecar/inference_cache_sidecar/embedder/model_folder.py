"""A folder that holds an embedding model: where it lies, what is in it, and whether it is whole.

The toolkit's `embedding_model` writes such folders when an image or environment is built; `OnnxEmbedder` reads them.
"""

import hashlib
import json
import sys
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final

from inference_cache_sidecar.embedder.protocol import EmbedderError

MODEL_FILE: Final = "model.onnx"
TOKENIZER_FILE: Final = "tokenizer.json"
MANIFEST_FILE: Final = "manifest.json"
MAKING: Final = "python -m inference_cache_toolkit.embedding_model"
"""The command that makes a folder; errors name it."""


@dataclass(frozen=True, slots=True)
class Probe:
    """A text and the vector that the model gave where it was made: a processor that computes something else is found at once."""

    text: str
    vector: list[float]


@dataclass(frozen=True, slots=True)
class Manifest:
    """What stands in `manifest.json`."""

    name: str
    """As users write it in `spec.semantic.embedder.name`."""
    precision: str
    dimensions: int
    max_tokens: int
    recipe: str
    """SHA-256 (hex) of all that determines the files, so that a second run can tell it has nothing to do."""
    origin: str
    """Where the weights come from, and their licence."""
    files: dict[str, str]
    """SHA-256 (hex) by file name."""
    probe: Probe

    @property
    def digest(self) -> str:
        """SHA-256 (hex) over model and tokenizer: vectors of different digests are never compared."""
        return hashlib.sha256("".join(self.files[name] for name in (MODEL_FILE, TOKENIZER_FILE)).encode()).hexdigest()


def default_folder(name: str) -> Path:
    """Inside the environment or image, so that it comes and goes with the installation."""
    return Path(sys.prefix) / "share" / "inference-cache" / "models" / name


def read_manifest(folder: Path) -> Manifest:
    """Raises EmbedderError where there is none, or one that is not understood."""
    path = folder / MANIFEST_FILE
    try:
        manifest = Manifest(**_known_fields(json.loads(path.read_bytes())))
    except FileNotFoundError:
        raise EmbedderError(f"no embedding model in {folder}; make it with: {MAKING} --out {folder}") from None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise EmbedderError(f"{path} is not a model manifest ({error}); make it again with: {MAKING} --out {folder}") from error
    if not {MODEL_FILE, TOKENIZER_FILE} <= manifest.files.keys():
        raise EmbedderError(f"{path} lists no {MODEL_FILE} or no {TOKENIZER_FILE}; make it again with: {MAKING} --out {folder}")
    return manifest


def verified(folder: Path, manifest: Manifest, name: str) -> Path:
    """The path of a file that is, byte for byte, the one that the manifest names. Raises EmbedderError otherwise."""
    path = folder / name
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise EmbedderError(f"cannot read {path} ({error}); make it again with: {MAKING} --out {folder}") from error
    if found != manifest.files[name]:
        raise EmbedderError(f"{path} is not the file its manifest names; make it again with: {MAKING} --out {folder}")
    return path


def write_manifest(folder: Path, manifest: Manifest) -> None:
    (folder / MANIFEST_FILE).write_text(json.dumps(asdict(manifest)) + "\n", encoding="utf-8")


def _known_fields(document: Any) -> dict[str, Any]:
    """A manifest of a later release may say more."""
    if not isinstance(document, dict) or not isinstance(document.get("files"), dict):
        raise ValueError("not an object with files")
    known = {field.name: document[field.name] for field in fields(Manifest) if field.name in document}
    return known | {"probe": Probe(**document["probe"])}
