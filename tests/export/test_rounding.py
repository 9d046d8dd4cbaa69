"""Rounding to float16 in a graph in float32, against numpy's own float16."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime

from musc_edge.export.half import HALF, to_half
from musc_edge.export.rounding import with_roundings
from support.sources import built, pixels, run
from support.tiny_vit import tiny_vit

_GRAPH = """<ir_version: 10, opset_import: ["" : 23]>
g (float[3,4] x) => (float16[3,4] tokens, float[3,4] cls) <float[4] v = {1.1, 2.3, 0.7, 1.9}> {
    w = Cast <to = 10> (v)
    h = Cast <to = 10> (x)
    a = Mul(h, w)
    b = Add(a, a)
    c = Mul(b, b)
    tokens = Neg(c)
    cls = Cast <to = 1> (b)
}"""


def test_every_result_is_rounded() -> None:
    graph = onnx.shape_inference.infer_shapes(onnx.parser.parse_model(_GRAPH))
    model = with_roundings(ir.from_proto(graph))
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    x = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    tokens, cls = onnxruntime.InferenceSession(proto.SerializeToString(), options).run(None, {"x": x})
    a = x.astype(np.float16) * np.array([1.1, 2.3, 0.7, 1.9], np.float16)
    b = a + a
    assert tokens.dtype == cls.dtype == np.float32
    np.testing.assert_array_equal(tokens, -(b * b).astype(np.float32))
    np.testing.assert_array_equal(cls, b.astype(np.float32))


def test_a_vit_loses_more_than_where_a_cpu_rounds() -> None:
    source, images = built(tiny_vit(fused_norm=True, opset=17), (16, 24)).model, pixels(2, (16, 24))
    model = ir.from_proto(source)
    to_half(model, ("tokens_0", "tokens_2"), HALF)
    rounded = ir.to_proto(with_roundings(model))
    assert not [v for v in rounded.graph.output if v.type.tensor_type.elem_type != onnx.TensorProto.FLOAT]
    exact, on_cpu = run(source, images), run(ir.to_proto(model), images)
    found = run(rounded, images)
    for name, off in zip(exact, found.values(), strict=True):
        worst = np.abs(off - exact[name]).max()
        assert np.abs(on_cpu[name].astype(np.float32) - exact[name]).max() < worst < 0.02
