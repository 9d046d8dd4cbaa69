"""Compute tensors of a graph that do not depend on the pixels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import helper

from ..runtime.types import Array
from .onnx_file import remove_unused, run_model


def evaluate(model: onnx.ModelProto, names: Sequence[str], batches: Sequence[int]) -> list[dict[str, Array]]:
    """Evaluate the tensors ``names`` for batches of black images, one batch of each size in ``batches``.

    They must need no other input than the first, the image.
    """
    if not names:
        return [{} for _ in batches]
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    graph = probe.graph
    del graph.output[:], graph.value_info[:]
    graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    remove_unused(graph)
    del graph.input[1:]  # none of ``names`` needs them
    tensor = graph.input[0].type.tensor_type
    image = tuple(d.dim_value for d in tensor.shape.dim[1:])
    dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type)
    runs = run_model(probe, [np.zeros((batch, *image), dtype) for batch in batches])
    return [dict(zip(names, values, strict=True)) for values in runs]
