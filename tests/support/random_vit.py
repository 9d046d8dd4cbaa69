"""Vision transformers of known shapes with random weights: as fast as the real ones, and worth no score.

    python tests/support/random_vit.py ViT-L-14-336 FILE.onnx

Residual streams are named ``block_0``, ``block_1``, ..., the normed CLS token ``cls``.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


@dataclass(frozen=True)
class Shape:
    """Width, blocks, heads; patch and image side in pixels.

    ``dinov2``: not CLIP's QuickGELU and three products for Q, K and V, but as timm has it in DINOv2: GELU,
    one product for all three, and a scale after each branch.
    """

    width: int
    blocks: int
    heads: int
    patch: int
    side: int
    dinov2: bool = False


SHAPES = {
    "ViT-B-16": Shape(768, 12, 12, 16, 224),
    "ViT-L-14-336": Shape(1024, 24, 16, 14, 336),
    "DINOv2-S-14": Shape(384, 12, 6, 14, 224, dinov2=True),
    "DINOv2-L-14": Shape(1024, 24, 16, 14, 518, dinov2=True),
}


class _Graph:
    def __init__(self, alike: bool) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self._rng = np.random.default_rng(0)
        self._alike: dict[Any, str] | None = {} if alike else None

    def node(self, op: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        out = name or f"{op}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [out], name=f"/{out}", **attributes))
        return out

    def weight(self, *shape: int, scale: float = 0.02, offset: float = 0.0) -> str:
        key = (shape, scale, offset)
        if self._alike is not None and key in self._alike:
            return self._alike[key]
        values = offset + scale * self._rng.standard_normal(shape, np.float32)
        name = self.constant(values.astype(np.float32))
        if self._alike is not None:
            self._alike[key] = name
        return name

    def constant(self, values: Any) -> str:
        name = f"w_{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def linear(self, x: str, inner: int, outer: int) -> str:
        product = self.node("MatMul", x, self.weight(inner, outer, scale=inner**-0.5))
        return self.node("Add", product, self.weight(outer))

    def norm(self, x: str, width: int, name: str = "") -> str:
        scale, bias = self.weight(width, offset=1.0), self.weight(width)
        return self.node("LayerNormalization", x, scale, bias, name=name, axis=-1, epsilon=1e-5)


def random_vit(shape: Shape, alike: bool = False) -> onnx.ModelProto:
    """The model, for images of its own side and any batch.

    ``alike``: weights of the same shape are one, for who gives them values later, and is in a hurry.
    """
    g, width, tokens = _Graph(alike), shape.width, (shape.side // shape.patch) ** 2
    patches = g.node("Conv", "image", g.weight(width, 3, shape.patch, shape.patch), strides=[shape.patch] * 2)
    patches = g.node("Transpose", g.node("Reshape", patches, g.constant([0, width, tokens])), perm=[0, 2, 1])
    batch = g.node("Slice", g.node("Shape", patches), g.constant([0]), g.constant([1]))
    target = g.node("Concat", batch, g.constant([1, width]), axis=0)
    cls = g.node("Expand", g.weight(1, 1, width), target)
    x = g.node("Add", g.node("Concat", cls, patches, axis=1), g.weight(1, tokens + 1, width))
    x = x if shape.dinov2 else g.norm(x, width)
    for block in range(shape.blocks):
        x = g.node("Add", x, _scaled(g, _attention(g, g.norm(x, width), shape), shape))
        hidden = g.linear(g.norm(x, width), width, 4 * width)
        hidden = g.linear((_gelu if shape.dinov2 else _quick_gelu)(g, hidden), 4 * width, width)
        x = g.node("Add", x, _scaled(g, hidden, shape), name=f"block_{block}")
    first = g.node("Gather", x, g.constant(0), axis=1)
    g.norm(first, width, name="cls")
    pixels = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, shape.side, shape.side])
    out = helper.make_tensor_value_info("cls", TensorProto.FLOAT, ["batch", width])
    graph = helper.make_graph(g.nodes, "random_vit", [pixels], [out], g.weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _quick_gelu(g: _Graph, x: str) -> str:
    return g.node("Mul", x, g.node("Sigmoid", g.node("Mul", x, g.constant(np.float32(1.702)))))


def _gelu(g: _Graph, x: str) -> str:
    erf = g.node("Erf", g.node("Div", x, g.constant(np.float32(2**0.5))))
    whole = g.node("Mul", x, g.node("Add", erf, g.constant(np.float32(1))))
    return g.node("Mul", whole, g.constant(np.float32(0.5)))


def _scaled(g: _Graph, branch: str, shape: Shape) -> str:
    """DINOv2's LayerScale."""
    return g.node("Mul", branch, g.weight(shape.width, scale=0.2, offset=0.5)) if shape.dinov2 else branch


def _attention(g: _Graph, x: str, shape: Shape) -> str:
    width, each = shape.width, shape.width // shape.heads
    query, transposed_key, value = (_together if shape.dinov2 else _apart)(g, x, shape)
    logits = g.node("MatMul", query, transposed_key)
    logits = g.node("Mul", logits, g.constant(np.float32(each**-0.5)))
    mixed = g.node(
        "Transpose", g.node("MatMul", g.node("Softmax", logits, axis=-1), value), perm=[0, 2, 1, 3]
    )
    return g.linear(g.node("Reshape", mixed, g.constant([0, -1, width])), width, width)


def _apart(g: _Graph, x: str, shape: Shape) -> tuple[str, str, str]:
    """Q (B,heads,T,width of a head), K^T and V, by a product each."""
    width = shape.width
    heads = g.constant([0, -1, shape.heads, width // shape.heads])
    query, key, value = (g.node("Reshape", g.linear(x, width, width), heads) for _ in range(3))
    query, value = (g.node("Transpose", part, perm=[0, 2, 1, 3]) for part in (query, value))
    return query, g.node("Transpose", key, perm=[0, 2, 3, 1]), value


def _together(g: _Graph, x: str, shape: Shape) -> tuple[str, str, str]:
    """The same, by one product."""
    width = shape.width
    heads = g.constant([0, -1, 3, shape.heads, width // shape.heads])
    packed = g.node("Reshape", g.linear(x, width, 3 * width), heads)
    parts = g.node("Transpose", packed, perm=[2, 0, 3, 1, 4])
    query, key, value = (g.node("Gather", parts, g.constant(k), axis=0) for k in range(3))
    return query, g.node("Transpose", key, perm=[0, 1, 3, 2]), value


if __name__ == "__main__":
    onnx.save(random_vit(SHAPES[sys.argv[1]]), Path(sys.argv[2]))
