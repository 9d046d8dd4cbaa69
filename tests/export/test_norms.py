"""Norms as nodes: which pieces are understood, and that numbers stay."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import version_converter

from musc_edge.export.norms import norms_in_pieces, with_whole_norms
from support.sources import built, pixels, run
from support.tiny_vit import BLOCKS, tiny_vit

_MEAN = "m = ReduceMean(x, axes) d = Sub(x, m)"
_SPREAD = "v = ReduceMean(q, axes)"
_ROOT = "r = Sqrt(e)"
_END = "s = Mul(n, scale) t = Add(s, bias)"
_FORMS = {
    "power": f"{_MEAN} q = Pow(d, two) {_SPREAD} e = Add(v, eps) {_ROOT} n = Div(d, r) {_END}",
    "product": f"{_MEAN} q = Mul(d, d) {_SPREAD} e = Add(eps, v) {_ROOT} n = Div(d, r) {_END}",
    "reciprocal": f"{_MEAN} q = Mul(d, d) {_SPREAD} e = Add(v, eps) {_ROOT} "
    f"i = Reciprocal(r) n = Mul(d, i) s = Mul(scale, n) t = Add(bias, s)",
}
_POWER = _FORMS["power"]
_OTHERS = {
    "cubes": _POWER.replace("two", "three"),
    "another axis": _POWER.replace("ReduceMean(q, axes)", "ReduceMean(q, first)"),
    "mean of another tensor": _POWER.replace("m = ReduceMean(x", "m = ReduceMean(z"),
    "divisor above": _POWER.replace("Div(d, r)", "Div(r, d)"),
    "another numerator": _POWER.replace("Div(d, r)", "Div(z, r)"),
    "no scale": _POWER.replace("Mul(n, scale)", "Abs(n)"),
    "scale of each image": _POWER.replace("Mul(n, scale)", "Mul(n, m)"),
    "root is read by others": _POWER + " w = Abs(r)",
}


def norm(form: str) -> ir.Model:
    """A graph of one norm: x (B,5,4), and z (B,5,4) which has no part in it, to y."""
    last = "float[B,5,1] w" if "w = " in form else "float[B,5,4] y"
    text = (
        f'<ir_version: 10, opset_import: ["" : 23]> g (float[B,5,4] x, float[B,5,4] z) => '
        f"(float[B,5,4] y{', ' + last if 'w = ' in form else ''}) <float two = {{2}}, float three = {{3}}, "
        "float eps = {1e-5}, int64[1] axes = {-1}, int64[1] first = {1}, float[4] scale = {1, 2, 3, 4}, "
        f"float[4] bias = {{4, 3, 2, 1}}> {{ {form} y = Abs(t) }}"
    )
    model = onnx.shape_inference.infer_shapes(onnx.parser.parse_model(text))
    onnx.checker.check_model(model, full_check=True)
    return ir.from_proto(model)


def numbers(model: ir.Model) -> np.ndarray:
    import onnxruntime

    generator = np.random.default_rng(0)
    feed = {name: 3 * generator.standard_normal((3, 5, 4)).astype(np.float32) for name in "xz"}
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString())
    found: np.ndarray = session.run(["y"], {v.name: feed[v.name] for v in session.get_inputs()})[0]
    return found


@pytest.mark.parametrize("form", _FORMS)
def test_forms(form: str) -> None:
    model = norm(_FORMS[form])
    before = numbers(model)
    assert norms_in_pieces(model)
    assert with_whole_norms(model) == 1
    assert not norms_in_pieces(model)
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    assert [node.op_type for node in model.graph] == ["LayerNormalization", "Abs"]
    np.testing.assert_allclose(numbers(model), before, rtol=0, atol=2e-6)


@pytest.mark.parametrize("form", _OTHERS)
def test_what_a_node_cannot_stand_for_stays(form: str) -> None:
    model = norm(_OTHERS[form])
    before = [node.op_type for node in model.graph]
    assert with_whole_norms(model) == 0
    assert norms_in_pieces(model)
    assert [node.op_type for node in model.graph] == before


def test_a_vit() -> None:
    """Norms of all blocks and the last one, with scales and biases of their own."""
    source = built(tiny_vit(), (16, 24)).model
    proto = onnx.shape_inference.infer_shapes(version_converter.convert_version(source, 23))
    model = ir.from_proto(proto)
    assert with_whole_norms(model) == 2 * BLOCKS + 1
    images = pixels(2, (16, 24))
    expected, found = run(source, images), run(ir.to_proto(model), images)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=0, atol=1e-5)
