"""From a name in the spec to an embedder; called once, by the composition root."""

from pathlib import Path

from inference_cache_sidecar.embedder import model_folder
from inference_cache_sidecar.embedder.protocol import Embedder, EmbedderError


def load_embedder(name: str, folder: Path | None = None) -> Embedder:
    """The ONNX model in `folder`, else in the default place for `name`; a `name` with a slash is a model of sentence-transformers.

    Takes some 0.2 s (torch: several) and belongs off the event loop. Raises EmbedderError, which names what would help.
    """
    if folder is None and "/" in name:
        return _sentence_transformers(name)
    if folder is not None and not (folder / model_folder.MANIFEST_FILE).exists() and (folder / "modules.json").exists():
        return _sentence_transformers(str(folder))
    return _onnx(name, folder if folder is not None else model_folder.default_folder(name))


def _onnx(name: str, folder: Path) -> Embedder:
    held = model_folder.read_manifest(folder).name
    if held != name:
        raise EmbedderError(f"spec.semantic.embedder.name: {folder} holds {held}, not {name}")
    # Imported here so that a sidecar without a semantic tier never carries ONNX Runtime.
    from inference_cache_sidecar.embedder.onnx import OnnxEmbedder  # noqa: PLC0415

    return OnnxEmbedder(folder)


def _sentence_transformers(name_or_path: str) -> Embedder:
    try:
        # Imported here so that no other sidecar ever carries torch.
        from inference_cache_sidecar.embedder.torch import SentenceTransformersEmbedder  # noqa: PLC0415
    except ImportError as error:
        raise EmbedderError(f"{name_or_path} needs sentence-transformers: install inference-cache with the extra `torch`") from error
    return SentenceTransformersEmbedder(name_or_path)
