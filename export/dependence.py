"""Say which tensors of an ONNX graph depend on what: on other tensors, or on the pixels of the input."""

from __future__ import annotations

from collections.abc import Iterator

import onnx


def subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """Yield the graphs that a node of control flow (If, Loop, Scan) carries."""
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield attribute.g
        yield from attribute.graphs


def inputs_of(node: onnx.NodeProto) -> list[str]:
    """Return the tensors that a node reads, with those that its subgraphs take from outside."""
    names = [name for name in node.input if name]
    for graph in subgraphs(node):
        inner = {value.name for value in (*graph.input, *graph.initializer)}
        for child in graph.node:
            names += [name for name in inputs_of(child) if name not in inner]
            inner.update(child.output)
        names += [output.name for output in graph.output if output.name not in inner]
    return names


def value_dependent(graph: onnx.GraphProto) -> set[str]:
    """Return the names of all tensors that depend on the first input's values, it included."""
    # A Shape node ends the chain, since sizes are fixed but for the batch.
    return computed_from(graph, {value.name for value in graph.input[:1]}, ("Shape", "Size"))


def computed_from(graph: onnx.GraphProto, names: set[str], end: tuple[str, ...] = ()) -> set[str]:
    """Return ``names`` and all tensors that are computed from them, but not by the operators ``end``."""
    found = set(names)
    for node in graph.node:  # they come in topological order, so that one pass is enough
        if node.op_type not in end and found.intersection(inputs_of(node)):
            found.update(output for output in node.output if output)
    return found
