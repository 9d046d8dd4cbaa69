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
from .dependence import subgraphs, value_dependent
from .evaluate import evaluate
from .onnx_file import remove_unused

_BATCH_LENGTH = "batch_length"  # int64 (1,): the batch of the input


def fold_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the graph with everything folded that does not depend on the values of its input.

    Raises
    ------
    BundleError
        If the graph has control flow that is left, cannot run at its input's size or with two images, or uses
        the batch in a way that is not understood.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    _refuse_control_flow(graph)
    varying = value_dependent(graph)
    border = _border(graph, varying)
    one, two = evaluate(model, border, (1, 2))
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


def _refuse_control_flow(graph: onnx.GraphProto) -> None:
    """Raise BundleError if there is control flow, which was not the same for every image."""
    for node in graph.node:
        if any(subgraphs(node)):
            raise BundleError(
                f"node {node.name!r} ({node.op_type}) is control flow that depends on the image or the "
                "batch, which cannot be adopted. torch.onnx.export(..., dynamo=True) leaves none."
            )


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
    # Along another axis, or with several rows for each image, such as the probe of an attention pooling.
    axis = _repeated_axis(one, two)
    if axis is not None:
        return _repeat(graph, name, one, axis)
    raise BundleError(
        f"tensor {name!r} depends on the batch in a way that is not understood ({one.shape}, {two.shape})."
    )


def _repeated_axis(one: Array, two: Array) -> int | None:
    """Return the axis along which the values for two images are those for one, twice."""
    if one.ndim != two.ndim:
        return None
    axes = [axis for axis in range(one.ndim) if two.shape[axis] != one.shape[axis]]
    same = len(axes) == 1 and _equal_but_for_rounding(np.concatenate([one, one], axes[0]), two)
    return axes[0] if same else None


def _equal_but_for_rounding(a: Array, b: Array) -> bool:
    """Return whether values are equal; products may round otherwise with more rows."""
    if not np.issubdtype(a.dtype, np.floating):
        return np.array_equal(a, b)
    return bool(np.allclose(a, b, rtol=1e-5, atol=1e-6 * float(np.abs(a).max(initial=0))))


def _repeat(graph: onnx.GraphProto, name: str, one: Array, axis: int) -> list[onnx.NodeProto]:
    """Make the nodes that repeat ``one`` along ``axis``, once for each image."""
    _constant(graph, f"{name}.one", one)
    repeats = _with_batch(graph, f"{name}.repeats", np.ones(one.ndim, np.int64), axis)
    return [*repeats, helper.make_node("Tile", [f"{name}.one", f"{name}.repeats"], [name])]


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
    return _with_batch(graph, name, one, entry)


def _with_batch(graph: onnx.GraphProto, name: str, one: Array, entry: int) -> list[onnx.NodeProto]:
    """Make the nodes of the vector ``name``: ``one``, with an entry multiplied by the batch."""
    parts = [(f"{name}.before", one[:entry]), (f"{name}.after", one[entry + 1 :])]
    for part, values in parts:
        _constant(graph, part, values)
    length, nodes = _BATCH_LENGTH, []
    if one[entry] != 1:
        length = f"{name}.length"
        _constant(graph, f"{name}.times", one[entry : entry + 1])
        nodes = [helper.make_node("Mul", [_BATCH_LENGTH, f"{name}.times"], [length])]
    return [*nodes, helper.make_node("Concat", [parts[0][0], length, parts[1][0]], [name], axis=0)]


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
    # Not numpy's ascontiguousarray, which makes a row of a single number: an index would keep an axis then.
    graph.initializer.append(numpy_helper.from_array(np.asarray(value, order="C"), name))
