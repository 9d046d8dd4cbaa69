"""Find out what nodes that only move elements (Reshape, Transpose, Slice, ...) move where.

The same order is written in many ways.  So ONNX's reference evaluates the nodes with the number of each
element in its place: where the numbers end up is the answer, whatever the nodes are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from ..runtime.types import Array

_OPERATORS = frozenset({"Reshape", "Transpose", "Squeeze", "Unsqueeze", "Gather", "Slice", "Split"})


@dataclass(frozen=True)
class Moves:
    """Nodes one after the other that only move elements, of the tensor ``start`` to the tensor ``end``."""

    start: ir.Value
    nodes: tuple[ir.Node, ...]
    end: ir.Value


def moves_before(end: ir.Value) -> Moves:
    """Return all moves that end in a tensor."""
    nodes: list[ir.Node] = []
    start = end
    while (node := start.producer()) is not None and _moves(node):
        nodes.insert(0, node)
        start = first_input(node)
    return Moves(start, tuple(nodes), end)


def moves_after(start: ir.Value) -> Iterator[Moves]:
    """Yield the moves that begin with a tensor, longer and longer, up to a result that several nodes read."""
    moves = Moves(start, (), start)
    yield moves
    while (node := only_user(moves.end)) is not None and _moves(node) and len(node.outputs) == 1:
        moves = Moves(start, (*moves.nodes, node), node.outputs[0])
        yield moves


class Mover:
    """Moves elements as nodes of one graph do; blocks of a ViT do the same, so results are kept."""

    def __init__(self, opset: int) -> None:
        self._opset = opset
        self._known: dict[tuple[str, tuple[int, ...]], Array | None] = {}

    def moved(self, moves: Moves, elements: Array) -> Array | None:
        """Return where ``elements`` of the first tensor end up; None if they do not fit the nodes.

        The same nodes must always be given the same elements for one shape.
        """
        if not moves.nodes:
            return elements
        taken = [*(first_input(node) for node in moves.nodes[1:]), moves.end]
        described = [_description(node, value) for node, value in zip(moves.nodes, taken, strict=True)]
        known = (repr(described), elements.shape)
        if known not in self._known:
            self._known[known] = evaluate(moves.nodes, moves.start, moves.end, elements, self._opset)
        return self._known[known]


def evaluate(
    nodes: Sequence[ir.Node], start: ir.Value, end: ir.Value, values: Array, opset: int
) -> Array | None:
    """Return the tensor ``end`` that ONNX's reference computes of ``start`` by ``nodes`` and their constants.

    None if the values do not fit the nodes.
    """
    constants = {
        str(value.name): value.const_value.numpy()
        for node in nodes
        for value in node.inputs
        if value is not None and value.const_value is not None
    }
    kind = helper.np_dtype_to_tensor_dtype(values.dtype)
    graph = helper.make_graph(
        [ir.to_proto(node) for node in nodes],
        "part",
        [helper.make_tensor_value_info(str(start.name), kind, values.shape)],
        [onnx.ValueInfoProto(name=str(end.name))],
        [numpy_helper.from_array(np.asarray(tensor), name) for name, tensor in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    try:
        (found,) = ReferenceEvaluator(model).run(None, {str(start.name): values})
    except Exception:  # the reference's errors, for a shape that does not fit, have no base of their own
        return None
    return np.asarray(found)


def only_user(value: ir.Value) -> ir.Node | None:
    """Return the node that alone reads a tensor."""
    users = {use.node for use in value.uses()}
    return users.pop() if len(users) == 1 and not value.is_graph_output() else None


def first_input(node: ir.Node) -> ir.Value:
    """Return a node's first input, which it must have."""
    value = node.inputs[0]
    assert value is not None, f"{node.op_type} without an input"
    return value


def _moves(node: ir.Node) -> bool:
    """Return whether a node moves the elements of its first input in a way that is always the same."""
    others = [value for value in node.inputs[1:] if value is not None]
    return node.op_type in _OPERATORS and all(value.const_value is not None for value in others)


def _description(node: ir.Node, output: ir.Value) -> tuple[object, ...]:
    """Return all that decides what a node puts into one of its outputs."""
    attributes = sorted((name, repr(a.value)) for name, a in node.attributes.items())
    constants = [
        value.const_value.numpy().tolist()
        for value in node.inputs[1:]
        if value is not None and value.const_value is not None
    ]
    return node.op_type, list(node.outputs).index(output), attributes, constants
