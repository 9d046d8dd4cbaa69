"""Turn an ONNX ViT into the graph of a bundle: cut it after the taps, fix its size, append the heads.

    pixels (B,3,H,W) -> the source's own nodes up to the taps
                     -> tokens_{l} (B,P,C): prefix tokens dropped, minus the image's scalar mean
                     -> cls (B,D): first token, divided by its Euclidean norm

H and W become constants and B stays free, so everything that the source computes from shapes alone
(the resampled position embedding, reshape targets) is computed once and stored (see folding.py).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ..runtime.errors import BundleError
from .dependence import inputs_of
from .folding import fold_shapes
from .naming import clean_names
from .onnx_file import remove_unused
from .source import BATCH, CLS, INPUT, check_size, token_name
from .taps import Taps


@dataclass(frozen=True)
class BundleGraph:
    """A finished graph with its sizes for the manifest."""

    model: onnx.ModelProto
    patch_size: int
    grid: tuple[int, int]
    token_width: int
    cls_width: int
    token_names: tuple[str, ...]


def at_size(model: onnx.ModelProto, size: tuple[int, int]) -> onnx.ModelProto:
    """Return the source with its image as the first input, declared as (batch, 3, H, W)."""
    source_input, *others = _inputs(model)
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    del graph.value_info[:]  # the shapes stated there belong to the source's own size
    del graph.input[:]
    element = source_input.type.tensor_type.elem_type
    graph.input.append(helper.make_tensor_value_info(source_input.name, element, [BATCH, 3, *size]))
    graph.input.extend(others)
    return result


def cut(model: onnx.ModelProto, taps: Taps, size: tuple[int, int]) -> onnx.ModelProto:
    """Return the part of the source that the taps need, with input (batch, 3, H, W); outputs are the taps."""
    result = at_size(model, size)
    graph = result.graph
    del graph.output[:]
    for name in dict.fromkeys([*taps.tokens, taps.cls]):
        graph.output.append(onnx.ValueInfoProto(name=name))
    remove_unused(graph)
    used = {name for node in graph.node for name in inputs_of(node)}
    if others := [value.name for value in graph.input[1:] if value.name in used]:
        raise BundleError(
            f"the graph needs the inputs {[graph.input[0].name, *others]} for the blocks or the embedding: "
            "expected one, the image."
        )
    del graph.input[1:]
    return result


def make_graph(source: onnx.ModelProto, taps: Taps) -> BundleGraph:
    """Fold, append the heads and clean up the graph that :func:`cut` gave.

    Raises
    ------
    BundleError
        If the image size is not a multiple of the patch size, or the graph is not a ViT that can be
        adopted; the message says what was found.
    """
    patch = patch_size(source)
    grid = check_size(input_size(source), patch)
    model = fold_shapes(source)
    graph = model.graph
    taps = _free_names(graph, taps)
    _take_float_pixels(graph)
    shapes = _tap_shapes(model, taps)
    del graph.output[:]
    heads = _Heads(graph, _opset(model))
    widths = {_append_tokens(heads, layer, name, shapes[name], grid) for layer, name in taps.blocks()}
    if len(widths) != 1:
        raise BundleError(f"the tapped layers differ in width: {sorted(widths)}.")
    cls_width = _append_cls(heads, taps, shapes[taps.cls], grid[0] * grid[1])
    clean_names(graph)
    token_names = tuple(token_name(layer) for layer in taps.layers)
    return BundleGraph(_checked(model), patch, grid, widths.pop(), cls_width, token_names)


def input_size(model: onnx.ModelProto) -> tuple[int, int]:
    """Return the size (H, W) of the graph's input."""
    dims = model.graph.input[0].type.tensor_type.shape.dim
    return dims[2].dim_value, dims[3].dim_value


def patch_size(model: onnx.ModelProto) -> int:
    """Return the side of a patch in pixels: the stride of the first convolution.

    Raises
    ------
    BundleError
        If the graph has no convolution, or its first one is not square patches side by side.
    """
    for node in model.graph.node:
        if node.op_type == "Conv":
            attributes = {a.name: list(a.ints) for a in node.attribute if a.ints}
            weights = next((list(w.dims) for w in model.graph.initializer if w.name == node.input[1]), [])
            strides, kernel = attributes.get("strides", [1, 1]), attributes.get("kernel_shape", weights[2:])
            if strides == kernel and strides[0] == strides[1]:
                return int(strides[0])
            raise BundleError(
                f"the first convolution has kernel {kernel} and stride {strides}: not a patch embedding."
            )
    raise BundleError("the graph has no convolution, so no patch embedding was found.")


# ---- heads -----------------------------------------------------------------------------------


class _Heads:
    """Appends nodes and constants to a graph; hides that ``axes`` became an input in opset 18."""

    def __init__(self, graph: onnx.GraphProto, opset: int) -> None:
        self.graph = graph
        self.opset = opset

    def node(self, op: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.graph.node.append(helper.make_node(op, inputs, [output], name=output, **attributes))
        return output

    def constant(self, name: str, values: list[int] | list[float], element: int) -> str:
        self.graph.initializer.append(helper.make_tensor(name, element, [len(values)], values))
        return name

    def reduce(self, op: str, value: str, axes: list[int], output: str) -> str:
        """Append the reduction ``op`` over ``axes``, which stay as axes of length one."""
        axes_is_input = self.opset >= 18
        if not axes_is_input:
            return self.node(op, [value], output, axes=axes, keepdims=1)
        return self.node(
            op, [value, self.constant(f"{output}.axes", axes, TensorProto.INT64)], output, keepdims=1
        )


def _append_tokens(heads: _Heads, layer: int, value: str, shape: list[int], grid: tuple[int, int]) -> int:
    """Append the output tokens_{layer} (B,P,C) for tensor ``value`` (B,T,C); returns C."""
    patches = grid[0] * grid[1]
    if len(shape) != 3 or shape[1] < patches:
        raise BundleError(
            f"tensor {value!r} has shape {_per_batch(shape)}: expected (B, T, C) with T >= {patches}."
        )
    name = token_name(layer)
    prefix = shape[1] - patches  # CLS, and registers where the model has them
    if prefix:
        bounds = [
            heads.constant(f"{name}.{k}", [v], TensorProto.INT64)
            for k, v in (("start", prefix), ("end", shape[1]))
        ]
        axis = heads.constant(f"{name}.axis", [1], TensorProto.INT64)
        value = heads.node("Slice", [value, *bounds, axis], f"{name}.patches")
    value = heads.node("Cast", [value], f"{name}.float", to=TensorProto.FLOAT)
    mean = heads.reduce("ReduceMean", value, [1, 2], f"{name}.mean")
    heads.node("Sub", [value, mean], name)
    heads.graph.output.append(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [BATCH, patches, shape[2]])
    )
    return shape[2]


def _append_cls(heads: _Heads, taps: Taps, shape: list[int], patches: int) -> int:
    """Append the output cls (B,D) for the tensor ``taps.cls``, (B,T,D) or (B,D); returns D."""
    _check_embedding(taps, shape, patches)
    value = heads.node("Cast", [taps.cls], f"{CLS}.float", to=TensorProto.FLOAT)
    if taps.mean:
        value = _mean_of_patches(heads, value, shape[1], patches)
    elif len(shape) == 3:
        first = numpy_helper.from_array(np.array(0, np.int64), f"{CLS}.index")
        heads.graph.initializer.append(first)
        value = heads.node("Gather", [value, first.name], f"{CLS}.token", axis=1)
    norm = heads.reduce("ReduceL2", value, [1], f"{CLS}.norm")
    # The floor is that of torch's normalize: an embedding of zeros stays zeros instead of NaN.
    floor = heads.constant(f"{CLS}.floor", [1e-12], TensorProto.FLOAT)
    norm = heads.node("Max", [norm, floor], f"{CLS}.divisor")
    heads.node("Div", [value, norm], CLS)
    heads.graph.output.append(helper.make_tensor_value_info(CLS, TensorProto.FLOAT, [BATCH, shape[-1]]))
    return shape[-1]


def _per_batch(shape: list[int]) -> str:
    """'(B, 257, 384)'."""
    return f"({', '.join(['B', *map(str, shape[1:])])})"


def _check_embedding(taps: Taps, shape: list[int], patches: int) -> None:
    """Raise BundleError unless a tensor of this shape, (B,T,D) or (B,D), holds the embedding asked for."""
    outputs = ", ".join(map(repr, taps.outputs))
    if taps.mean and (len(shape) != 3 or shape[1] < patches):
        raise BundleError(
            f"tensor {taps.cls!r} has shape {_per_batch(shape)}: expected (B, T, D) with T >= {patches} for "
            f"the mean of its patches. Name a tensor with --cls; the source's outputs are {outputs}."
        )
    if not taps.mean and len(shape) not in (2, 3):
        raise BundleError(f"tensor {taps.cls!r} for CLS has {len(shape)} axes: expected (B, T, D) or (B, D).")
    if not taps.mean and len(shape) == 3 and 1 != shape[1] <= patches:
        raise BundleError(
            f"tensor {taps.cls!r} has {shape[1]} tokens for {patches} patches: none of them is a class "
            "token, and the first would be the top left patch. Take the mean of the patches with --cls mean, "
            f"or name a pooled embedding (B, D) with --cls; the source's outputs are {outputs}."
        )


def _mean_of_patches(heads: _Heads, value: str, tokens: int, patches: int) -> str:
    """Append the mean (B,D) of the last ``patches`` tokens of (B,T,D)."""
    if tokens > patches:
        bounds = [("start", tokens - patches), ("end", tokens), ("axis", 1)]
        inputs = [heads.constant(f"{CLS}.{k}", [v], TensorProto.INT64) for k, v in bounds]
        value = heads.node("Slice", [value, *inputs], f"{CLS}.patches")
    mean = heads.reduce("ReduceMean", value, [1], f"{CLS}.mean")
    return heads.node(
        "Reshape", [mean, heads.constant(f"{CLS}.shape", [0, -1], TensorProto.INT64)], f"{CLS}.flat"
    )


# ---- small parts -----------------------------------------------------------------------------


def _inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """Return the real inputs of the source, first the one that is a float image (B,3,H,W)."""
    weights = {weight.name for weight in model.graph.initializer}
    inputs: list[onnx.ValueInfoProto] = [value for value in model.graph.input if value.name not in weights]
    images = [value for value in inputs if _is_image(value)]
    if len(inputs) == 1 and not images:
        raise BundleError(
            f"the input {inputs[0].name!r} is not a float image (B, 3, H, W): it is {_type_text(inputs[0])}."
        )
    if len(images) != 1:
        texts = ", ".join(f"{value.name!r} {_type_text(value)}" for value in inputs)
        raise BundleError(f"the graph has inputs {texts}: expected one float image (B, 3, H, W).")
    return [*images, *(value for value in inputs if value.name != images[0].name)]


def _is_image(value: onnx.ValueInfoProto) -> bool:
    tensor = value.type.tensor_type
    channels = tensor.shape.dim[1].dim_value if len(tensor.shape.dim) == 4 else -1
    return channels in (0, 3) and tensor.elem_type in (TensorProto.FLOAT, TensorProto.FLOAT16)


def _type_text(value: onnx.ValueInfoProto) -> str:
    tensor = value.type.tensor_type
    shape = [d.dim_value or d.dim_param or "?" for d in tensor.shape.dim]
    return f"{TensorProto.DataType.Name(tensor.elem_type)} {shape}"


def _tap_shapes(model: onnx.ModelProto, taps: Taps) -> dict[str, list[int]]:
    """Infer the shapes of the tapped tensors; the batch is 0."""
    try:
        inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    except onnx.shape_inference.InferenceError as error:
        raise BundleError(f"the shapes in the graph contradict each other: {error}") from error
    values = [*inferred.graph.value_info, *inferred.graph.output]
    shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in values}
    for name in (*taps.tokens, taps.cls):
        if name not in shapes or len(shapes[name]) < 2 or not all(shapes[name][1:]):
            raise BundleError(f"the shape of tensor {name!r} could not be inferred.")
    return shapes


def _opset(model: onnx.ModelProto) -> int:
    return next(int(o.version) for o in model.opset_import if o.domain in ("", "ai.onnx"))


def _free_names(graph: onnx.GraphProto, taps: Taps) -> Taps:
    """Rename source tensors that have a name of the bundle's own; returns the taps with their new names."""
    new = {name: f"{name}.source" for name in (INPUT, CLS, *map(token_name, taps.layers))}
    for node in graph.node:
        node.input[:] = [new.get(name, name) for name in node.input]
        node.output[:] = [new.get(name, name) for name in node.output]
    for value in (*graph.input, *graph.initializer):
        value.name = new.get(value.name, value.name)
    tokens = tuple(new.get(name, name) for name in taps.tokens)
    return replace(taps, tokens=tokens, cls=new.get(taps.cls, taps.cls))


def _take_float_pixels(graph: onnx.GraphProto) -> None:
    """Make the graph's input float32 ``pixels``, with a cast if the source wants half precision."""
    old, element = graph.input[0].name, graph.input[0].type.tensor_type.elem_type
    graph.input[0].name = INPUT
    if element == TensorProto.FLOAT:
        for node in graph.node:
            node.input[:] = [INPUT if name == old else name for name in node.input]
        return
    graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT
    graph.node.insert(0, helper.make_node("Cast", [INPUT], [old], to=element))


def _checked(model: onnx.ModelProto) -> onnx.ModelProto:
    """Run shape inference and the checker over the finished graph."""
    del model.graph.value_info[:]
    inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    onnx.checker.check_model(inferred)
    return inferred
