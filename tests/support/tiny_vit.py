"""A tiny random ViT as an ONNX model, shaped as exports of Hugging Face models look.

Like those it computes every shape in the graph (Shape, Gather, Unsqueeze, Concat), resamples its position
embedding with Resize, decomposes LayerNorm, numbers its transposed weights (``onnx::MatMul_12``) and ends
in a head that a bundle has no use for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

PATCH, WIDTH, STORED_GRID, BLOCKS = 4, 16, 4, 3
INPUT, OUTPUT = "input_image", "output_importance"


def tiny_vit(
    opset: int = 14,
    registers: int = 0,
    heads: int = 1,
    static_batch: bool = False,
    fused_norm: bool = False,
    prefix: str = "",
    layers_name: str = "layer",
    seed: int = 0,
) -> onnx.ModelProto:
    """The model, declared for images of 16x16 as exporters declare theirs, though any multiple of 4 runs.

    ``registers`` tokens stand between CLS and the patches.  ``static_batch`` bakes a batch of 1 into the
    shapes.  ``fused_norm`` uses one node for each LayerNorm (opset 17 and later).
    """
    g = _Graph(opset, prefix, static_batch, fused_norm, seed)
    x = _embed(g, registers)
    for block in range(BLOCKS):
        where = f"/encoder/{layers_name}.{block}"
        attended = _attention(g, f"{where}/attention", _norm(g, f"{where}/norm1", x), heads)
        x = g.node(where, "Add", attended, x)
        hidden = _linear(g, f"{where}/mlp/fc1", _norm(g, f"{where}/norm2", x), WIDTH, 2 * WIDTH)
        hidden = g.node(f"{where}/mlp/activation", "Relu", hidden)
        x = g.node(where, "Add", _linear(g, f"{where}/mlp/fc2", hidden, 2 * WIDTH), x)
    _head(g, _norm(g, "/layernorm", x))
    side = PATCH * STORED_GRID
    graph = helper.make_graph(
        g.nodes,
        "main_graph",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["batch_size", 3, side, side])],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["batch_size", "tokens", 1])],
        g.weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.checker.check_model(model)
    return model


class _Graph:
    """Collects nodes and weights under the names that torch.onnx gives them."""

    def __init__(self, opset: int, prefix: str, static_batch: bool, fused_norm: bool, seed: int) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.opset, self.prefix = opset, prefix
        self.static_batch, self.fused_norm = static_batch, fused_norm
        self._rng = np.random.default_rng(seed)
        self._used: Counter[str] = Counter()

    def node(self, where: str, op: str, *inputs: str, **attributes: Any) -> str:
        name = f"{self.prefix}{where}/{op}"
        self._used[name] += 1
        if self._used[name] > 1:
            name += f"_{self._used[name] - 1}"
        self.nodes.append(helper.make_node(op, inputs, [f"{name}_output_0"], name=name, **attributes))
        return f"{name}_output_0"

    def weight(self, name: str, *shape: int, scale: float = 0.3, offset: float = 0.0) -> str:
        """A random weight; ``onnx::OP`` gets a number, other names the prefix and dots for slashes."""
        numbered = "::" in name
        full = f"{name}_{len(self.weights)}" if numbered else f"{self.prefix}{name}"[1:].replace("/", ".")
        values = (offset + scale * self._rng.standard_normal(shape)).astype(np.float32)
        self.weights.append(numpy_helper.from_array(values, full))
        return full

    def constant(self, where: str, value: npt.ArrayLike, dtype: npt.DTypeLike = np.int64) -> str:
        return self.node(where, "Constant", value=numpy_helper.from_array(np.asarray(value, dtype)))

    def size(self, where: str, x: str, axis: int) -> str:
        """The length of an axis, a scalar computed in the graph."""
        shape = self.node(where, "Shape", x)
        return self.node(where, "Gather", shape, self.constant(where, axis), axis=0)

    def batch(self, where: str, x: str) -> str | int:
        return 1 if self.static_batch else self.size(where, x, 0)

    def vector(self, where: str, parts: Sequence[str | int]) -> str:
        """A shape put together from computed scalars and fixed numbers."""
        pieces = []
        for part in parts:
            if isinstance(part, int):
                pieces.append(self.constant(where, [part]))
                continue
            number, axes = len(self.nodes), numpy_helper.from_array(np.array([0]))
            generated = [f"onnx::Unsqueeze_{number}"]
            self.nodes.append(helper.make_node("Constant", [], generated, f"Constant_{number}", value=axes))
            pieces.append(self.node(where, "Unsqueeze", part, *generated))
        return self.node(where, "Concat", *pieces, axis=0)

    def slice(self, where: str, x: str, start: int, end: int, axis: int) -> str:
        return self.node(where, "Slice", x, *(self.constant(where, [v]) for v in (start, end, axis)))

    def mean(self, where: str, x: str) -> str:
        if self.opset < 18:
            return self.node(where, "ReduceMean", x, axes=[-1], keepdims=1)
        return self.node(where, "ReduceMean", x, self.constant(where, [-1]), keepdims=1)


def _embed(g: _Graph, registers: int) -> str:
    here = "/embeddings"
    grid = [g.node(here, "Div", g.size("", INPUT, axis), g.constant(here, PATCH)) for axis in (2, 3)]
    kernel = g.weight("/embeddings/projection/weight", WIDTH, 3, PATCH, PATCH)
    bias = g.weight("/embeddings/projection/bias", WIDTH)
    at = f"{here}/projection"
    patches = g.node(at, "Conv", INPUT, kernel, bias, kernel_shape=[PATCH] * 2, strides=[PATCH] * 2)
    batch = g.batch(here, INPUT)
    patches = g.node(here, "Reshape", patches, g.vector(here, [batch, WIDTH, -1]))
    patches = g.node(here, "Transpose", patches, perm=[0, 2, 1])
    cls = g.node(
        here, "Expand", g.weight("/embeddings/cls_token", 1, 1, WIDTH), g.vector(here, [batch, 1, 1])
    )
    x = g.node(here, "Concat", cls, patches, axis=1)
    # The position embedding belongs to a 4x4 grid and is resampled to the grid at hand.
    stored = g.weight("onnx::Reshape", 1, STORED_GRID**2, WIDTH)
    stored = g.node(here, "Reshape", stored, g.vector(here, [1, STORED_GRID, STORED_GRID, WIDTH]))
    stored = g.node(here, "Transpose", stored, perm=[0, 3, 1, 2])
    lengths = g.slice(here, g.node(here, "Shape", stored), 0, 2, 0)
    sizes = g.node(here, "Concat", lengths, g.vector(here, grid), axis=0)
    cubic = {"mode": "cubic", "cubic_coeff_a": -0.75, "coordinate_transformation_mode": "half_pixel"}
    resampled = g.node(here, "Resize", stored, "", "", sizes, **cubic)
    resampled = g.node(here, "Transpose", resampled, perm=[0, 2, 3, 1])
    resampled = g.node(here, "Reshape", resampled, g.vector(here, [1, -1, WIDTH]))
    position = g.node(here, "Concat", g.weight("onnx::Concat", 1, 1, WIDTH), resampled, axis=1)
    x = g.node(here, "Add", x, position)
    if registers:
        tokens = g.weight("/embeddings/register_tokens", 1, registers, WIDTH)
        tokens = g.node(here, "Expand", tokens, g.vector(here, [batch, 1, 1]))
        first, others = g.slice(here, x, 0, 1, 1), g.slice(here, x, 1, 1 << 40, 1)
        x = g.node(here, "Concat", first, tokens, others, axis=1)
    return x


def _norm(g: _Graph, where: str, x: str) -> str:
    scale, bias = g.weight(f"{where}/weight", WIDTH, offset=1.0), g.weight(f"{where}/bias", WIDTH)
    if g.fused_norm:
        return g.node(where, "LayerNormalization", x, scale, bias, epsilon=1e-6)
    centred = g.node(where, "Sub", x, g.mean(where, x))
    variance = g.mean(where, g.node(where, "Pow", centred, g.constant(where, 2.0, np.float32)))
    deviation = g.node(where, "Sqrt", g.node(where, "Add", variance, g.constant(where, 1e-6, np.float32)))
    return g.node(where, "Add", g.node(where, "Mul", g.node(where, "Div", centred, deviation), scale), bias)


def _linear(g: _Graph, where: str, x: str, inner: int = WIDTH, width: int = WIDTH) -> str:
    product = g.node(where, "MatMul", x, g.weight("onnx::MatMul", inner, width, scale=inner**-0.5))
    return g.node(where, "Add", g.weight(f"{where}/bias", width), product)


def _attention(g: _Graph, where: str, x: str, heads: int) -> str:
    here, parts = f"{where}/attention", []
    for part, perm in (("query", [0, 2, 1, 3]), ("key", [0, 2, 3, 1]), ("value", [0, 2, 1, 3])):
        value = _linear(g, f"{here}/{part}", x)
        target = g.vector(here, [g.batch(here, value), g.size(here, value, 1), heads, WIDTH // heads])
        parts.append(g.node(here, "Transpose", g.node(here, "Reshape", value, target), perm=perm))
    width = g.node(here, "Cast", g.size(here, parts[0], 3), to=TensorProto.FLOAT)
    logits = g.node(here, "Div", g.node(here, "MatMul", *parts[:2]), g.node(here, "Sqrt", width))
    mixed = g.node(here, "MatMul", g.node(here, "Softmax", logits, axis=-1), parts[2])
    mixed = g.node(here, "Transpose", mixed, perm=[0, 2, 1, 3])
    target = g.vector(here, [g.batch(here, mixed), g.size(here, mixed, 1), WIDTH])
    return _linear(g, f"{where}/output/dense", g.node(here, "Reshape", mixed, target))


def _head(g: _Graph, x: str) -> None:
    logits = g.node(
        "/decoder", "MatMul", g.slice("/decoder", x, 1, 1 << 40, 1), g.weight("/head/w", WIDTH, 1)
    )
    g.nodes.append(helper.make_node("Sigmoid", [logits], [OUTPUT], "/Sigmoid"))
