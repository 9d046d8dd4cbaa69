"""Attention as a node: which pieces are understood, that numbers stay, and that weights are shared."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnx_ir.passes.common as passes
import pytest

from musc_edge.export.attention import AttentionGraph, with_attention_nodes
from musc_edge.export.half import to_half
from support.sources import Array, built, pixels, run
from support.tiny_vit import BLOCKS, tiny_vit

SIZE = (16, 24)
PLAIN = "l = MatMul(q, t) w = Softmax(l)"
_FORMS = {
    "plain": PLAIN,
    "product after": "l = MatMul(q, t) s = Mul(l, c) w = Softmax(s)",
    "quotient after": "l = MatMul(q, t) s = Div(l, c) w = Softmax <axis = 3> (s)",
    "number first": "l = MatMul(q, t) s = Mul(c, l) w = Softmax(s)",
    "both scaled before": "a = Mul(q, c) b = Mul(t, c) l = MatMul(a, b) w = Softmax(l)",
    "mask of zeros": "l = MatMul(q, t) s = Add(l, zeros) w = Softmax(s)",
    "mask repeated": "n = Shape <end = 1> (q) e = Concat <axis = 0> (n, ones) m = Expand(zeros, e) "
    "l = MatMul(q, t) s = Add(m, l) w = Softmax(s)",
    "cast weights": "l = MatMul(q, t) p = Softmax(l) w = Cast <to = 1> (p)",
}
_KEYS = {
    "transposed": "t = Transpose <perm = [0, 1, 3, 2]> (k)",
    "with heads last": "h = Transpose <perm = [0, 2, 1, 3]> (k) t = Transpose <perm = [0, 2, 3, 1]> (h)",
    "through three axes": "f = Reshape(k, flat) g = Transpose <perm = [0, 2, 1]> (f) t = Reshape(g, whole)",
    "otherwise": "f = Transpose <perm = [3, 2, 1, 0]> (k) g = Transpose <perm = [3, 2, 0, 1]> (f) t = Abs(g)",
}
_ZEROS, _COUNTED = ", ".join(["0"] * 25), ", ".join(map(str, range(25)))
_WEIGHTS = (
    f"float c = {{0.3}}, float[1,1,5,5] zeros = {{{_ZEROS}}}, float[1,1,5,5] mask = {{{_COUNTED}}}, "
    "int64[3] ones = {1, 5, 5}, int64[3] flat = {-1, 5, 4}, int64[4] whole = {-1, 2, 4, 5}"
)


def attention(form: str, key: str = _KEYS["transposed"], opset: int = 18) -> ir.Model:
    """A graph of one attention: q, k, v (B,2,5,4) to y."""
    tensors = ", ".join(f"float[B,2,5,4] {name}" for name in "qkv")
    text = (
        f'<ir_version: 8, opset_import: ["" : {opset}]> g ({tensors}) => (float[B,2,5,4] y) '
        f"<{_WEIGHTS}> {{ {key} {form} x = MatMul(w, v) y = Abs(x) }}"
    )
    model = onnx.parser.parse_model(text)
    onnx.checker.check_model(model, full_check=True)
    return ir.from_proto(model)


def numbers(model: ir.Model) -> Array:
    """What the graph gives for three random batches of q, k and v."""
    import onnxruntime

    generator = np.random.default_rng(0)
    feed = {name: generator.standard_normal((3, 2, 5, 4)).astype(np.float32) for name in "qkv"}
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString())
    found: Array = session.run(None, feed)[0]
    return found


def operators(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


def rewritten(model: ir.Model) -> AttentionGraph:
    found = with_attention_nodes(model)
    assert found is not None
    onnx.checker.check_model(ir.to_proto(found.model), full_check=True)
    return found


@pytest.mark.parametrize(
    ("form", "key"), [*((form, "transposed") for form in _FORMS), *(("plain", key) for key in _KEYS)]
)
def test_forms(form: str, key: str) -> None:
    model = attention(_FORMS[form], _KEYS[key])
    before = ir.to_proto(model).SerializeToString()
    found = rewritten(model)
    assert (found.nodes, found.pieces) == (1, 0)
    assert not {"Softmax", "MatMul", "Mul", "Div", "Add"}.intersection(operators(found.model))
    np.testing.assert_allclose(numbers(found.model), numbers(model), rtol=0, atol=1e-6)
    assert ir.to_proto(model).SerializeToString() == before


def test_a_scale_that_is_wrong_is_seen() -> None:
    """What the test above relies on."""
    model = attention(_FORMS["product after"])
    found = rewritten(model).model
    (node,) = (node for node in found.graph if node.op_type == "Attention")
    node.attributes["scale"] = ir.AttrFloat32("scale", 0.31)
    assert np.abs(numbers(found) - numbers(model)).max() > 1e-4


@pytest.mark.parametrize(
    "form",
    [
        "l = MatMul(q, t) s = Add(l, mask) w = Softmax(s)",
        "l = MatMul(q, t) w = Softmax <axis = 2> (l)",
        "l = MatMul(q, t) n = Neg(l) w = Softmax(n)",
        "n = Neg(c) l = MatMul(q, t) s = Mul(l, n) w = Softmax(s)",
        "l = MatMul(q, t) s = Mul(l, mask) w = Softmax(s)",
        "l = MatMul(q, t) p = Softmax(l) w = Relu(p)",
    ],
    ids=["mask", "axis", "negated", "negative scale", "tensor", "between"],
)
def test_what_a_node_cannot_stand_for_stays(form: str) -> None:
    assert with_attention_nodes(attention(form)) is None


def test_weights_that_others_read_stay_as_well() -> None:
    """A map of attention, which some exports have as an output."""
    model = attention(PLAIN)
    (softmax,) = (node for node in model.graph if node.op_type == "Softmax")
    model.graph.outputs.append(softmax.outputs[0])
    found = rewritten(model)
    assert (found.nodes, found.pieces) == (1, 1)
    np.testing.assert_allclose(numbers(found.model), numbers(model), rtol=0, atol=1e-6)


@pytest.mark.parametrize("opset", [14, 17, 18])
def test_vit(opset: int) -> None:
    source = built(tiny_vit(opset=opset, heads=2), SIZE).model
    model = ir.from_proto(source)
    found = rewritten(model)
    assert str(found) == f"{BLOCKS} attentions as one node each"
    images = pixels(3, SIZE)
    for name, values in run(ir.to_proto(found.model), images).items():
        np.testing.assert_allclose(values, run(source, images)[name], rtol=0, atol=2e-6)


def test_weights_are_shared() -> None:
    model = ir.from_proto(built(tiny_vit(), SIZE).model)
    found = rewritten(model).model
    weights = {name: weight.const_value for name, weight in model.graph.initializers.items()}
    large = {name: values for name, values in weights.items() if values and values.nbytes > 999}
    assert len(large) > 10
    assert all(found.graph.initializers[name].const_value is values for name, values in large.items())


def test_half_precision() -> None:
    """Q, K and V come in float16, and no softmax is left that would need float32."""
    model = ir.from_proto(built(tiny_vit(heads=2), SIZE).model)
    found = rewritten(model).model
    to_half(found, ("tokens_0", "tokens_2"))
    proto = ir.to_proto(passes.ShapeInferencePass()(found).model)
    onnx.checker.check_model(proto, full_check=True)
    nodes = [node for node in found.graph if node.op_type == "Attention"]
    assert {value.dtype for node in nodes for value in (*node.inputs, *node.outputs) if value} == {
        ir.DataType.FLOAT16
    }
    images = pixels(2, SIZE)
    halved, whole = run(proto, images), run(ir.to_proto(model), images)
    for name in ("tokens_0", "tokens_2"):
        a, b = halved[name].astype(np.float64), whole[name].astype(np.float64)
        assert ((a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)).min() > 0.9995
