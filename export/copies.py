"""Merge what a graph computes more than once.

An export whose wrapper calls the model once for each output holds the whole ViT that many times.  The copies
differ in names, and in casts of a tensor to the type that it has already.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from hashlib import sha256

import onnx
from onnx import helper, numpy_helper

from .dependence import subgraphs


def merge_copies(model: onnx.ModelProto, kept: Collection[str]) -> onnx.ModelProto:
    """Return the graph with equal nodes merged; the tensors ``kept`` and the outputs keep their names."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    kept = {*kept, *(output.name for output in graph.output)}
    types = _types(model)
    first: dict[tuple[object, ...], Sequence[str]] = {}
    new: dict[str, str] = {}
    for weight in graph.initializer:
        (new[weight.name],) = first.setdefault(_content(weight), [weight.name])
    nodes = []
    for node in graph.node:
        node.input[:] = [new.get(name, name) for name in node.input]
        same = _same(node, types, first)
        if same == list(node.output):
            nodes.append(node)
            continue
        new.update(zip(node.output, same, strict=True))
        nodes += [helper.make_node("Identity", [new[n]], [n], node.name) for n in node.output if n in kept]
    del graph.node[:]
    graph.node.extend(nodes)
    return result


def _same(
    node: onnx.NodeProto, types: dict[str, int], first: dict[tuple[object, ...], Sequence[str]]
) -> Sequence[str]:
    """Return the first tensors that equal the outputs of ``node``, which may be those outputs."""
    outputs = list(node.output)
    if any(subgraphs(node)):
        return outputs
    if node.op_type == "Identity" or _is_no_cast(node, types):
        return list(node.input)
    attributes = sorted(a.SerializeToString(deterministic=True) for a in node.attribute)
    key = (node.domain, node.op_type, *node.input, len(node.output), *attributes)
    return first.setdefault(key, outputs)


def _is_no_cast(node: onnx.NodeProto, types: dict[str, int]) -> bool:
    """Return whether a node casts a tensor to its own type."""
    if node.op_type != "Cast":
        return False
    wanted = next(int(a.i) for a in node.attribute if a.name == "to")
    return types.get(node.input[0]) == wanted


def _types(model: onnx.ModelProto) -> dict[str, int]:
    """Infer the element types of a graph's tensors."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    values = (*graph.input, *graph.value_info, *graph.output)
    weights = {weight.name: weight.data_type for weight in graph.initializer}
    return {**weights, **{value.name: value.type.tensor_type.elem_type for value in values}}


def _content(weight: onnx.TensorProto) -> tuple[object, ...]:
    values = numpy_helper.to_array(weight)
    return weight.data_type, values.shape, sha256(values.tobytes()).digest()
