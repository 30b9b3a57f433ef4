"""The same promise through sentence-transformers (the `torch` extra), for models that nobody has made an ONNX folder of.

Imported by `loading` only where it is asked for: torch costs some seconds and 400 MB.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from sentence_transformers import SentenceTransformer

from inference_cache_sidecar.embedder.protocol import EmbedderError
from inference_cache_sidecar.embedder.sight import out_of_sight
from inference_cache_sidecar.index.protocol import Vector


class SentenceTransformersEmbedder:
    """Any model of sentence-transformers, by hub name or path."""

    def __init__(self, name_or_path: str, device: str = "cpu") -> None:
        """`device` is the CPU since the GPU is the model server's. Raises EmbedderError where the model cannot be loaded."""
        # One thread, as for ONNX: the cores belong to the proxy and its neighbours in the pod.
        torch.set_num_threads(1)
        try:
            self._model = SentenceTransformer(name_or_path, device=device)
        # Hub, file and format errors come as whatever the libraries below raise.
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            raise EmbedderError(f"sentence-transformers cannot load {name_or_path}: {error}") from error
        self.name = name_or_path
        self.dimensions = len(self._model.encode("dimensions", show_progress_bar=False))
        self.max_tokens = int(self._model.max_seq_length or self._model.tokenizer.model_max_length)
        self.digest = _digest(self._model)

    def embed(self, texts: Sequence[str]) -> list[Vector | None]:
        vectors: list[Vector | None] = [None] * len(texts)
        seen = [at for at, text in enumerate(texts) if self._sees(text)]
        if seen:
            rows = self._model.encode([texts[at] for at in seen], normalize_embeddings=True, show_progress_bar=False)
            for at, row in zip(seen, np.asarray(rows, dtype=np.float32), strict=True):
                vectors[at] = row
        return vectors

    def _sees(self, text: str) -> bool:
        """False for what the model would not see whole: too long, or with parts its vocabulary lacks."""
        if out_of_sight(text, self.max_tokens):
            return False
        tokenizer = self._model.tokenizer
        ids = tokenizer(text, truncation=False, padding=False, verbose=False)["input_ids"]
        return len(ids) <= self.max_tokens and tokenizer.unk_token_id not in ids


def _digest(model: SentenceTransformer) -> str:
    """Over weights and vocabulary."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy())
    digest.update(repr(sorted(model.tokenizer.get_vocab().items())).encode())
    return digest.hexdigest()
