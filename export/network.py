"""Change a network that TensorRT has parsed, by TensorRT's own calls: the device needs no onnx.

Fused attention is the part of ViTs that TensorRT has got wrong most often, and half precision comes next.
Both can be taken out of a parsed network without changing what it computes.
"""

from __future__ import annotations

from collections import defaultdict
from functools import cache
from typing import Any

import numpy as np

from ..runtime.types import Array
from ..runtime.vit.tensorrt_api import ILayer, INetworkDefinition, ITensor

Uses = dict[str, list[tuple[ILayer, int]]]


def layers_of(network: INetworkDefinition) -> list[ILayer]:
    """Return all layers, in order."""
    return [network.get_layer(index) for index in range(network.num_layers)]


def break_attention(trt: Any, network: INetworkDefinition) -> int:
    """Keep TensorRT from fusing attention; returns the number of softmaxes that were separated.

    The weights of attention are multiplied by a number that is 1 for every image, but is computed from the
    pixels, so that the compiler cannot know it.  The fused kernels have no such product inside.
    (Marking the softmax as a debug tensor, or casting around it, leaves the fusion in place; making it an
    output breaks it too, but each is written out whole, 11 GB for 8 images through ViT-L at 518 pixels.)
    """
    softmaxes = [layer for layer in layers_of(network) if layer.type == trt.LayerType.SOFTMAX]
    if not softmaxes:
        return 0
    # Before any product is added: the products read the softmaxes too, and must go on doing so.
    uses = _uses(network)
    ones: dict[tuple[object, int], ITensor] = {}
    for softmax in softmaxes:
        weights = softmax.get_output(0)
        kind = weights.dtype, len(weights.shape)
        if kind not in ones:
            ones[kind] = _unknown_one(trt, network, *kind)
        product = network.add_elementwise(weights, ones[kind], trt.ElementWiseOperation.PROD)
        _replace(uses[weights.name], product.get_output(0))
    return len(softmaxes)


def _unknown_one(trt: Any, network: INetworkDefinition, dtype: object, rank: int) -> ITensor:
    """Add exp(min(|largest pixel|, 0)), which is 1, as a tensor of ``rank`` axes of length 1."""
    pixels = network.get_input(0)
    every_axis = (1 << len(pixels.shape)) - 1
    largest = network.add_reduce(pixels, trt.ReduceOperation.MAX, every_axis, True).get_output(0)
    size = network.add_unary(largest, trt.UnaryOperation.ABS).get_output(0)
    zeros = _zeros(len(pixels.shape), trt.nptype(pixels.dtype))
    zero = network.add_constant(zeros.shape, zeros).get_output(0)
    smallest = network.add_elementwise(size, zero, trt.ElementWiseOperation.MIN).get_output(0)
    # min(|x|, 0) is 0 and exp(0) is 1 for any image, but only one who knows that |x| >= 0 can tell.
    one = network.add_unary(smallest, trt.UnaryOperation.EXP).get_output(0)
    if rank != len(pixels.shape):
        shuffle: Any = network.add_shuffle(one)
        shuffle.reshape_dims = (1,) * rank
        one = shuffle.get_output(0)
    return one if pixels.dtype == dtype else network.add_cast(one, dtype).get_output(0)


@cache
def _zeros(rank: int, dtype: type) -> Array:
    """Return a single zero that is never freed: TensorRT refers to it until the engine is built."""
    return np.zeros((1,) * rank, dtype)


def raise_to_float32(trt: Any, network: INetworkDefinition) -> list[Array]:
    """Turn every tensor in half precision into one in single precision.

    The network is strongly typed: types follow from inputs, weights and casts, so these are changed.
    Returns the new weights, which must live until the engine is built; none if nothing was in half precision.
    """
    half, single = trt.DataType.HALF, trt.DataType.FLOAT
    layers, uses = layers_of(network), _uses(network)
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    casts = [layer for layer in layers if layer.type == trt.LayerType.CAST]
    # A cast to half is bypassed: its input is cast to float32 instead, and nobody reads its output any more.
    ends = [(x, x) for x in inputs] + [(c.get_output(0), c.get_input(0)) for c in casts]
    for narrow, source in ends:
        if narrow.dtype == half and source is not None:
            _replace(uses[narrow.name], network.add_cast(source, single).get_output(0))
    weights: list[Array] = []
    for layer in layers:
        if layer.type == trt.LayerType.CONSTANT and layer.get_output(0).dtype == half:
            _raise_weights(trt, layer, trt.IConstantLayer, ("weights",), weights)
        elif layer.type == trt.LayerType.CONVOLUTION:
            _raise_weights(trt, layer, trt.IConvolutionLayer, ("kernel", "bias"), weights)
    return weights


def _raise_weights(trt: Any, layer: ILayer, kind: type, names: tuple[str, ...], kept: list[Array]) -> None:
    typed = _as(layer, kind)
    for name in names:
        old = getattr(typed, name)
        values = old if isinstance(old, np.ndarray) else old.numpy()
        if values.dtype == np.float16 and values.size:
            kept.append(values.astype(np.float32).ravel())
            setattr(typed, name, trt.Weights(kept[-1]))


def _as(layer: ILayer, kind: type) -> Any:
    """Return a layer with the attributes of its kind, which the result of ``get_layer`` lacks."""
    # The bindings give every layer the base class; setting the right one is how they are cast.
    typed: Any = layer
    typed.__class__ = kind
    return typed


def _uses(network: INetworkDefinition) -> Uses:
    """Map each tensor's name to the layers that read it, and the number of the input they read it as."""
    uses: Uses = defaultdict(list)
    for layer in layers_of(network):
        for index in range(layer.num_inputs):
            tensor = layer.get_input(index)
            if tensor is not None:
                uses[tensor.name].append((layer, index))
    return uses


def _replace(uses: list[tuple[ILayer, int]], tensor: ITensor) -> None:
    for layer, index in uses:
        layer.set_input(index, tensor)
