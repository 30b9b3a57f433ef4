"""A few lines around `onnx.helper`: collects nodes and constants, and names a value after the node that makes it."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

Array = npt.NDArray[Any]

FUSED: Final = "com.microsoft"
"""The domain of ONNX Runtime's own operators."""


class GraphBuilder:
    def __init__(self) -> None:
        self._nodes: list[NodeProto] = []
        self._constants: dict[str, TensorProto] = {}

    def constant(self, name: str, values: Array | np.generic) -> str:
        """A name that is used again stands for the constant that first bore it."""
        if name not in self._constants:
            # `ascontiguousarray` alone would make a vector of a scalar.
            self._constants[name] = numpy_helper.from_array(np.ascontiguousarray(values).reshape(np.shape(values)), name)
        return name

    def node(self, operator: str, inputs: Sequence[str], output: str, domain: str = "", **attributes: Any) -> str:
        self._nodes.append(helper.make_node(operator, inputs, [output], name=output, domain=domain, **attributes))
        return output

    def split(self, x: str, outputs: Sequence[str], axis: int) -> Sequence[str]:
        self._nodes.append(helper.make_node("Split", [x], outputs, name=f"{x}.split", axis=axis, num_outputs=len(outputs)))
        return outputs

    def model(self, ids: str, vectors: str, dimensions: int) -> ModelProto:
        inputs = [helper.make_tensor_value_info(ids, TensorProto.INT64, ["batch", "tokens"])]
        outputs = [helper.make_tensor_value_info(vectors, TensorProto.FLOAT, ["batch", dimensions])]
        graph = helper.make_graph(self._nodes, "sentence_encoder", inputs, outputs, list(self._constants.values()))
        opsets = [helper.make_opsetid("", 20), helper.make_opsetid(FUSED, 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=10)
