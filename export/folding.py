"""Replace all that a graph derives from shapes alone by constants.

Exporters leave hundreds of Shape, Gather and Concat nodes in a ViT, and with them the resampling of
the position embedding.  With H and W fixed, all of it is constant but for the batch.  A tensor
depends on the *values* of the input if a chain of nodes leads to it that does not pass a Shape node;
every other tensor is evaluated by ONNX Runtime for one image and for two.  Where the two agree it is
a constant.  Where they differ only in the batch, it becomes a constant with the batch put in.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from ..runtime.errors import BundleError
from ..runtime.types import Array
from .onnx_file import remove_unused, run_model

_BATCH_LENGTH = "batch_length"  # int64 (1,): the batch of the input


def fold_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the graph with everything folded that does not depend on the values of its input.

    Raises
    ------
    BundleError
        If the graph has control flow, cannot run at its input's size or with two images, or uses
        the batch in a way that is not understood.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    varying = _value_dependent(graph)
    border = _border(graph, varying)
    one, two = _evaluate(model, border, (1, 2))
    nodes: list[onnx.NodeProto] = []
    for name in border:
        nodes += _replace(graph, name, one[name], two[name])
    if any(_BATCH_LENGTH in node.input for node in nodes):
        nodes = [*_batch_length(graph), *nodes]
    kept = [node for node in graph.node if varying.issuperset(o for o in node.output if o)]
    del graph.node[:]
    graph.node.extend([*nodes, *kept])
    remove_unused(graph)
    return result


def _evaluate(model: onnx.ModelProto, names: list[str], batches: tuple[int, ...]) -> list[dict[str, Array]]:
    """Evaluate the tensors ``names`` for batches of black images, one batch of each size in ``batches``."""
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    del probe.graph.output[:]
    probe.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    tensor = model.graph.input[0].type.tensor_type
    image = tuple(d.dim_value for d in tensor.shape.dim[1:])
    dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type)
    runs = run_model(probe, [np.zeros((batch, *image), dtype) for batch in batches])
    return [dict(zip(names, values, strict=True)) for values in runs]


def _value_dependent(graph: onnx.GraphProto) -> set[str]:
    """Return the names of all tensors that depend on the input's values, the input included."""
    # One pass is enough: the nodes of an ONNX graph come in topological order.  A Shape node ends the chain,
    # since sizes are fixed but for the batch.
    varying = {graph.input[0].name}
    for node in graph.node:
        if any(a.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS) for a in node.attribute):
            raise BundleError(
                f"node {node.name!r} ({node.op_type}) is control flow, which cannot be adopted."
            )
        if node.op_type not in ("Shape", "Size") and varying.intersection(node.input):
            varying.update(output for output in node.output if output)
    return varying


def _border(graph: onnx.GraphProto, varying: set[str]) -> list[str]:
    """Return the computed tensors that do not depend on the input's values but are used by those that do."""
    weights = {weight.name for weight in graph.initializer}
    used = [name for node in graph.node if varying.intersection(node.output) for name in node.input]
    return [name for name in dict.fromkeys(used) if name and name not in varying and name not in weights]


def _replace(graph: onnx.GraphProto, name: str, one: Array, two: Array) -> list[onnx.NodeProto]:
    """Make tensor ``name`` constant, from its values for one and two images; returns the nodes it needs."""
    if np.array_equal(one, two):
        _constant(graph, name, one)
        return []
    if one.dtype == np.int64 and one.ndim == 1 and one.shape == two.shape:
        return _replace_shape(graph, name, one, two)
    # Not a shape: then only a tensor that repeats one image's values along the batch is understood, such as
    # the CLS token, which exporters expand.
    repeated = one.ndim > 0 and two.shape == (2, *one.shape[1:]) and len(one) == 1
    if repeated and np.array_equal(two, np.concatenate([one, one])):
        tail = np.array(one.shape[1:], np.int64)
        _constant(graph, f"{name}.one", one)
        _constant(graph, f"{name}.tail", tail)
        target = helper.make_node("Concat", [_BATCH_LENGTH, f"{name}.tail"], [f"{name}.shape"], axis=0)
        return [target, helper.make_node("Expand", [f"{name}.one", f"{name}.shape"], [name])]
    raise BundleError(
        f"tensor {name!r} depends on the batch in a way that is not understood ({one.shape}, {two.shape})."
    )


def _replace_shape(graph: onnx.GraphProto, name: str, one: Array, two: Array) -> list[onnx.NodeProto]:
    """Replace a shape vector that has the batch as one entry: -1 for Reshape, else the batch put in."""
    differing = np.flatnonzero(one != two)
    users = [node for node in graph.node if name in node.input]
    entry = int(differing[0])
    if len(differing) != 1 or two[entry] != 2 * one[entry]:
        raise BundleError(f"shape {name!r} is {one} for one image and {two} for two: not understood.")
    # Reshape takes a single -1 for the rest, and reads 0 as "copy this axis": both must not be there already.
    if all(node.op_type == "Reshape" for node in users) and (one > 0).all():
        free = one.copy()
        free[entry] = -1
        _constant(graph, name, free)
        return []
    if one[entry] != 1:
        raise BundleError(f"shape {name!r} holds {one[entry]} times the batch: not understood.")
    parts = [(f"{name}.before", one[:entry]), (f"{name}.after", one[entry + 1 :])]
    for part, values in parts:
        _constant(graph, part, values)
    return [helper.make_node("Concat", [parts[0][0], _BATCH_LENGTH, parts[1][0]], [name], axis=0)]


def _batch_length(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """Make the nodes that compute the length of the input's first axis, int64 (1,)."""
    _constant(graph, f"{_BATCH_LENGTH}.axis", np.array([0], np.int64))
    return [
        helper.make_node("Shape", [graph.input[0].name], [f"{_BATCH_LENGTH}.shape"]),
        helper.make_node(
            "Gather", [f"{_BATCH_LENGTH}.shape", f"{_BATCH_LENGTH}.axis"], [_BATCH_LENGTH], axis=0
        ),
    ]


def _constant(graph: onnx.GraphProto, name: str, value: Any) -> None:
    graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
