"""Other forms of a ViT's graph with attention as nodes, to be timed against the product's own."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass


def with_scales_in_products(model: ir.Model) -> int:
    """Multiply the weights and the bias before each LayerScale by it, and drop it; returns how often."""
    found = 0
    for node in [node for node in model.graph if node.op_type == "Mul"]:
        scale, add = _values(node.inputs[1]), _in(node).producer()
        product = _in(add).producer() if add is not None and add.op_type == "Add" else None
        if scale is None or scale.ndim != 1 or add is None or product is None or product.op_type != "MatMul":
            continue
        for user in (product, add):
            values = _values(user.inputs[1])
            assert values is not None
            user.replace_input_with(1, _weight(model.graph, f"{node.name}.{user.op_type}", values * scale))
        node.outputs[0].replace_all_uses_with(add.outputs[0])
        found += 1
    RemoveUnusedNodesPass()(model)
    return found


def with_products_apart(model: ir.Model) -> int:
    """Give each part of a product that is split a product of its own; returns how many were split."""
    splits = [node for node in model.graph if node.op_type == "Split"]
    for split in splits:
        add = _from(_in(split))
        product = _from(_in(add))
        weight, bias = _values(product.inputs[1]), _values(add.inputs[1])
        assert weight is not None
        assert bias is not None
        parts = zip(split.outputs, np.split(weight, 3, 1), np.split(bias, 3), strict=True)
        for part, columns, shift in parts:
            inner = _after(
                model.graph, add, "MatMul", [_in(product), _weight(model.graph, f"{part.name}.w", columns)]
            )
            whole = _after(
                model.graph, _from(inner), "Add", [inner, _weight(model.graph, f"{part.name}.b", shift)]
            )
            part.replace_all_uses_with(whole)
    RemoveUnusedNodesPass()(model)
    return len(splits)


def _after(graph: ir.Graph, node: ir.Node, operator: str, inputs: list[ir.Value]) -> ir.Value:
    """A new node behind another one, and its output."""
    name = f"{node.name}.{operator}.{len(inputs)}.{inputs[-1].name}"
    value = ir.Value(name=name, type=inputs[0].type, shape=None)
    graph.insert_after(node, ir.Node("", operator, inputs, outputs=[value], name=name))
    return value


def _weight(graph: ir.Graph, name: str, values: npt.NDArray[np.float32]) -> ir.Value:
    tensor = ir.tensor(np.ascontiguousarray(values), name=name)
    value = ir.Value(
        name=name, shape=ir.Shape(values.shape), type=ir.TensorType(tensor.dtype), const_value=tensor
    )
    graph.register_initializer(value)
    return value


def _in(node: ir.Node) -> ir.Value:
    value = node.inputs[0]
    assert value is not None
    return value


def _from(value: ir.Value) -> ir.Node:
    node = value.producer()
    assert node is not None
    return node


def _values(value: ir.Value | None) -> npt.NDArray[np.float32] | None:
    return None if value is None or value.const_value is None else value.const_value.numpy()
