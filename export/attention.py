"""Turn a graph whose attention is in pieces into one where each attention is a node.

    softmax(scale * Q.K^T).V  ->  Attention(Q, K, V), ONNX's own operator of opset 23

What a runtime has for such a node, the pieces seldom find: a kernel that never writes the weights (B,T,T) of
each head.  The pieces come in many forms, so they are found by what they compute, from the softmax on: the
products on both its sides, numbers by which Q, K or Q.K^T are scaled, a mask of zeros, and K's transposition.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite

import onnx_ir as ir
from onnx import shape_inference, version_converter
from onnx_ir.passes.common import RemoveUnusedNodesPass

OPSET = 23  # Attention's first
_IR_VERSION = 10
_LARGE = 1000  # bytes: weights from here on are kept away from onnx's converter, which takes 2 GB at most


@dataclass(frozen=True)
class _Pieces:
    """An attention in pieces: Q, K^T and V, each of four axes, and the product that ends it."""

    query: ir.Value
    transposed_key: ir.Value
    value: ir.Value
    scale: float
    mixed: ir.Node


@dataclass(frozen=True)
class AttentionGraph:
    """A graph with attention as nodes; ``pieces`` softmaxes are left as they were."""

    model: ir.Model
    nodes: int
    pieces: int

    def __str__(self) -> str:
        rest = f", {self.pieces} in pieces" if self.pieces else ""
        return f"{self.nodes} attentions as one node each{rest}"


def with_attention_nodes(model: ir.Model) -> AttentionGraph | None:
    """Return a float32 graph with its attention as nodes, or None if none of it is understood.

    ``model`` stays as it is.  The new graph shares the memory of its weights, under the same names.
    """
    result = _at_opset(model)
    softmaxes = [node for node in result.graph if node.op_type == "Softmax"]
    found = [pieces for node in softmaxes if (pieces := _pieces(node))]
    for pieces in found:
        _replace(result.graph, pieces)
    RemoveUnusedNodesPass()(result)
    left = sum(node.op_type == "Softmax" for node in result.graph)
    return AttentionGraph(result, len(found), left) if found else None


def _at_opset(model: ir.Model) -> ir.Model:
    """Return a copy of a graph at the opset of Attention, with the shapes of its tensors."""
    copy = model.clone()
    weights: dict[str, ir.TensorProtocol] = {}
    for name, weight in list(copy.graph.initializers.items()):
        values = weight.const_value
        apart = isinstance(values, ir.ExternalTensor)  # it would be written without its folder
        if values is not None and (apart or values.nbytes >= _LARGE):
            weights[name] = values
            weight.type, weight.shape = ir.TensorType(values.dtype), ir.Shape(values.numpy().shape)
            del copy.graph.initializers[name]
            copy.graph.inputs.append(weight)  # of known shape, which is all that the converter asks of it
    copy.ir_version = max(copy.ir_version, _IR_VERSION)
    proto = version_converter.convert_version(ir.to_proto(copy), OPSET)
    result = ir.from_proto(shape_inference.infer_shapes(proto, data_prop=True))
    inputs = list(result.graph.inputs)
    result.graph.inputs.clear()
    for value in inputs:
        if value.name in weights:
            value.const_value = weights[value.name]
            result.graph.register_initializer(value)
        else:
            result.graph.inputs.append(value)
    return result


def _pieces(softmax: ir.Node) -> _Pieces | None:
    """Return the attention around a softmax, if it is one that the node can stand for."""
    after = _past_casts(softmax.outputs[0])
    mixed = next((node for node, index in after.uses() if node.op_type == "MatMul" and index == 0), None)
    logits, scale = _without_scale(softmax.inputs[0])
    product = logits.producer()
    if mixed is None or product is None or product.op_type != "MatMul" or not _along_last_axis(softmax):
        return None
    (query, of_query), (key, of_key) = (_without_scale(value) for value in product.inputs)
    scale *= of_query * of_key
    value = mixed.inputs[1]
    if value is None or any(len(x.shape or ()) != 4 for x in (query, key, value)):
        return None
    if not (isfinite(scale) and scale > 0):
        return None
    return _Pieces(query, key, value, scale, mixed)


def _replace(graph: ir.Graph, pieces: _Pieces) -> None:
    """Put an Attention in the place of its pieces, which are left without a user."""
    mixed, output = pieces.mixed, pieces.mixed.outputs[0]
    key = _transposed_back(graph, pieces)
    attended = ir.Value(name=f"{output.name}.attention", shape=output.shape, type=output.type)
    node = ir.Node(
        "",
        "Attention",
        [pieces.query, key, pieces.value],
        [ir.AttrFloat32("scale", pieces.scale)],
        outputs=[attended],
        name=f"{mixed.name}.attention",
    )
    graph.insert_before(mixed, node)
    output.replace_all_uses_with(attended)


def _transposed_back(graph: ir.Graph, pieces: _Pieces) -> ir.Value:
    """Return K (B,heads,T,width), given K^T (B,heads,width,T)."""
    value, order = pieces.transposed_key, [0, 1, 3, 2]
    node = value.producer()
    if node is not None and node.op_type == "Reshape":
        found = _behind_reshapes(value, node)
        if found is not None:
            return found
    elif node is not None and node.op_type == "Transpose" and (permutation := _permutation(node)):
        value, order = _input(node), [permutation[axis] for axis in order]
        if order == sorted(order):
            return value
    name = f"{pieces.mixed.outputs[0].name}.key"
    key = ir.Value(name=name, type=value.type)
    graph.insert_before(
        pieces.mixed,
        ir.Node("", "Transpose", [value], [ir.AttrInt64s("perm", order)], outputs=[key], name=name),
    )
    return key


def _behind_reshapes(value: ir.Value, reshape: ir.Node) -> ir.Value | None:
    """Return K if K^T is K with batch and heads in one axis, transposed, and with two axes again."""
    transpose = _input(reshape).producer()
    if transpose is None or transpose.op_type != "Transpose" or _permutation(transpose) != [0, 2, 1]:
        return None
    merge = _input(transpose).producer()
    if merge is None or merge.op_type != "Reshape":
        return None
    key, merged = _input(merge), _input(transpose)
    shapes = [_tail(key, 4), _tail(merged, 3), _tail(value, 4)]
    tokens, width = shapes[0] or (None, None)
    if None in (tokens, width) or shapes != [(tokens, width), (tokens, width), (width, tokens)]:
        return None
    return key


# ---- small parts -----------------------------------------------------------------------------


def _input(node: ir.Node) -> ir.Value:
    value = node.inputs[0]
    assert value is not None, f"{node.op_type} without an input"
    return value


def _past_casts(value: ir.Value) -> ir.Value:
    """Return what a value is cast to, and cast to again, where nobody else reads it."""
    while len(uses := list(value.uses())) == 1 and uses[0].node.op_type == "Cast":
        value = uses[0].node.outputs[0]
    return value


def _without_scale(value: ir.Value | None) -> tuple[ir.Value, float]:
    """Return the tensor behind products with a number, sums with zeros and casts; and the number."""
    assert value is not None, "a product without an input"
    scale = 1.0
    while (node := value.producer()) is not None:
        numbers = [_number(x) for x in node.inputs]
        if node.op_type == "Cast":
            index = 0
        elif node.op_type in ("Mul", "Div") and len(numbers) == 2 and numbers[1] is not None:
            index, scale = 0, scale * numbers[1] if node.op_type == "Mul" else scale / numbers[1]
        elif node.op_type == "Mul" and numbers[0] is not None:
            index, scale = 1, scale * numbers[0]
        elif node.op_type == "Add" and any(zeros := [_is_zero(x) for x in node.inputs]):
            index = zeros.index(False) if False in zeros else 0
        else:
            break
        inner = node.inputs[index]
        if inner is None:
            break
        value = inner
    return value, scale


def _number(value: ir.Value | None) -> float | None:
    """Return a constant of one element that is not zero."""
    if value is None or value.const_value is None or value.const_value.size != 1:
        return None
    return float(value.const_value.numpy().item()) or None


def _is_zero(value: ir.Value | None) -> bool:
    """Return whether a tensor is a constant of zeros, or such a one repeated along the batch."""
    if value is None:
        return False
    node = value.producer()
    if node is not None and node.op_type in ("Expand", "Cast"):
        return _is_zero(node.inputs[0])
    return value.const_value is not None and not value.const_value.numpy().any()


def _along_last_axis(softmax: ir.Node) -> bool:
    axis = softmax.attributes.get("axis")
    return axis is None or axis.as_int() in (-1, 3)


def _permutation(transpose: ir.Node) -> list[int]:
    attribute = transpose.attributes.get("perm")
    return list(attribute.as_ints()) if attribute is not None else []


def _tail(value: ir.Value, axes: int) -> tuple[int | None, int | None] | None:
    """Return the last two lengths of a tensor of ``axes`` axes, None for those that are free."""
    if value.shape is None or len(value.shape) != axes:
        return None
    first, second = (length if isinstance(length, int) else None for length in value.shape[-2:])
    return first, second
