"""GELU as a node: which pieces are understood, and that numbers stay."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from musc_edge.export.gelu import with_whole_gelu

_NUMBERS = {
    "root": 2**0.5,
    "inverse": 0.5**0.5,
    "one": 1,
    "half": 0.5,
    "three": 3,
    "a": 0.044715,
    "b": 0.7978846,
}
_ERF = "d = Div(x, root) e = Erf(d) s = Add(e, one)"
_TANH = "p = Pow(x, three) m = Mul(a, p) q = Add(x, m) n = Mul(b, q) t = Tanh(n) s = Add(t, one)"
_ENDS = {
    "product first": "h = Mul(x, s) y = Mul(h, half)",
    "half first": "h = Mul(half, s) y = Mul(x, h)",
    "half of x": "h = Mul(x, half) y = Mul(h, s)",
}
_FORMS = {
    f"{name}, {end}": f"{kernel} {_ENDS[end]}"
    for name, kernel in (("none", _ERF), ("tanh", _TANH))
    for end in _ENDS
}
_PLAIN = f"{_ERF} {_ENDS['product first']}"
_OTHERS = {
    "another factor": _PLAIN.replace("Mul(h, half)", "Mul(h, a)"),
    "another root": _PLAIN.replace("root", "three"),
    "times another tensor": _PLAIN.replace("Mul(x, s)", "Mul(z, s)"),
    "read in between": _PLAIN + " w = Neg(s)",
    "shifted by a weight": _PLAIN.replace("Add(e, one)", "Add(e, shift)"),
}


def gelu(form: str) -> ir.Model:
    """A graph of one GELU: x (B,4), and z (B,4) that has no part in it, to o."""
    numbers = ", ".join(f"float {name} = {{{value}}}" for name, value in _NUMBERS.items())
    outputs = "float[B,4] o, float[B,4] w" if "w = " in form else "float[B,4] o"
    text = (
        f'<ir_version: 10, opset_import: ["" : 23]> g (float[B,4] x, float[B,4] z) => ({outputs}) '
        f"<{numbers}, float[4] shift = {{1, 1, 1, 1}}> {{ {form} o = Neg(y) }}"
    )
    model = onnx.shape_inference.infer_shapes(onnx.parser.parse_model(text))
    onnx.checker.check_model(model, full_check=True)
    return ir.from_proto(model)


def values(model: ir.Model) -> np.ndarray:
    import onnxruntime

    x = np.linspace(-9, 9, 400, dtype=np.float32).reshape(-1, 4)
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString())
    found: np.ndarray = session.run(["o"], {"x": x, "z": x})[0]
    return found


@pytest.mark.parametrize("form", _FORMS)
def test_forms(form: str) -> None:
    model = gelu(_FORMS[form])
    before = values(model)
    assert with_whole_gelu(model) == 1
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    assert [node.op_type for node in model.graph] == ["Gelu", "Neg"]
    assert next(iter(model.graph)).attributes["approximate"].as_string() == form.split(",", maxsplit=1)[0]
    np.testing.assert_allclose(values(model), before, rtol=0, atol=2e-6)


@pytest.mark.parametrize("form", _OTHERS)
def test_what_a_node_cannot_stand_for_stays(form: str) -> None:
    model = gelu(_OTHERS[form])
    before = [node.op_type for node in model.graph]
    assert with_whole_gelu(model) == 0
    assert [node.op_type for node in model.graph] == before
