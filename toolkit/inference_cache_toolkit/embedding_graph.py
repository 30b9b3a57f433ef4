"""The ONNX graph of a BERT-like sentence embedder (Reimers and Gurevych 2019; MiniLM: Wang et al. 2020), written from its weights.

`embedding_model` calls `sentence_encoder` and stores the result. Writing the graph by hand, out of ONNX Runtime's fused
operators, needs no torch and no graph optimiser, and leaves nothing to optimise when the sidecar starts.
Input `input_ids` int64 (batch, tokens), without padding; output `vectors` float32 (batch, dimensions), unit length.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from onnx import ModelProto, TensorProto

from inference_cache_toolkit.graph_builder import FUSED, Array, GraphBuilder

Weights = Mapping[str, Array]
"""Tensors by their names in the checkpoint."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What the weights do not say."""

    layers: int
    heads: int
    max_tokens: int
    epsilon: float


class Products(Protocol):
    """How a product with a weight matrix is written into the graph: `FloatProducts`, or the 8-bit ones of `int8_products`."""

    @property
    def words_type(self) -> type[np.floating]:
        """Of the word table."""
        ...

    def product(self, graph: GraphBuilder, x: str, weight: Array, output: str) -> str:
        """`x` (…, in) times the transpose of `weight` (out, in)."""
        ...


class FloatProducts:
    """Notes the input of every product, for those who want to look at them."""

    words_type: type[np.floating] = np.float32

    def __init__(self) -> None:
        self.inputs: dict[str, str] = {}
        """Value by product."""

    def product(self, graph: GraphBuilder, x: str, weight: Array, output: str) -> str:
        self.inputs[output] = x
        return graph.node("MatMul", [x, graph.constant(f"{output}.weight", weight.T)], output)


def sentence_encoder(weights: Weights, shape: Shape, products: Products) -> ModelProto:
    """Embeddings, transformer layers, mean over the tokens, unit length."""
    graph = GraphBuilder()
    x = _embeddings(graph, weights, shape, products)
    for number in range(shape.layers):
        prefix = f"encoder.layer.{number}."
        ours = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
        x = _Layer(graph, ours, shape, products, f"layer{number}").write(x)
    mean = graph.node("ReduceMean", [x, graph.constant("tokens_axis", np.array([1]))], "mean", keepdims=0)
    graph.node("LpNormalization", [mean], "vectors", axis=1, p=2)
    dimensions = weights["embeddings.word_embeddings.weight"].shape[1]
    return graph.model(ids="input_ids", vectors="vectors", dimensions=dimensions)


def _embeddings(graph: GraphBuilder, weights: Weights, shape: Shape, products: Products) -> str:
    # Every text is one segment, so the segment's vector is added to the positions' once, here.
    places = weights["embeddings.position_embeddings.weight"][: shape.max_tokens] + weights["embeddings.token_type_embeddings.weight"][0]
    graph.node("Shape", ["input_ids"], "length", start=1, end=2)
    start, axis = graph.constant("places_start", np.array([0])), graph.constant("places_axis", np.array([0]))
    graph.node("Slice", [graph.constant("places", places), start, "length", axis], "place_vectors")
    table = graph.constant("words", weights["embeddings.word_embeddings.weight"].astype(products.words_type))
    words = graph.node("Cast", [graph.node("Gather", [table, "input_ids"], "word_rows")], "word_vectors", to=TensorProto.FLOAT)
    total = graph.node("Add", [words, "place_vectors"], "embedded")
    scale = graph.constant("embedded.scale", weights["embeddings.LayerNorm.weight"])
    bias = graph.constant("embedded.bias", weights["embeddings.LayerNorm.bias"])
    return graph.node("LayerNormalization", [total, scale, bias], "embedded_norm", epsilon=shape.epsilon)


@dataclass(frozen=True, slots=True)
class _Layer:
    graph: GraphBuilder
    weights: Weights
    shape: Shape
    products: Products
    name: str

    def write(self, x: str) -> str:
        attended = self._add_and_normalise("attention.output", self._attention(x), x)
        return self._add_and_normalise("output", self._feed_forward(attended), attended)

    def _attention(self, x: str) -> str:
        of = [f"attention.self.{part}" for part in ("query", "key", "value")]
        mixed = self._product(x, np.concatenate([self.weights[f"{part}.weight"] for part in of]), "mixing")
        parts = self.graph.split(mixed, [f"{self.name}.{part}" for part in ("query", "key", "value")], axis=-1)
        bias = self._constant("mixing.bias", np.concatenate([self.weights[f"{part}.bias"] for part in of]))
        heads = self.graph.node("MultiHeadAttention", [*parts, bias], f"{self.name}.heads", FUSED, num_heads=self.shape.heads)
        return self._product(heads, self.weights["attention.output.dense.weight"], "attention")

    def _feed_forward(self, x: str) -> str:
        wide = self._product(x, self.weights["intermediate.dense.weight"], "wide")
        bias = self._constant("wide.bias", self.weights["intermediate.dense.bias"])
        bent = self.graph.node("BiasGelu", [wide, bias], f"{self.name}.bent", FUSED)
        return self._product(bent, self.weights["output.dense.weight"], "narrow")

    def _add_and_normalise(self, part: str, out: str, x: str) -> str:
        names = (f"{part}.LayerNorm.weight", f"{part}.LayerNorm.bias", f"{part}.dense.bias")
        constants = [self._constant(name, self.weights[name]) for name in names]
        inputs = [out, x, *constants]
        return self.graph.node("SkipLayerNormalization", inputs, f"{out}.norm", FUSED, epsilon=self.shape.epsilon)

    def _product(self, x: str, weight: Array, part: str) -> str:
        return self.products.product(self.graph, x, weight, f"{self.name}.{part}")

    def _constant(self, name: str, values: Array) -> str:
        return self.graph.constant(f"{self.name}.{name}", values)
