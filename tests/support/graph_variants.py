"""Other forms of a ViT's graph with attention as nodes, to be timed against the product's own."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass


def with_gelu_nodes(model: ir.Model) -> int:
    """Put ONNX's Gelu in the place of x/2 * (1 + erf(x/sqrt(2))); returns how often."""
    found = 0
    for erf in [node for node in model.graph if node.op_type == "Erf"]:
        scaled = erf.inputs[0].producer() if erf.inputs[0] else None
        last = erf
        for _ in range(3):
            last = next(iter(last.outputs[0].uses())).node
        if scaled is None or [last.op_type, scaled.op_type] != ["Mul", "Div"]:
            continue
        gelu = _after(model.graph, last, "Gelu", [_in(scaled)])
        last.outputs[0].replace_all_uses_with(gelu)
        found += 1
    RemoveUnusedNodesPass()(model)
    return found


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


def with_heads_last(model: ir.Model, products: bool) -> int:
    """Give each Attention (B,T,C) instead of (B,heads,T,C/heads), so that nothing is transposed.

    Of Q, K and V from one product, with ``products`` each gets its own; else the result is split.
    """
    found = 0
    for node in [node for node in model.graph if node.op_type == "Attention"]:
        heads = _shape(_in(node))[1]
        parts = _parts(model.graph, node, products)
        merge = next(iter(next(iter(node.outputs[0].uses())).node.outputs[0].uses())).node
        assert merge.op_type == "Reshape"
        for k, part in enumerate(parts):
            node.replace_input_with(k, part)
        node.attributes.add(ir.AttrInt64("q_num_heads", heads))
        node.attributes.add(ir.AttrInt64("kv_num_heads", heads))
        node.outputs[0].shape = merge.outputs[0].shape
        merge.outputs[0].replace_all_uses_with(node.outputs[0])
        found += 1
    RemoveUnusedNodesPass()(model)
    return found


def _parts(graph: ir.Graph, attention: ir.Node, products: bool) -> list[ir.Value]:
    """Q, K and V, each (B,T,C), before they were cut into heads."""
    first = _in(attention).producer()
    assert first is not None
    if first.op_type == "Transpose":
        return [_in(_from(_in(_from(value)))) for value in attention.inputs if value is not None]
    packed = _in(_from(_in(_from(_in(first)))))
    add = _from(packed)
    product, bias = _from(_in(add)), _values(add.inputs[1])
    weight = _values(product.inputs[1])
    assert weight is not None
    assert bias is not None
    if not products:
        split = ir.Node(
            "", "Split", [packed], [ir.AttrInt64("axis", -1), ir.AttrInt64("num_outputs", 3)], num_outputs=3
        )
        graph.insert_after(add, split)
        for k, part in enumerate(split.outputs):
            part.name, part.type = f"{packed.name}.part{k}", packed.type
        return list(split.outputs)
    found = []
    for k, (columns, shift) in enumerate(zip(np.split(weight, 3, 1), np.split(bias, 3), strict=True)):
        inner = _after(graph, add, "MatMul", [_in(product), _weight(graph, f"{packed.name}.w{k}", columns)])
        node = inner.producer()
        assert node is not None
        found.append(_after(graph, node, "Add", [inner, _weight(graph, f"{packed.name}.b{k}", shift)]))
    return found


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


def _shape(value: ir.Value) -> list[int]:
    assert value.shape is not None
    return [length if isinstance(length, int) else -1 for length in value.shape]


def _values(value: ir.Value | None) -> npt.NDArray[np.float32] | None:
    return None if value is None or value.const_value is None else value.const_value.numpy()
