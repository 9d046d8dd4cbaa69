"""Put ONNX's Gelu (opset 20) in the place of one in pieces.

In half precision the pieces lose more than the node: 1 + erf(x) keeps three digits at most where x is
negative, and the cube in the approximation by tanh needs float32, in the widest tensors of a ViT.

The pieces are found by what they compute: those around an Erf or a Tanh are evaluated by ONNX's reference.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import erf, pi, sqrt

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from ..runtime.types import Array
from .moves import evaluate, only_user

_OPERATORS = frozenset({"Mul", "Div", "Add", "Sub", "Pow", "Erf", "Tanh"})
_POINTS = np.linspace(-12, 12, 1201, dtype=np.float32)
_CLOSE = 1e-5
_FORMS = {
    "none": 0.5 * _POINTS * np.array([1 + erf(x / sqrt(2)) for x in _POINTS.tolist()]),
    "tanh": 0.5 * _POINTS * (1 + np.tanh(sqrt(2 / pi) * (_POINTS + 0.044715 * _POINTS**3))),
}


def with_whole_gelu(model: ir.Model) -> int:
    """Put a node in the place of each GELU that is understood, in place; returns how many."""
    opset = model.opset_imports[""]
    kernels = [node for node in model.graph if node.op_type in ("Erf", "Tanh")]
    found = sum(_replace(model.graph, node, opset) for node in kernels)
    RemoveUnusedNodesPass()(model)
    return found


def _replace(graph: ir.Graph, kernel: ir.Node, opset: int) -> bool:
    for last in _users(kernel):
        pieces, inputs = _pieces(last)
        if len(inputs) != 1:
            continue
        (x,) = inputs
        values = evaluate(pieces, x, last.outputs[0], _POINTS, opset)
        form = _form(values)
        if form:
            output = last.outputs[0]
            whole = ir.Value(name=f"{output.name}.whole", shape=output.shape, type=output.type)
            attribute = ir.AttrString("approximate", form)
            graph.insert_after(last, ir.Node("", "Gelu", [x], [attribute], outputs=[whole], name=whole.name))
            output.replace_all_uses_with(whole)
            return True
    return False


def _users(node: ir.Node) -> Iterator[ir.Node]:
    """Yield the nodes behind another one that alone read the result before."""
    user = only_user(node.outputs[0])
    while user is not None and user.op_type in _OPERATORS:
        yield user
        user = only_user(user.outputs[0])


def _pieces(last: ir.Node) -> tuple[list[ir.Node], set[ir.Value]]:
    """Return the nodes that compute a node's result number by number, in order, and of what."""
    nodes: list[ir.Node] = []
    inputs: set[ir.Value] = set()

    def visit(value: ir.Value | None) -> None:
        if value is None or _is_number(value):
            return
        node = value.producer()
        if node is None or node.op_type not in _OPERATORS or _has_weight(node):
            inputs.add(value)
        elif node not in nodes:
            for operand in node.inputs:
                visit(operand)
            nodes.append(node)

    visit(last.outputs[0])
    return nodes, inputs


def _is_number(value: ir.Value) -> bool:
    return value.const_value is not None and value.const_value.size == 1


def _has_weight(node: ir.Node) -> bool:
    """Return whether a node has a constant of more than one element, such as the bias before a GELU."""
    return any(v is not None and v.const_value is not None and not _is_number(v) for v in node.inputs)


def _form(values: Array | None) -> str | None:
    """Return which of the forms of GELU has these values at the points."""
    for name, expected in _FORMS.items():
        if values is not None and values.shape == expected.shape and np.abs(values - expected).max() < _CLOSE:
            return name
    return None
