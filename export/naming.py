"""Give the tensors and nodes of an adopted graph short, stable names.

``/backbone/encoder/layer.0/norm1/Sub_output_0`` becomes ``encoder.layer.0.norm1.Sub``; a weight that
an exporter numbered (``onnx::MatMul_1966``) takes the name of the node that uses it.
"""

from __future__ import annotations

import onnx


def clean_names(graph: onnx.GraphProto) -> None:
    """Rename everything but the graph's inputs and outputs, in place."""
    fixed = {value.name for value in (*graph.input, *graph.output)}
    prefix = _common_prefix([node.name for node in graph.node if node.name.startswith("/")])
    nodes, tensors = _Names(set()), _Names(fixed)
    new = {name: name for name in (*fixed, "")}
    for node in graph.node:
        node.name = nodes.fresh(_short(node.name, prefix) or f"{node.op_type}")
        for k, output in enumerate(node.output):
            if output not in new:
                new[output] = tensors.fresh(node.name if k == 0 else f"{node.name}.{k}")
        for k, name in enumerate(node.input):
            if name not in new:  # a weight: tensors are computed before they are used
                generated = "::" in name or name.startswith("/")
                new[name] = tensors.fresh(f"{node.name}.input{k}" if generated else _short(name, prefix))
    for weight in graph.initializer:
        weight.name = new[weight.name]
    for node in graph.node:
        node.input[:] = [new[name] for name in node.input]
        node.output[:] = [new[name] for name in node.output]


class _Names:
    """Hands out names, each only once."""

    def __init__(self, taken: set[str]) -> None:
        self._taken = set(taken)

    def fresh(self, wish: str) -> str:
        """Return ``wish``, with a number appended if it is taken."""
        name, number = wish, 1
        while name in self._taken:
            number += 1
            name = f"{wish}_{number}"
        self._taken.add(name)
        return name


def _common_prefix(names: list[str]) -> str:
    """Return the folder that all names share, such as ``/backbone/``."""
    shared = []
    for parts in zip(*(name.split("/")[:-1] for name in names), strict=False):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    return "/".join([*shared, ""])


def _short(name: str, prefix: str) -> str:
    """Return the name with dots, without the folder that all nodes share."""
    dotted = name.strip("/").replace("/", ".")
    return dotted.removeprefix(prefix.strip("/").replace("/", ".") + ".")
