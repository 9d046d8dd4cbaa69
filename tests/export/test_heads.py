"""Attention of three axes: which ways to cut heads are understood, and that numbers stay."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from musc_edge.export.heads import with_heads_last

_WIDTHS = ", ".join(str(k % 7 - 3) for k in range(8 * 24))
_WEIGHTS = (
    f"float[8,24] all = {{{_WIDTHS}}}, float[24] b = {{{', '.join(map(str, range(24)))}}}, "
    f"float[8,8] one = {{{', '.join(str(k % 5 - 2) for k in range(64))}}}, "
    "int64[5] five = {-1, 5, 3, 2, 4}, int64[4] four = {-1, 5, 2, 4}, int64[3] three = {-1, 5, 8}, "
    "int64[4] swapped = {5, -1, 3, 8}, int64[3] merged = {5, -1, 4}, int64[4] apart = {-1, 2, 5, 4}, "
    "int64[2] rows = {-1, 8}, int64[3] tall = {5, -1, 8}, int64[4] fives = {-1, 5, 4, 2}, "
    "int64[1] z = {0}, int64[1] u = {1}, int64[1] w = {2}, int64[1] e = {3}, "
    "int64[1] n6 = {6}, int64[1] n8 = {8}, int64[1] n12 = {12}, int64[1] n24 = {24}, "
    "int64[4] threes = {-1, 5, 2, 3}, int64[4] sixes = {-1, 5, 2, 6}, int64[3] twelve = {-1, 5, 12}, "
    "int64[4] wide = {-1, 5, 2, 12}, int64[3] all24 = {-1, 5, 24}, "
    "int64 i0 = {0}, int64 i1 = {1}, int64 i2 = {2}, float[8] c = {1, 2, 3, 4, 5, 6, 7, 8}"
)
_PRODUCT = "p = MatMul(x, all) s = Add(p, b)"
_ATTENTION = "a = Attention <scale = 0.01> (q, k, v)"
_MERGED = "m = Transpose <perm = [0, 2, 1, 3]> (a) y0 = Reshape(m, three)"
_TIMM = f"{_PRODUCT} f = Reshape(s, five) t = Transpose <perm = [2, 0, 3, 1, 4]> (f)"
_HEADS = "{0} = Transpose <perm = [0, 2, 1, 3]> ({0}r)"
_HF = " ".join(f"{n}p = MatMul(x, one) {n}r = Reshape({n}p, four) {_HEADS.format(n)}" for n in "qkv")
_CLIP = (
    "g = Transpose <perm = [1, 0, 2]> (x) p = MatMul(g, all) s = Add(p, b) f = Reshape(s, swapped) "
    "n = Unsqueeze(f, z) t = Transpose <perm = [3, 1, 2, 0, 4]> (n) o = Squeeze(t, e) "
    + " ".join(
        f"{n}g = Gather <axis = 0> (o, i{k}) {n}m = Reshape({n}g, merged) "
        f"{n}t = Transpose <perm = [1, 0, 2]> ({n}m) {n} = Reshape({n}t, apart)"
        for k, n in enumerate("qkv")
    )
)
_CLIP_END = (
    "m = Transpose <perm = [2, 0, 1, 3]> (a) r = Reshape(m, rows) {} "
    "h = Reshape(l, tall) y0 = Transpose <perm = [1, 0, 2]> (h)"
)
_GEMM = _CLIP_END.format("l = Gemm <transB = 1> (r, one, c)")
_MATMUL = _CLIP_END.format("j = MatMul(r, one) l = Add(j, c)")
_GATHERS = " ".join(f"{n} = Gather <axis = 0> (t, i{k})" for k, n in enumerate("qkv"))
_SLICES = " ".join(
    f"{n}s = Slice(t, {start}, {end}, z) {n} = Squeeze({n}s, z)"
    for n, start, end in (("q", "z", "u"), ("k", "u", "w"), ("v", "w", "e"))
)
_SPLIT = "qs, ks, vs = Split <axis = 0, num_outputs = 3> (t) " + " ".join(
    f"{n} = Squeeze({n}s, z)" for n in "qkv"
)
_FORMS = {
    "timm": f"{_TIMM} {_GATHERS} {_ATTENTION} {_MERGED}",
    "slices": f"{_TIMM} {_SLICES} {_ATTENTION} {_MERGED}",
    "split": f"{_TIMM} {_SPLIT} {_ATTENTION} {_MERGED}",
    "apart": f"{_HF} {_ATTENTION} {_MERGED}",
    "swapped": f"{_CLIP} {_ATTENTION} {_GEMM}",
    "swapped, by MatMul": f"{_CLIP} {_ATTENTION} {_MATMUL}",
}
_WIDER = (
    f"{_PRODUCT} "
    + " ".join(
        f"{n}s = Slice(s, {start}, {end}, w) {n}r = Reshape({n}s, {shape}) {_HEADS.format(n)}"
        for n, start, end, shape in (
            ("q", "z", "n6", "threes"),
            ("k", "n6", "n12", "threes"),
            ("v", "n12", "n24", "sixes"),
        )
    )
    + f" {_ATTENTION} m = Transpose <perm = [0, 2, 1, 3]> (a) j = Reshape(m, twelve) y0 = Slice(j, z, n8, w)"
)
_PLAIN = _FORMS["apart"]
_OTHERS = {
    "Q, K and a wider V in one": _WIDER,
    "sums between": _PLAIN.replace("qr = Reshape(qp, four)", "q0 = Reshape(qp, four) qr = Add(q0, q0)"),
    "another order": _PLAIN.replace("Reshape(kp, four)", "Reshape(kp, fives)").replace(
        "k = Transpose <perm = [0, 2, 1, 3]>", "k = Transpose <perm = [0, 3, 1, 2]>"
    ),
}


def attention(form: str) -> ir.Model:
    """A graph of one attention of two heads: x (B,5,8) to y."""
    text = (
        f'<ir_version: 10, opset_import: ["" : 23]> g (float[B,5,8] x) => (float[B,5,8] y) '
        f"<{_WEIGHTS}> {{ {form} y = Abs(y0) }}"
    )
    model = onnx.shape_inference.infer_shapes(onnx.parser.parse_model(text), data_prop=True)
    onnx.checker.check_model(model, full_check=True)
    return ir.from_proto(model)


def numbers(model: ir.Model) -> np.ndarray:
    import onnxruntime

    images = np.random.default_rng(0).standard_normal((3, 5, 8)).astype(np.float32)
    found: np.ndarray = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString()).run(
        None, {"x": images}
    )[0]
    return found


def operators(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


@pytest.mark.parametrize("form", _FORMS)
def test_nothing_moves(form: str) -> None:
    model = attention(_FORMS[form])
    before = numbers(model)
    assert with_heads_last(model) == 1
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    found = operators(model)
    assert not {"Transpose", "Gather", "Slice", "Squeeze", "Unsqueeze"}.intersection(found)
    assert found.count("Reshape") == (2 if "Gemm" in found else 0)
    assert found.count("Split") == (0 if form == "apart" else 1)
    np.testing.assert_allclose(numbers(model), before, rtol=1e-5)


def test_a_result_that_is_read_otherwise_is_cut_again() -> None:
    model = attention(f"{_HF} {_ATTENTION} n = Neg(a) {_MERGED.replace('(a)', '(n)')}")
    before = numbers(model)
    assert with_heads_last(model) == 1
    assert operators(model).count("Transpose") == 2
    np.testing.assert_allclose(numbers(model), before, rtol=1e-5)


@pytest.mark.parametrize("form", _OTHERS)
def test_what_is_not_understood_stays(form: str) -> None:
    model = attention(_OTHERS[form])
    before = operators(model)
    assert with_heads_last(model) == 0
    assert operators(model) == before


def test_two_attentions_that_cut_one_tensor_otherwise() -> None:
    """One takes thirds of it for Q, K and V, the other all of it for each."""
    other = (
        "wr = Reshape(s, wide) wt = Transpose <perm = [0, 2, 1, 3]> (wr) "
        "b1 = Attention <scale = 0.01> (wt, wt, wt) "
        "b2 = Transpose <perm = [0, 2, 1, 3]> (b1) b3 = Reshape(b2, all24) b4 = Slice(b3, z, n8, w)"
    )
    first = f"{_TIMM} {_GATHERS} {_ATTENTION} {_MERGED.replace('y0', 'y1')}"
    model = attention(f"{first} {other} y0 = Add(y1, b4)")
    before = numbers(model)
    assert with_heads_last(model) == 2
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    np.testing.assert_allclose(numbers(model), before, rtol=1e-5)


def test_parts_in_another_order() -> None:
    """Found by where elements are, not by the order in which parts are asked for."""
    swapped = _FORMS["timm"].replace("(t, i0)", "(t, i9)").replace("(t, i2)", "(t, i0)").replace("i9", "i2")
    model = attention(swapped)
    before = numbers(model)
    assert with_heads_last(model) == 1
    np.testing.assert_allclose(numbers(model), before, rtol=1e-5)
