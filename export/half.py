"""Turn a graph to half precision where that is safe, by Casts in the graph itself.

Every runtime that follows a graph's types (TensorRT 10 and 11, TensorRT-RTX, ONNX Runtime) then computes the
same.  Three rules decide the type of a node:

    products     MatMul, Gemm, Conv, Attention  float16, with their weights
    the stream   what is added to the residual stream (an Add of two computed tensors), and whole norms
                                                float32, or float16 where that was measured to do
    sensitive    softmax, and what norms are made of: means, powers, roots
                                                float32
    all others   follow their inputs: float32 if any of them is, else float16

Input and CLS stay float32, tokens leave as float16.  An Attention and a LayerNormalization may take and give
float16; whoever runs them computes a softmax, means and variances in float32 inside.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import LiftConstantsToInitializersPass

from ..runtime.errors import BundleError
from ..runtime.types import Array

HALF, FLOAT = ir.DataType.FLOAT16, ir.DataType.FLOAT

PRODUCTS = frozenset({"MatMul", "Gemm", "Conv", "Einsum", "Attention"})
SENSITIVE = frozenset(
    {
        *("Softmax", "LogSoftmax", "Pow", "Sqrt", "Reciprocal", "Exp"),
        *("ReduceMean", "ReduceSum", "ReduceL2", "ReduceSumSquare", "InstanceNormalization"),
    }
)
_LARGEST = float(np.finfo(np.float16).max)


def to_half(model: ir.Model, half_outputs: tuple[str, ...], stream: ir.DataType = ir.DataType.FLOAT) -> None:
    """Turn a float32 graph into half precision, in place; ``half_outputs`` become float16.

    ``stream`` is the type of the residual stream and of whole norms.

    Raises
    ------
    BundleError
        If a weight is beyond the range of float16.
    """
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    for value in model.graph.initializers.values():
        if value.const_value is not None:  # those that were nodes have no type yet
            value.type = ir.TensorType(value.const_value.dtype)
    converter = _Converter(model.graph, stream)
    for node in list(model.graph):
        converter.convert(node)
    for index, output in enumerate(model.graph.outputs):
        wanted = HALF if output.name in half_outputs else FLOAT
        if output.dtype != wanted:
            converter.cast_output(index, wanted)
    unused = [name for name, value in model.graph.initializers.items() if not value.uses()]
    for name in unused:
        del model.graph.initializers[name]


class _Converter:
    """Converts nodes, and makes at most one twin of each value in the other type."""

    def __init__(self, graph: ir.Graph, stream: ir.DataType) -> None:
        self._graph = graph
        self._stream = stream
        self._twins: dict[tuple[int, ir.DataType], ir.Value] = {}

    def convert(self, node: ir.Node) -> None:
        """Give the node's float inputs and outputs the type that the rules demand."""
        if node.op_type == "Cast":
            return
        wanted = _wanted(node, self._stream)
        for index, value in enumerate(node.inputs):
            if value is not None and value.dtype in (HALF, FLOAT) and value.dtype != wanted:
                node.replace_input_with(index, self._twin(value, wanted, node))
        for output in node.outputs:
            if output.dtype in (HALF, FLOAT):
                output.type = ir.TensorType(wanted)

    def cast_output(self, index: int, dtype: ir.DataType) -> None:
        """Cast an output of the graph to another type, under its own name."""
        value = self._graph.outputs[index]
        name, value.name = value.name, f"{value.name}.computed"
        cast = _cast(value, dtype, name or "")
        self._graph.append(cast)
        self._graph.outputs[index] = cast.outputs[0]

    def _twin(self, value: ir.Value, dtype: ir.DataType, user: ir.Node) -> ir.Value:
        key = (id(value), dtype)
        if key not in self._twins:
            if value.is_initializer():
                self._twins[key] = self._weight(value, dtype)
            else:
                cast = _cast(value, dtype, f"{value.name}.{_suffix(dtype)}")
                self._graph.insert_before(user, cast)
                self._twins[key] = cast.outputs[0]
        return self._twins[key]

    def _weight(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        tensor, name = value.const_value, f"{value.name}.{_suffix(dtype)}"
        if tensor is None:
            raise BundleError(f"the weight {value.name!r} has no values. Export the source again.")
        values = tensor.numpy()
        if dtype == HALF:
            _check_range(values, value.name)
        shape = ir.Shape(values.shape)
        # Converted when it is written, one weight after the other: they are never all in memory twice.
        lazy = ir.LazyTensor(
            lambda: ir.tensor(tensor.numpy().astype(dtype.numpy()), name=name), dtype, shape, name=name
        )
        twin = ir.Value(name=name, shape=shape, type=ir.TensorType(dtype), const_value=lazy)
        self._graph.register_initializer(twin)
        return twin


def _wanted(node: ir.Node, stream: ir.DataType) -> ir.DataType:
    """Return the type in which a node computes."""
    if node.op_type in PRODUCTS:
        return HALF
    if node.op_type in SENSITIVE:
        return FLOAT
    if node.op_type == "LayerNormalization" or is_residual(node):
        return stream
    return FLOAT if any(value.dtype == FLOAT for value in _computed(node)) else HALF


def is_residual(node: ir.Node) -> bool:
    """Return whether a node adds a branch to the residual stream, whose sum grows over all blocks."""
    return node.op_type == "Add" and len(_computed(node)) == 2


def _computed(node: ir.Node) -> list[ir.Value]:
    """Return a node's floating inputs but weights, which get a twin of whatever type is needed."""
    return [v for v in node.inputs if v is not None and not v.is_initializer() and v.dtype in (HALF, FLOAT)]


def _cast(value: ir.Value, dtype: ir.DataType, name: str) -> ir.Node:
    output = ir.Value(name=name, shape=value.shape, type=ir.TensorType(dtype))
    return ir.Node(
        "", "Cast", [value], [ir.AttrInt64("to", dtype.value)], outputs=[output], name=f"{name}.cast"
    )


def _check_range(values: Array, name: str | None) -> None:
    largest = float(np.abs(values).max(initial=0))
    if largest > _LARGEST:
        raise BundleError(
            f"the weight {name} holds {largest:.3g}, beyond float16's {_LARGEST:.0f}. Use --precision fp32."
        )


def _suffix(dtype: ir.DataType) -> str:
    return "as_float16" if dtype == HALF else "as_float32"
