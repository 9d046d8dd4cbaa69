"""Let Attention read Q, K and V as products leave them: three axes (B,T,C), the heads side by side.

Exporters write down how torch cuts heads: reshaped, transposed, sliced.  On a GPU each of these is a way
through memory, and ONNX Runtime's kernel then transposes Q and its result once more.  Attention of opset 23
takes three axes and the number of heads, and nothing has to move.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from ..runtime.types import Array
from .moves import Mover, Moves, first_input, moves_after, moves_before, only_user

_IMAGES = 2  # whose elements are followed: of one alone, an order of images could not be seen
_SWAP = [1, 0, 2]


@dataclass(frozen=True)
class _Heads:
    """Sizes of a tensor (B,heads,T,width)."""

    heads: int
    tokens: int
    width: int

    @property
    def channels(self) -> int:
        """C."""
        return self.heads * self.width

    def cut(self, whole: Array) -> Array:
        """Return (B,heads,T,width) of (B,T,C)."""
        return whole.reshape(-1, self.tokens, self.heads, self.width).transpose(0, 2, 1, 3)


@dataclass(frozen=True)
class _Part:
    """The part ``index`` of ``count`` along the last axis of a tensor (B,T,C), or (T,B,C) if ``swapped``."""

    tensor: ir.Value
    index: int
    count: int
    swapped: bool


def with_heads_last(model: ir.Model) -> int:
    """Give three axes to each Attention where that is understood, in place; returns to how many.

    ``model`` has to have the shapes of its tensors.
    """
    surgery = _Surgery(model)
    found = sum(surgery.replace(node) for node in list(model.graph) if node.op_type == "Attention")
    RemoveUnusedNodesPass()(model)
    return found


class _Surgery:
    """Puts nodes into a graph that make others unnecessary."""

    def __init__(self, model: ir.Model) -> None:
        self._graph = model.graph
        self._mover = Mover(model.opset_imports[""])
        self._parts: dict[tuple[ir.Value, int], list[ir.Value]] = {}

    def replace(self, node: ir.Node) -> bool:
        """Put an Attention of three axes in the place of one of four, if its inputs are understood."""
        query, key, value = node.inputs[:3]
        of_query, of_value = _heads(query), _heads(value)
        if len(node.inputs) != 3 or not (query and key and value and of_query and of_value):
            return False
        of_key = _Heads(of_value.heads, of_value.tokens, of_query.width)
        found = [self._origin(query, of_query), self._origin(key, of_key), self._origin(value, of_value)]
        parts = [part for part in found if part]
        if len(parts) < len(found) or not _are_alike(parts):
            return False
        heads = {"q_num_heads": of_query.heads, "kv_num_heads": of_value.heads}
        attributes = [*node.attributes.values(), *(ir.AttrInt64(name, n) for name, n in heads.items())]
        sizes = _Heads(of_query.heads, of_query.tokens, of_value.width)
        attended = self._add(node, "Attention", [self._part(part) for part in parts], attributes)
        if not (
            self._merged(node.outputs[0], attended, sizes)
            or self._projected(node.outputs[0], attended, sizes)
        ):
            self._cut(node.outputs[0], attended, sizes)
        return True

    # ---- before ------------------------------------------------------------------------------

    def _origin(self, value: ir.Value, sizes: _Heads) -> _Part | None:
        """Return what a tensor (B,heads,T,width) is a part of."""
        moves = moves_before(value)
        shape = _lengths(moves.start)
        if len(shape) != 3 or sizes.tokens not in shape[:2] or not shape[2] or shape[2] % sizes.channels:
            return None
        count, swapped = shape[2] // sizes.channels, shape[0] == sizes.tokens
        elements = _elements(sizes.tokens, shape[2])
        moved = self._mover.moved(moves, elements.swapaxes(0, 1) if swapped else elements)
        for index, part in enumerate(np.split(elements, count, axis=2)):
            if moved is not None and np.array_equal(moved, sizes.cut(part)):
                return _Part(moves.start, index, count, swapped)
        return None

    def _part(self, part: _Part) -> ir.Value:
        """Return a tensor (B,T,C) with what ``part`` describes."""
        key = part.tensor, part.count
        if key not in self._parts:
            whole = self._swapped_back(part.tensor) if part.swapped else part.tensor
            self._parts[key] = self._split(whole, part.count)
        return self._parts[key][part.index]

    def _split(self, whole: ir.Value, count: int) -> list[ir.Value]:
        if count == 1:
            return [whole]
        attributes = [ir.AttrInt64("axis", -1), ir.AttrInt64("num_outputs", count)]
        node = ir.Node("", "Split", [whole], attributes, num_outputs=count, name=f"{whole.name}.split")
        for index, output in enumerate(node.outputs):
            output.name, output.type = f"{whole.name}.part{index}", whole.type
        self._graph.insert_after(_producer(whole), node)
        return list(node.outputs)

    def _swapped_back(self, tensor: ir.Value) -> ir.Value:
        """Return (B,T,C) of (T,B,C): by the same product of what was swapped, if it is one of that."""
        last = _producer(tensor)
        product = first_input(last).producer() if _adds_weight(last) else last
        swap = first_input(product).producer() if product and product.op_type == "MatMul" else None
        if product is None or swap is None or not _swaps(swap):
            return self._add(last, "Transpose", [tensor], [ir.AttrInt64s("perm", _SWAP)])
        whole = self._add(product, "MatMul", [first_input(swap), product.inputs[1]])
        return whole if last is product else self._add(last, "Add", [whole, last.inputs[1]])

    # ---- behind ------------------------------------------------------------------------------

    def _merged(self, cut: ir.Value, attended: ir.Value, sizes: _Heads) -> bool:
        """Put ``attended`` where ``cut`` has been made (B,T,C) again."""
        elements = _elements(sizes.tokens, sizes.channels)
        moves = self._reaching(cut, sizes.cut(elements), elements)
        if moves:
            moves.end.replace_all_uses_with(attended)
        return moves is not None

    def _projected(self, cut: ir.Value, attended: ir.Value, sizes: _Heads) -> bool:
        """Put the product of ``attended`` where that of ``cut``, as (T,B,C), has been swapped again."""
        elements = _elements(sizes.tokens, sizes.channels)
        rows = elements.swapaxes(0, 1)
        before = self._reaching(cut, sizes.cut(elements), rows) or self._reaching(
            cut, sizes.cut(elements), rows.reshape(-1, sizes.channels)
        )
        product = only_user(before.end) if before else None
        if product is None or product.op_type not in ("MatMul", "Gemm") or before is None:
            return False
        width, user = _lengths(product.outputs[0])[-1], only_user(product.outputs[0])
        last = user if user is not None and _adds_weight(user) else product
        after = _elements(sizes.tokens, width).swapaxes(0, 1)
        flat = len(_lengths(last.outputs[0])) == 2
        start = after.reshape(-1, width) if flat else after
        moves = self._reaching(last.outputs[0], start, after.swapaxes(0, 1)) if width else None
        if moves is None or first_input(product) is not before.end:
            return False
        result = self._product(product, attended, sizes, width)
        if last is not product:
            result = self._add(last, "Add", [result, last.inputs[1]])
        moves.end.replace_all_uses_with(result)
        return True

    def _product(self, product: ir.Node, attended: ir.Value, sizes: _Heads, width: int) -> ir.Value:
        """Return the product of ``attended`` (B,T,C) with the weight of another one, as that has it."""
        others = list(product.inputs[1:])
        if product.op_type == "MatMul":
            return self._add(product, "MatMul", [attended, *others])
        flat = self._reshape(product, attended, [-1, sizes.channels])
        result = self._add(_producer(flat), "Gemm", [flat, *others], list(product.attributes.values()))
        return self._reshape(_producer(result), result, [-1, sizes.tokens, width])

    def _cut(self, cut: ir.Value, attended: ir.Value, sizes: _Heads) -> None:
        """Put ``attended``, cut into heads, in the place of ``cut``."""
        whole = self._reshape(_producer(attended), attended, [-1, sizes.tokens, sizes.heads, sizes.width])
        heads = self._add(_producer(whole), "Transpose", [whole], [ir.AttrInt64s("perm", [0, 2, 1, 3])])
        cut.replace_all_uses_with(heads)

    def _reaching(self, start: ir.Value, elements: Array, wanted: Array) -> Moves | None:
        """Return the moves behind a tensor that bring its ``elements`` into the order ``wanted``."""
        for moves in moves_after(start):
            moved = self._mover.moved(moves, elements)
            if moved is not None and np.array_equal(moved, wanted):
                return moves
        return None

    # ---- nodes -------------------------------------------------------------------------------

    def _add(
        self,
        after: ir.Node,
        operator: str,
        inputs: list[ir.Value | None],
        attributes: list[ir.Attr] | None = None,
    ) -> ir.Value:
        """Put a node behind another one; returns its result, which has the type of its first input."""
        first, name = inputs[0], f"{after.outputs[0].name}.{operator.lower()}"
        node = ir.Node("", operator, inputs, attributes or [], num_outputs=1, name=name)
        result = node.outputs[0]
        result.name, result.type = name, first.type if first else None
        self._graph.insert_after(after, node)
        return result

    def _reshape(self, after: ir.Node, value: ir.Value, shape: list[int]) -> ir.Value:
        name = f"{value.name}.shape"
        tensor = ir.tensor(np.array(shape, np.int64), name=name)
        kind = ir.TensorType(tensor.dtype)
        weight = ir.Value(name=name, shape=ir.Shape([len(shape)]), type=kind, const_value=tensor)
        self._graph.register_initializer(weight)
        return self._add(after, "Reshape", [value, weight])


# ---- small parts -----------------------------------------------------------------------------


def _are_alike(parts: list[_Part]) -> bool:
    """Return whether parts of one tensor are of one size, so that it is split once."""
    return len({(part.tensor, part.count) for part in parts}) == len({part.tensor for part in parts})


def _heads(value: ir.Value | None) -> _Heads | None:
    """Return the sizes of a tensor (B,heads,T,width); None if one of them is free."""
    shape = _lengths(value) if value is not None else []
    return _Heads(*shape[1:]) if len(shape) == 4 and all(shape[1:]) else None


def _lengths(value: ir.Value) -> list[int]:
    """Return the lengths of a tensor's axes, 0 for those that are free."""
    return [length if isinstance(length, int) else 0 for length in value.shape or ()]


def _elements(tokens: int, channels: int) -> Array:
    """Number the elements of a tensor (B,T,C)."""
    return np.arange(_IMAGES * tokens * channels, dtype=np.int32).reshape(_IMAGES, tokens, channels)


def _producer(value: ir.Value) -> ir.Node:
    node = value.producer()
    assert node is not None, f"{value.name} is not computed"
    return node


def _adds_weight(node: ir.Node) -> bool:
    """Return whether a node adds a weight (C) to its first input."""
    weight = node.inputs[1] if node.op_type == "Add" else None
    return weight is not None and weight.const_value is not None and weight.const_value.shape.rank() == 1


def _swaps(node: ir.Node) -> bool:
    """Return whether a node swaps the first two of three axes."""
    permutation = node.attributes.get("perm")
    return node.op_type == "Transpose" and permutation is not None and list(permutation.as_ints()) == _SWAP
