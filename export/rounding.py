"""A graph in float32 that rounds every number to float16 where a graph in half precision does.

ONNX Runtime's CPU computes float16 in float32 and rounds only where it must, so a graph in half precision
loses less there than on a GPU, which rounds what every node gives.  This one loses as much wherever it runs.
"""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir

HALF, FLOAT = ir.DataType.FLOAT16, ir.DataType.FLOAT


def with_roundings(model: ir.Model) -> ir.Model:
    """Return the graph with float32 in place of float16, its results rounded to float16 and back."""
    result = model.clone()
    graph = result.graph
    first = next(iter(graph))
    for weight in [value for value in graph.initializers.values() if value.dtype == HALF]:
        uses = list(weight.uses())
        cast = _cast(weight, FLOAT)
        graph.insert_before(first, cast)
        _replace(uses, cast.outputs[0])
    for node in [node for node in graph if node.domain == ""]:
        for output in node.outputs:
            if output.dtype == HALF:
                _round(graph, node, output)
    return result


def _round(graph: ir.Graph, node: ir.Node, output: ir.Value) -> None:
    """Round one of a node's results, which is in float32 from then on."""
    uses = list(output.uses())
    if node.op_type == "Cast":
        back = _cast(output, FLOAT)
        graph.insert_after(node, back)
    else:
        output.type = ir.TensorType(FLOAT)
        there = _cast(output, HALF)
        back = _cast(there.outputs[0], FLOAT)
        graph.insert_after(node, [there, back])
    _replace(uses, back.outputs[0])
    for index, value in enumerate(graph.outputs):
        if value is output:
            graph.outputs[index] = back.outputs[0]


def _replace(uses: Iterable[tuple[ir.Node, int]], value: ir.Value) -> None:
    for node, index in uses:
        node.replace_input_with(index, value)


def _cast(value: ir.Value, dtype: ir.DataType) -> ir.Node:
    name = f"{value.name}.to_half" if dtype == HALF else f"{value.name}.rounded"
    output = ir.Value(name=name, shape=value.shape, type=ir.TensorType(dtype))
    return ir.Node("", "Cast", [value], [ir.AttrInt64("to", dtype.value)], outputs=[output], name=name)
