"""Replace branches whose condition is always the same by what they compute.

Exporters leave an If where the traced code looked at a shape, which is fixed for one image size.
"""

from __future__ import annotations

import onnx
from onnx import helper

from .dependence import computed_from, subgraphs, value_dependent
from .evaluate import evaluate


def inline_branches(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the graph, whose input has its final size, without the Ifs that decide by shapes and constants.

    An If that decides by the pixels or by the batch stays, as do Loop and Scan: see folding.py.
    """
    while constant := _constant_conditions(model):
        result = onnx.ModelProto()
        result.CopyFrom(model)
        del result.graph.node[:]
        for node in model.graph.node:
            known = node.op_type == "If" and node.input[0] in constant
            result.graph.node.extend(_taken(node, constant[node.input[0]]) if known else [node])
        model = result
    return model


def _constant_conditions(model: onnx.ModelProto) -> dict[str, bool]:
    """Evaluate the conditions of the outermost Ifs, and return those that do not depend on the image."""
    graph = model.graph
    conditions = dict.fromkeys(node.input[0] for node in graph.node if node.op_type == "If")
    if not conditions:
        return {}
    other = computed_from(graph, {value.name for value in graph.input[1:]})
    unknown = value_dependent(graph) | other
    names = [name for name in conditions if name not in unknown]
    if not names:
        return {}
    one, two = evaluate(model, names, (1, 2))
    return {name: bool(one[name].item()) for name in names if one[name].item() == two[name].item()}


def _taken(node: onnx.NodeProto, condition: bool) -> list[onnx.NodeProto]:
    """Return the nodes of the branch that an If takes, which make its outputs."""
    name = "then_branch" if condition else "else_branch"
    branch = next(a.g for a in node.attribute if a.name == name)
    # The other branch, or that of another If, may have tensors of the same names.
    inner = [n for child in branch.node for n in child.output if n]
    inner += [weight.name for weight in branch.initializer]
    new = {n: f"{node.output[0]}/{n}" for n in inner}
    weights = [
        helper.make_node("Constant", [], [new[weight.name]], value=weight) for weight in branch.initializer
    ]
    nodes = [_renamed(child, new) for child in branch.node]
    ends = [
        helper.make_node("Identity", [new.get(value.name, value.name)], [output])
        for value, output in zip(branch.output, node.output, strict=True)
    ]
    return [*weights, *nodes, *ends]


def _renamed(node: onnx.NodeProto, new: dict[str, str]) -> onnx.NodeProto:
    """Return a copy of a node with its tensors renamed, in its own subgraphs too."""
    result = onnx.NodeProto()
    result.CopyFrom(node)
    result.input[:] = [new.get(name, name) for name in node.input]
    result.output[:] = [new.get(name, name) for name in node.output]
    for graph in subgraphs(result):
        children = [_renamed(child, new) for child in graph.node]
        del graph.node[:]
        graph.node.extend(children)
        for value in graph.output:
            value.name = new.get(value.name, value.name)
    return result
