"""8-bit products: integer matrix products, at twice the speed of float32, whose vectors keep a cosine of 0.998 to float32's.

`embedding_model` measures `input_ranges` with the float graph, then writes the graph again with `Int8Products`.
Three things keep the vectors close: each token has a scale of its own (so a text's vector never hangs on its batch);
input channels that run large hand a part of their size over to the weights (SmoothQuant, Xiao et al. 2023); and the
products that lose most by it, into the attention and after the activation, take 16 bits of their inputs, in two halves.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import onnxruntime
from onnx import ModelProto, helper

from inference_cache_toolkit.graph_builder import FUSED, Array, GraphBuilder

HANDED_OVER: Final = {"mixing": 0.2, "attention": 0.3, "wide": 0.65, "narrow": 0.3}
"""How much of a channel's size the weights take over, by product; found by trial on labelled questions."""

IN_TWO_HALVES: Final = frozenset({"mixing", "narrow"})

LOW_HALF: Final = np.float32(1 / 254)
"""A step of the low half, in steps of the high one: what rounding left over lies in [-1/2, 1/2]."""


@dataclass(frozen=True, slots=True)
class Int8Products:
    ranges: Mapping[str, Array]
    """By product, the largest size of each input channel."""
    # Half precision halves the largest table of the file; its error is far below that of the products.
    words_type: type[np.floating] = np.float16

    def product(self, graph: GraphBuilder, x: str, weight: Array, output: str) -> str:
        part = output.rpartition(".")[2]
        shares = shares_of_channels(self.ranges[output], weight, HANDED_OVER[part])
        evened = graph.node("Mul", [x, graph.constant(f"{output}.shares", 1 / shares)], f"{output}.evened")
        largest = _largest_by_token(graph, evened, output)
        steps = graph.node("Div", [graph.constant("steps", np.float32(127)), largest], f"{output}.steps")
        scaled = graph.node("Mul", [evened, steps], f"{output}.scaled")
        sums = _halves(graph, scaled, weight * shares, output) if part in IN_TWO_HALVES else _whole(graph, scaled, weight * shares, output)
        return graph.node("Mul", [sums, largest], output)


def shares_of_channels(ranges: Array, weight: Array, handed_over: float) -> Array:
    """By what each input channel is divided, and its weights multiplied: powers of two, so that nothing is rounded by it."""
    inputs, weights = np.maximum(ranges, 1e-6), np.maximum(np.abs(weight).max(axis=0), 1e-6)
    shares = handed_over * np.log2(inputs) - (1 - handed_over) * np.log2(weights)
    powers: Array = np.exp2(np.rint(shares - shares.mean())).astype(np.float32)
    return powers


def int8_weight(weight: Array) -> tuple[Array, Array]:
    """Codes int8 (in, out) and one scale for each output."""
    scales = np.abs(weight).max(axis=1) / 127
    codes = np.rint(weight / scales[:, np.newaxis]).astype(np.int8)
    return codes.T, scales.astype(np.float32)


def input_ranges(model: ModelProto, inputs: Mapping[str, str], ids: Sequence[Array]) -> dict[str, Array]:
    """The largest size of each channel of each product's input, over all `ids`. `model` is the float graph."""
    watched = list(dict.fromkeys(inputs.values()))
    for name in watched:
        model.graph.output.append(helper.make_empty_tensor_value_info(name))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    largest: dict[str, Array] = {name: np.zeros((), np.float32) for name in watched}
    for tokens in ids:
        for name, values in zip(watched, session.run(watched, {"input_ids": tokens}), strict=True):
            largest[name] = np.maximum(largest[name], np.abs(values).max(axis=(0, 1)))
    return {product: largest[name] for product, name in inputs.items()}


def _largest_by_token(graph: GraphBuilder, x: str, output: str) -> str:
    sizes = graph.node("Abs", [x], f"{output}.sizes")
    return graph.node("ReduceMax", [sizes, graph.constant("last_axis", np.array([-1]))], f"{output}.largest")


def _whole(graph: GraphBuilder, scaled: str, weight: Array, output: str) -> str:
    return _integer_product(graph, _codes(graph, scaled, "one", f"{output}.codes"), weight, output)


def _halves(graph: GraphBuilder, scaled: str, weight: Array, output: str) -> str:
    """Both halves go through one product, one after the other along the tokens, since reading the weights is what costs."""
    low_step = graph.constant("low_half", LOW_HALF)
    high = _codes(graph, scaled, "one", f"{output}.codes")
    rounded = graph.node("DequantizeLinear", [high, "one", "middle"], f"{output}.rounded")
    rest = graph.node("Sub", [scaled, rounded], f"{output}.rest")
    low = _codes(graph, rest, low_step, f"{output}.low_codes")
    both = graph.node("Concat", [high, low], f"{output}.both_codes", axis=1)
    sums = graph.split(_integer_product(graph, both, weight, output), [f"{output}.high", f"{output}.low"], axis=1)
    low_sum = graph.node("Mul", [sums[1], low_step], f"{output}.low_scaled")
    return graph.node("Add", [sums[0], low_sum], f"{output}.sum")


def _codes(graph: GraphBuilder, x: str, step: str, output: str) -> str:
    graph.constant("one", np.float32(1))
    return graph.node("QuantizeLinear", [x, step, graph.constant("middle", np.uint8(128))], output)


def _integer_product(graph: GraphBuilder, codes: str, weight: Array, output: str) -> str:
    stored, scales = int8_weight(weight)
    inputs = [
        codes,
        graph.constant(f"{output}.weight", stored),
        "one",
        graph.constant(f"{output}.scales", scales / 127),
        "middle",
    ]
    return graph.node("MatMulIntegerToFloat", inputs, f"{output}.integer", FUSED)
