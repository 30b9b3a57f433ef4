"""The default embedder: ONNX Runtime and tokenizers, one thread, no torch.

Made by the factory in `loading`, driven by `worker`.
"""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

from inference_cache_sidecar.embedder import model_folder
from inference_cache_sidecar.embedder.protocol import EmbedderError
from inference_cache_sidecar.embedder.sight import out_of_sight
from inference_cache_sidecar.index.protocol import Vector

LEAST_PROBE_SIMILARITY: Final = 0.9999
"""Processors differ in the seventh digit; sums that overflow show in the third."""

MAX_TOKENS_PER_RUN: Final = 256
"""Bounds the memory that the arena keeps; measured, larger runs are no faster."""


class OnnxEmbedder:
    """Embeds with the model of a folder that `inference_cache_toolkit.embedding_model` made."""

    def __init__(self, folder: Path) -> None:
        """Raises EmbedderError, with the command that helps, where the folder is missing, damaged or not understood."""
        manifest = model_folder.read_manifest(folder)
        self.name = manifest.name
        self.dimensions = manifest.dimensions
        self.max_tokens = manifest.max_tokens
        self.digest = manifest.digest
        self._tokenizer = _tokenizer(model_folder.verified(folder, manifest, model_folder.TOKENIZER_FILE))
        self._unknown = _unknown_token(self._tokenizer)
        model = model_folder.verified(folder, manifest, model_folder.MODEL_FILE)
        self._session = _session(model)
        if not self._gives(manifest.probe):
            self._session = _session(model, wide_sums=True)
            if not self._gives(manifest.probe):
                raise EmbedderError(f"{self.name} computes other vectors on this processor than where it was made")

    def _gives(self, probe: model_folder.Probe) -> bool:
        (vector,) = self.embed([probe.text])
        return vector is not None and float(vector @ np.array(probe.vector, dtype=np.float32)) >= LEAST_PROBE_SIMILARITY

    def embed(self, texts: Sequence[str]) -> list[Vector | None]:
        """Texts of equal length in tokens run together, so nothing is padded and no text's vector hangs on its neighbours."""
        vectors: list[Vector | None] = [None] * len(texts)
        alike: defaultdict[int, list[tuple[int, list[int]]]] = defaultdict(list)
        for at, text in enumerate(texts):
            tokens = self._tokens(text)
            if tokens is not None:
                alike[len(tokens)].append((at, tokens))
        for length, members in alike.items():
            run = max(1, MAX_TOKENS_PER_RUN // length)
            for start in range(0, len(members), run):
                self._run(members[start : start + run], vectors)
        return vectors

    def _run(self, members: Sequence[tuple[int, list[int]]], vectors: list[Vector | None]) -> None:
        ids = np.array([tokens for _, tokens in members], dtype=np.int64)
        (out,) = self._session.run(None, {"input_ids": ids})
        for (at, _), vector in zip(members, out, strict=True):
            # A row of its own: a view would keep the whole batch in memory.
            vectors[at] = vector.copy()

    def _tokens(self, text: str) -> list[int] | None:
        """None for what the model would not see whole: too long, or with parts its vocabulary lacks (emoji, rare scripts)."""
        if out_of_sight(text, self.max_tokens):
            return None
        tokens: list[int] = self._tokenizer.encode(text).ids
        return None if len(tokens) > self.max_tokens or self._unknown in tokens else tokens


def _tokenizer(path: Path) -> Tokenizer:
    try:
        tokenizer = Tokenizer.from_file(str(path))
    # The library raises bare Exception.
    except Exception as error:
        raise EmbedderError(f"the tokenizer is not understood: {error}") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def _unknown_token(tokenizer: Tokenizer) -> int | None:
    name = getattr(tokenizer.model, "unk_token", None)
    return None if name is None else tokenizer.token_to_id(name)


def _session(model: Path, *, wide_sums: bool = False) -> onnxruntime.InferenceSession:
    """`wide_sums` for processors without VNNI, whose 8-bit products overflow; elsewhere it would only be slow."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    # A spinning thread burns the core that the event loop needs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    options.log_severity_level = 3
    options.add_session_config_entry("session.x64quantprecision", "1" if wide_sums else "0")
    try:
        return onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    # ONNX Runtime's errors share no base class with a public name.
    except Exception as error:
        raise EmbedderError(f"ONNX Runtime does not take the model: {error}") from error
