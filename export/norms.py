"""Put a LayerNormalization in the place of a norm in pieces, which older exporters leave.

    (x - mean(x)) / sqrt(mean((x - mean(x))^2) + epsilon) * scale + bias  ->  LayerNormalization(x)

The node takes and gives float16 where the pieces could not: whoever runs it keeps mean and variance in
float32 (``stash_type`` 1).  ONNX Runtime makes the same of the pieces while it loads a graph, but where they
are in float32 behind a tensor in float16 it makes a node whose types do not agree (1.32).
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

_PIECES = frozenset({"Pow", "Sqrt", "Reciprocal"})


@dataclass(frozen=True)
class _Norm:
    """A norm in pieces, over the last axis of ``x``; ``last`` is the sum that ends it."""

    x: ir.Value
    scale: ir.Value
    bias: ir.Value
    epsilon: float
    last: ir.Node


def with_whole_norms(model: ir.Model) -> int:
    """Put a node in the place of each norm that is understood, in place; returns how many.

    ``model`` has to be of opset 18 or later.
    """
    found = [norm for node in model.graph if (norm := _norm(node))]
    for norm in found:
        output = norm.last.outputs[0]
        whole = ir.Value(name=f"{output.name}.whole", shape=output.shape, type=output.type)
        attributes = [ir.AttrInt64("axis", -1), ir.AttrFloat32("epsilon", norm.epsilon)]
        node = ir.Node(
            "",
            "LayerNormalization",
            [norm.x, norm.scale, norm.bias],
            [*attributes, ir.AttrInt64("stash_type", 1)],
            outputs=[whole],
            name=f"{norm.last.name}.whole",
        )
        model.graph.insert_after(norm.last, node)
        output.replace_all_uses_with(whole)
    RemoveUnusedNodesPass()(model)
    return len(found)


def norms_in_pieces(model: ir.Model) -> bool:
    """Return whether a graph has powers and roots, which a ViT has in norms alone."""
    return any(node.op_type in _PIECES for node in model.graph)


def _norm(variance: ir.Node) -> _Norm | None:
    """Return the norm of which a node is the variance."""
    x, difference = _centred(_squared(variance))
    if x is None or difference is None:
        return None
    shifted = _only_user(variance, "Add")
    root = _only_user(shifted, "Sqrt")
    inverse = _only_user(root, "Reciprocal")
    divided = _only_user(inverse, "Mul") if inverse else _only_user(root, "Div")
    scaled = _only_user(divided, "Mul")
    last = _only_user(scaled, "Add")
    if shifted is None or divided is None or scaled is None or last is None:
        return None
    if difference not in divided.inputs or (not inverse and divided.inputs[0] is not difference):
        return None
    numbers = [n for value in shifted.inputs if (n := _number(value)) is not None]
    scale, bias = _weight(scaled, x), _weight(last, x)
    if scale is None or bias is None or len(numbers) != 1:
        return None
    return _Norm(x, scale, bias, numbers[0], last)


def _squared(variance: ir.Node) -> ir.Value | None:
    """Return the tensor of whose squares a node takes the mean over the last axis."""
    square = _mean_of(variance)
    node = square.producer() if square is not None else None
    if node is None or len(node.inputs) != 2:
        return None
    first, second = node.inputs
    is_square = _number(second) == 2 if node.op_type == "Pow" else node.op_type == "Mul" and first is second
    return first if is_square else None


def _centred(difference: ir.Value | None) -> tuple[ir.Value | None, ir.Value | None]:
    """Return x and x - mean(x), if ``difference`` is that."""
    node = difference.producer() if difference is not None else None
    if node is None or node.op_type != "Sub":
        return None, None
    x, mean = node.inputs
    of_mean = mean.producer() if mean is not None else None
    return (x, difference) if of_mean is not None and _mean_of(of_mean) is x else (None, None)


def _mean_of(node: ir.Node) -> ir.Value | None:
    """Return what a node takes the mean of over the last axis alone, which stays as one of length one."""
    if node.op_type != "ReduceMean" or len(node.inputs) != 2 or node.inputs[0] is None:
        return None
    keeps = node.attributes.get("keepdims")
    axes = ir.convenience.get_const_tensor(node.inputs[1]) if node.inputs[1] is not None else None
    last = {-1, len(node.inputs[0].shape) - 1} if node.inputs[0].shape is not None else {-1}
    if axes is None or axes.size != 1 or axes.numpy().item() not in last:
        return None
    return node.inputs[0] if keeps is None or keeps.as_int() == 1 else None


def _only_user(node: ir.Node | None, operator: str) -> ir.Node | None:
    """Return the node that alone reads a node's result, if it is of the kind ``operator``."""
    uses = list(node.outputs[0].uses()) if node is not None and not node.outputs[0].is_graph_output() else []
    users = {use.node for use in uses}
    user = users.pop() if len(users) == 1 else None
    return user if user is not None and user.op_type == operator else None


def _weight(node: ir.Node, x: ir.Value) -> ir.Value | None:
    """Return the one input of a node that is a constant along the last axis of ``x``."""
    width = x.shape[-1] if x.shape is not None else None
    found = [
        v
        for v in node.inputs
        if v is not None and v.const_value is not None and v.shape is not None and list(v.shape) == [width]
    ]
    return found[0] if len(found) == 1 else None


def _number(value: ir.Value | None) -> float | None:
    """Return a constant of one element."""
    tensor = ir.convenience.get_const_tensor(value) if value is not None else None
    return float(tensor.numpy().item()) if tensor is not None and tensor.size == 1 else None
