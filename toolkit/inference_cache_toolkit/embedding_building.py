"""From a checkpoint's folder to the bytes of its ONNX model.

Called by `embedding_model`, which imports it only where there is something to make.
"""

import json
from pathlib import Path

import numpy as np
import onnxruntime
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from inference_cache_toolkit import calibration_texts, int8_products
from inference_cache_toolkit.embedding_graph import FloatProducts, Shape, Weights, sentence_encoder


def model_bytes(source: Path, max_tokens: int, calibrating_tokenizer: bytes | None) -> bytes:
    """The float32 model; with a tokenizer (the JSON of one) to calibrate with, the 8-bit model."""
    config = json.loads((source / "config.json").read_bytes())
    shape = Shape(config["num_hidden_layers"], config["num_attention_heads"], max_tokens, config["layer_norm_eps"])
    weights = load_file(source / "model.safetensors")
    if calibrating_tokenizer is None:
        return bytes(sentence_encoder(weights, shape, FloatProducts()).SerializeToString())
    products = _int8_products(weights, shape, Tokenizer.from_buffer(calibrating_tokenizer))
    return bytes(sentence_encoder(weights, shape, products).SerializeToString())


def _int8_products(weights: Weights, shape: Shape, tokenizer: Tokenizer) -> int8_products.Int8Products:
    plain = FloatProducts()
    model = sentence_encoder(weights, shape, plain)
    ids = [np.array([tokenizer.encode(text).ids]) for text in calibration_texts.TEXTS]
    return int8_products.Int8Products(int8_products.input_ranges(model, plain.inputs, ids))


def vector(model: bytes, tokenizer: bytes, text: str) -> list[float]:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    (rows,) = session.run(None, {"input_ids": np.array([Tokenizer.from_buffer(tokenizer).encode(text).ids])})
    return [round(float(value), 6) for value in rows[0]]
