"""The graph of a bundle: cut, folded, given its heads and clean names, with the source's numbers."""

from __future__ import annotations

import random
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, compose, helper, numpy_helper

from musc_edge.export import onnx_file
from musc_edge.export.branches import inline_branches
from musc_edge.export.copies import merge_copies
from musc_edge.export.folding import fold_shapes
from musc_edge.export.graph import BundleGraph, at_size, cut, make_graph, patch_size
from musc_edge.export.naming import clean_names
from musc_edge.export.onnx_file import load_source, run_model, save_model
from musc_edge.export.taps import Taps, find_taps
from musc_edge.runtime.errors import BundleError
from support.sources import CLS, LAYERS, Array, block, built, expected, pixels, run, tiny_source
from support.tiny_vit import INPUT, PATCH, WIDTH, tiny_vit

pytestmark = pytest.mark.slow

VARIANTS: dict[str, dict[str, Any]] = {
    "opset 14": {},
    "two heads": {"heads": 2},
    "opset 17": {"opset": 17},
    "opset 17, one node for each norm": {"opset": 17, "fused_norm": True},
    "opset 18": {"opset": 18},
    "registers": {"registers": 4},
    "one register, opset 18, prefix": {"registers": 1, "opset": 18, "prefix": "/backbone"},
    "layers": {"layers_name": "layers", "prefix": "/model/vision"},
}
SIZES = [(16, 16), (8, 8), (40, 40), (12, 20), (32, 8), (4, 4)]
"""The stored position embedding is for 16x16; the last has one patch only."""


def assert_same_numbers(source: onnx.ModelProto, graph: BundleGraph, taps: Taps, images: Array) -> None:
    wanted = expected(source, taps.tokens, taps.cls, images, graph.grid[0] * graph.grid[1])
    found = run(graph.model, images)
    assert list(found) == [*graph.token_names, "cls"]
    for name, tokens in zip(graph.token_names, wanted.tokens, strict=True):
        assert found[name].shape == tokens.shape
        assert found[name].dtype == np.float32
        np.testing.assert_allclose(found[name], tokens, rtol=0, atol=1e-6)
    np.testing.assert_allclose(found["cls"], wanted.cls, rtol=0, atol=1e-6)


def shape_of(value: onnx.ValueInfoProto) -> list[int | str]:
    return [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]


def ops(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


# ---- numbers ---------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("size", SIZES, ids="{0[0]}x{0[1]}".format)
def test_numbers_of_the_source(variant: str, size: tuple[int, int]) -> None:
    source = tiny_vit(**VARIANTS[variant], seed=3)
    taps = find_taps(source, LAYERS)
    graph = built(source, size)
    assert graph.grid == (size[0] // PATCH, size[1] // PATCH)
    for batch in (1, 2, 5):
        assert_same_numbers(source, graph, taps, pixels(batch, size))


def test_tokens_have_no_mean_and_cls_has_length_one() -> None:
    found = run(built(tiny_vit(), (16, 24)).model, 3 * pixels(4, (16, 24)))
    for layer in LAYERS:
        np.testing.assert_allclose(found[f"tokens_{layer}"].mean(axis=(1, 2)), 0, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(found["cls"], axis=1), 1, atol=1e-6)


def test_an_image_has_the_same_numbers_in_any_batch() -> None:
    graph, images = built(tiny_vit(registers=2), (12, 20)).model, pixels(5, (12, 20))
    together = run(graph, images)
    for i in range(5):
        alone = run(graph, images[i : i + 1])
        for name, values in alone.items():
            np.testing.assert_allclose(values[0], together[name][i], rtol=0, atol=1e-6)


def test_zero_cls_gives_no_nan() -> None:
    source = tiny_vit()
    for k, weight in enumerate(source.graph.initializer):
        if weight.name.startswith("layernorm."):
            zeros = np.zeros(weight.dims, np.float32)
            source.graph.initializer[k].CopyFrom(numpy_helper.from_array(zeros, weight.name))
    np.testing.assert_array_equal(run(built(source, (8, 8)).model, pixels(2, (8, 8)))["cls"], 0)


def test_every_block_and_only_one() -> None:
    for layers in ((0, 1, 2), (1,)):
        source = tiny_vit()
        graph = built(source, (16, 16), layers)
        assert graph.token_names == tuple(f"tokens_{layer}" for layer in layers)
        assert_same_numbers(source, graph, find_taps(source, layers), pixels(2, (16, 16)))


def test_patches_only_and_pooled_cls() -> None:
    """Taps without CLS token, and an embedding (B,D) from a projection, as CLIP's exports have."""
    source = tiny_vit()
    add = source.graph.node.add
    weights = source.graph.initializer
    weights.append(numpy_helper.from_array(np.array(0), "zero"))
    weights.append(numpy_helper.from_array(pixels(1, (WIDTH, 5))[0, 0], "visual_projection"))
    for name, values in (("one", [1]), ("end", [1 << 40])):
        weights.append(numpy_helper.from_array(np.array(values), name))
    for layer in LAYERS:
        add(op_type="Slice", input=[block(layer), "one", "end", "one"], output=[f"patches.{layer}"])
    add().CopyFrom(helper.make_node("Gather", [CLS, "zero"], ["first"], axis=1))
    add(op_type="MatMul", input=["first", "visual_projection"], output=["embedding"])
    taps = find_taps(source, LAYERS, "patches.{layer}", "embedding")
    graph = make_graph(cut(source, taps, (16, 8)), taps)
    assert (graph.token_width, graph.cls_width) == (WIDTH, 5)
    assert_same_numbers(source, graph, taps, pixels(3, (16, 8)))


def test_source_named_like_a_bundle() -> None:
    """Tensors of the source may already be called what a bundle calls its own."""
    source = tiny_vit()
    new = {INPUT: "pixels", CLS: "cls", "layernorm.weight": "batch"}
    new |= {block(layer): f"tokens_{layer}" for layer in LAYERS}
    for node in source.graph.node:
        node.input[:] = [new.get(name, name) for name in node.input]
        node.output[:] = [new.get(name, name) for name in node.output]
    for value in (*source.graph.input, *source.graph.initializer):
        value.name = new.get(value.name, value.name)
    taps = find_taps(source, LAYERS, "tokens_{layer}", "cls")
    graph = make_graph(cut(source, taps, (16, 8)), taps)
    assert_same_numbers(source, graph, taps, pixels(2, (16, 8)))


def test_shapes_that_the_source_states_do_not_matter() -> None:
    """Exporters may leave the shapes of every tensor in the file, for the size of the export."""
    source = onnx.shape_inference.infer_shapes(tiny_vit(), data_prop=True)
    assert len(source.graph.value_info) > 100
    assert_same_numbers(source, built(source, (8, 24)), find_taps(source, LAYERS), pixels(2, (8, 24)))


def test_weights_listed_as_inputs() -> None:
    """Old exporters list every weight among the inputs too."""
    source = tiny_vit()
    for weight in source.graph.initializer:
        value = helper.make_tensor_value_info(weight.name, TensorProto.FLOAT, list(weight.dims))
        source.graph.input.append(value)
    graph = built(source, (16, 16))
    assert [value.name for value in graph.model.graph.input] == ["pixels"]
    assert_same_numbers(source, graph, find_taps(source, LAYERS), pixels(2, (16, 16)))


def test_input_declared_for_one_image() -> None:
    source = tiny_vit()
    source.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    assert_same_numbers(source, built(source, (16, 16)), find_taps(source, LAYERS), pixels(3, (16, 16)))


def test_source_stays_as_it_was() -> None:
    source = tiny_vit()
    before = source.SerializeToString(deterministic=True)
    built(source, (16, 24))
    assert source.SerializeToString(deterministic=True) == before


# ---- form ------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("size", [(16, 16), (12, 20)], ids="{0[0]}x{0[1]}".format)
def test_nothing_is_computed_from_the_image_size(variant: str, size: tuple[int, int]) -> None:
    graph = built(tiny_vit(**VARIANTS[variant]), size).model.graph
    assert not any(node.op_type in ("Resize", "Constant", "Unsqueeze", "Where") for node in graph.node)
    shapes = [node for node in graph.node if node.op_type in ("Shape", "Size")]
    assert len(shapes) <= 1
    weights = {weight.name: numpy_helper.to_array(weight) for weight in graph.initializer}
    for node in shapes:
        assert list(node.input) == ["pixels"]
        (reader,) = [other for other in graph.node if node.output[0] in other.input]
        assert reader.op_type == "Gather"
        np.testing.assert_array_equal(weights[reader.input[1]], [0])  # the batch, and nothing else


@pytest.mark.parametrize("prefix", ["", "/backbone"])
def test_position_embedding_is_stored(prefix: str) -> None:
    source = tiny_vit(prefix=prefix)
    (resize,) = [node for node in source.graph.node if node.op_type == "Resize"]
    resampled = run(source, pixels(1, (12, 20)), list(resize.output))[resize.output[0]]
    patches = resampled.reshape(WIDTH, 15).T
    stored = [numpy_helper.to_array(w) for w in built(source, (12, 20)).model.graph.initializer]
    (position,) = [values for values in stored if values.shape == (1, 16, WIDTH)]
    np.testing.assert_array_equal(position[0, 1:], patches)


@pytest.mark.parametrize("variant", VARIANTS)
def test_interface(variant: str) -> None:
    source = tiny_vit(**VARIANTS[variant])
    graph = built(source, (12, 20), (0, 1, 2))
    model = graph.model
    assert (graph.patch_size, graph.grid, graph.token_width, graph.cls_width) == (4, (3, 5), WIDTH, WIDTH)
    inputs = {value.name: shape_of(value) for value in model.graph.input}
    assert inputs == {"pixels": ["batch", 3, 12, 20]}
    outputs = {value.name: shape_of(value) for value in model.graph.output}
    tokens: dict[str, list[int | str]] = {f"tokens_{layer}": ["batch", 15, WIDTH] for layer in (0, 1, 2)}
    assert outputs == {**tokens, "cls": ["batch", WIDTH]}
    assert list(outputs) == [*graph.token_names, "cls"]
    for value in (*model.graph.input, *model.graph.output):
        assert value.type.tensor_type.elem_type == TensorProto.FLOAT
    onnx.checker.check_model(model, full_check=True)


@pytest.mark.parametrize("variant", VARIANTS)
def test_names(variant: str) -> None:
    graph = built(tiny_vit(**VARIANTS[variant]), (12, 20)).model.graph
    nodes = [node.name for node in graph.node]
    weights = [weight.name for weight in graph.initializer]
    tensors = [name for node in graph.node for name in node.output] + weights
    assert len(set(nodes)) == len(nodes)
    assert len(set(tensors)) == len(tensors)
    for name in (*nodes, *tensors):
        assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.]*", name), name
        assert "backbone" not in name
        assert "vision" not in name
    layers_name = VARIANTS[variant].get("layers_name", "layer")
    assert f"encoder.{layers_name}.0.norm1.weight" in weights
    assert f"encoder.{layers_name}.0.mlp.fc1.MatMul.input1" in weights  # onnx::MatMul_12 in the source
    assert f"encoder.{layers_name}.2.Add_1" in nodes


def test_what_comes_after_the_taps_is_gone() -> None:
    source = tiny_vit()
    graph = built(source, (16, 16)).model.graph
    assert "Sigmoid" in ops(source)
    assert "Sigmoid" not in {node.op_type for node in graph.node}
    assert not [weight.name for weight in graph.initializer if weight.name.startswith("head")]
    read = {name for node in graph.node for name in node.input}
    assert {weight.name for weight in graph.initializer} <= read
    made = {name for node in graph.node for name in node.output}
    assert made - read == {"tokens_0", "tokens_2", "cls"}


def test_cut_keeps_the_taps_and_takes_the_size() -> None:
    source = tiny_vit()
    taps = find_taps(source, (1,))
    trimmed = cut(source, taps, (12, 20))
    assert shape_of(trimmed.graph.input[0]) == ["batch", 3, 12, 20]
    assert [value.name for value in trimmed.graph.output] == [block(1), CLS]
    assert "Sigmoid" not in ops(trimmed)


def test_cut_with_one_tensor_for_tokens_and_cls() -> None:
    """The final norm can be tapped for both."""
    source = tiny_vit()
    taps = Taps((2,), (CLS,), CLS)
    graph = make_graph(cut(source, taps, (16, 16)), taps)
    assert_same_numbers(source, graph, taps, pixels(2, (16, 16)))


# ---- refused ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "offer"),
    [
        ((17, 17), "16"),
        ((19, 19), "20"),
        ((1, 1), "4"),
        ((16, 19), "16x20"),
        ((33, 17), "32x16"),
        ((17, 18), "16x(16|20)"),
    ],
)
def test_size_that_is_no_multiple_of_the_patch(size: tuple[int, int], offer: str) -> None:
    """The offer can be given to --image-size as it is."""
    with pytest.raises(BundleError, match=f"{size[0]}x{size[1]}.*patch size 4.* try {offer}[.]$"):
        built(tiny_vit(), size)


@pytest.mark.parametrize("opset", [14, 18])
def test_static_batch(opset: int) -> None:
    with pytest.raises(BundleError, match=r"\(2, 3, 16, 16\)(.|\n)*any batch"):
        built(tiny_vit(opset=opset, static_batch=True), (16, 16))


def two_inputs(use: str) -> onnx.ModelProto:
    """A tiny ViT with a second input, before the image, that the tensor ``use`` is multiplied by."""
    source = tiny_vit()
    image = onnx.ValueInfoProto()
    image.CopyFrom(source.graph.input[0])
    del source.graph.input[:]
    source.graph.input.extend(
        [helper.make_tensor_value_info("ids", TensorProto.FLOAT, ["batch", 1, 1]), image]
    )
    (k,) = [k for k, node in enumerate(source.graph.node) if use in node.output]
    source.graph.node[k].output[0] = "plain"
    source.graph.node.insert(k + 1, helper.make_node("Mul", ["plain", "ids"], [use]))
    return source


def test_inputs_that_the_blocks_do_not_need() -> None:
    """A whole CLIP takes words beside the image."""
    source = at_size(two_inputs("output_importance"), (16, 16))
    graph = built(source, (16, 16))
    assert [value.name for value in graph.model.graph.input] == ["pixels"]
    assert_same_numbers(tiny_vit(), graph, find_taps(source, LAYERS), pixels(2, (16, 16)))


def test_input_that_the_blocks_need() -> None:
    source = at_size(two_inputs(block(1)), (16, 16))
    taps = find_taps(source, (1,), "/encoder/layer.{layer}/Add_1_output_0", CLS)
    with pytest.raises(BundleError, match=r"needs the inputs \['input_image', 'ids'\] .*expected one"):
        cut(source, taps, (16, 16))


def test_two_images() -> None:
    source = tiny_vit()
    source.graph.input.append(helper.make_tensor_value_info("other", TensorProto.FLOAT, ["b", 3, 16, 16]))
    with pytest.raises(BundleError, match=r"inputs 'input_image' FLOAT .*, 'other' FLOAT .*: expected one"):
        built(source, (16, 16))


@pytest.mark.parametrize(
    ("element", "shape"),
    [
        (TensorProto.FLOAT, ["b", 3 * 256]),
        (TensorProto.FLOAT, ["b", 1, 3, 16, 16]),
        (TensorProto.UINT8, None),
    ],
)
def test_input_that_is_no_image(element: int, shape: list[str | int] | None) -> None:
    source = tiny_vit()
    value = helper.make_tensor_value_info(INPUT, element, shape or ["b", 3, 16, 16])
    source.graph.input[0].CopyFrom(value)
    with pytest.raises(BundleError, match="'input_image' is not a float image"):
        built(source, (16, 16))


@pytest.mark.parametrize("shape", [["b", 1, 16, 16], ["b", 16, 16, 3]])
def test_input_with_another_number_of_channels(shape: list[str | int]) -> None:
    """Grey images, or the channels last."""
    source = tiny_vit()
    source.graph.input[0].CopyFrom(helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, shape))
    with pytest.raises(BundleError, match=r"'input_image' is not a float image \(B, 3, H, W\)"):
        built(source, (16, 16))


def test_no_convolution() -> None:
    node = helper.make_node("Identity", ["x"], ["y"])
    model = helper.make_model(helper.make_graph([node], "g", [], []))
    with pytest.raises(BundleError, match="no convolution"):
        patch_size(model)


@pytest.mark.parametrize("strides", [[2, 2], [4, 2], None])
def test_convolution_that_is_no_patch_embedding(strides: list[int] | None) -> None:
    node = helper.make_node("Conv", ["x", "w"], ["y"], kernel_shape=[4, 4], strides=strides)
    model = helper.make_model(helper.make_graph([node], "g", [], []))
    with pytest.raises(BundleError, match=r"kernel \[4, 4\] and stride .*not a patch embedding"):
        patch_size(model)


def test_kernel_shape_left_to_the_weights() -> None:
    """``kernel_shape`` may be missing from a convolution: it is that of the weights."""
    source = tiny_vit()
    for node in source.graph.node:
        if node.op_type == "Conv":
            kept = [a for a in node.attribute if a.name != "kernel_shape"]
            del node.attribute[:]
            node.attribute.extend(kept)
    assert_same_numbers(source, built(source, (16, 16)), find_taps(source, LAYERS), pixels(1, (16, 16)))


def control_flow(model: onnx.ModelProto, before: str, condition: str = "condition") -> None:
    """Put an If in front of the node that makes ``before``."""
    branches = {}
    for name in ("then_branch", "else_branch"):
        output = helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        body = helper.make_node("Identity", [f"{before}.plain"], [name])
        branches[name] = helper.make_graph([body], name, [], [output])
    (k,) = [k for k, node in enumerate(model.graph.node) if before in node.output]
    model.graph.node[k].output[0] = f"{before}.plain"
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "condition"))
    model.graph.node.insert(k + 1, helper.make_node("If", [condition], [before], "/If", **branches))


def test_control_flow_that_decides_by_the_image() -> None:
    """It stays, and is refused where tokens depend on it."""
    source = tiny_vit()
    brightest = [helper.make_node("ReduceMax", [INPUT], ["brightest"], keepdims=0)]
    nodes = [*brightest, helper.make_node("Less", ["brightest", "brightest"], ["dark"]), *source.graph.node]
    del source.graph.node[:]
    source.graph.node.extend(nodes)
    control_flow(source, block(1), "dark")
    source = inline_branches(at_size(source, (16, 16)))
    assert "If" in ops(source)
    with pytest.raises(BundleError, match=r"no block \[2\].* control flow .*: '/If' \(If\)"):
        find_taps(source, LAYERS)
    taps = find_taps(source, LAYERS, "/encoder/layer.{layer}/Add_1_output_0", CLS)
    with pytest.raises(BundleError, match=r"'/If' \(If\) is control flow that depends on the image"):
        make_graph(cut(source, taps, (16, 16)), taps)
    taps = find_taps(source, (0,), cls=block(0))
    assert "If" not in ops(make_graph(cut(source, taps, (16, 16)), taps).model)


def test_control_flow_that_is_always_the_same_is_folded() -> None:
    source = tiny_vit()
    taps = find_taps(source, LAYERS)
    wanted = built(source, (16, 16)).model
    control_flow(source, block(1))
    inlined = inline_branches(at_size(source, (16, 16)))
    assert ops(inlined)["If"] == 0
    assert find_taps(inlined, LAYERS) == taps
    images = pixels(2, (16, 16))
    found = run(make_graph(cut(inlined, taps, (16, 16)), taps).model, images)
    for name, values in run(wanted, images).items():
        np.testing.assert_array_equal(found[name], values)


def test_branches_with_tensors_of_the_same_names() -> None:
    """The branch that shapes decide for is taken, weights and nested branches included."""
    big = numpy_helper.from_array(np.array([10], np.float32), "shift")
    small_shift = numpy_helper.from_array(np.array([1], np.float32), "shift")

    def branch(shift: onnx.TensorProto, inner: bool) -> onnx.GraphProto:
        nodes = [helper.make_node("Add", ["x", "shift"], ["moved"])]
        if inner:
            same = helper.make_node("Mul", ["moved", "shift"], ["end"])
            end = [onnx.ValueInfoProto(name="end")]
            graph = helper.make_graph([same], "inner", [], end)
            nodes.append(
                helper.make_node("If", ["wide"], ["result"], "/inner", then_branch=graph, else_branch=graph)
            )
        output = onnx.ValueInfoProto(name="result" if inner else "moved")
        return helper.make_graph(nodes, "branch", [], [output], [shift])

    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "width_axis"], ["width"]),
        helper.make_node("Greater", ["width", "one"], ["wide"]),
        helper.make_node("Not", ["wide"], ["narrow"]),
    ]
    for condition, output in (("wide", "a"), ("narrow", "b")):
        both = {"then_branch": branch(big, True), "else_branch": branch(small_shift, False)}
        nodes.append(helper.make_node("If", [condition], [output], f"/{output}", **both))
    nodes.append(helper.make_node("Sub", ["a", "b"], ["y"]))
    model = small(nodes, width_axis=np.array(3), one=np.array(1))
    inlined = inline_branches(model)
    assert ops(inlined)["If"] == 0
    images = pixels(2, (2, 2))
    np.testing.assert_allclose(run(inlined, images)["y"], (images + 10) * 10 - (images + 1), rtol=1e-5)


def test_branches_that_the_batch_decides_for_stay() -> None:
    body = helper.make_node("Identity", ["x"], ["same"])
    graph = helper.make_graph([body], "branch", [], [onnx.ValueInfoProto(name="same")])
    nodes = [
        *batch_of_x(),
        helper.make_node("Equal", ["b", "first"], ["alone"]),
        helper.make_node("If", ["alone"], ["y"], "/If", then_branch=graph, else_branch=graph),
    ]
    model = inline_branches(small(nodes, zero=[0], first=[1]))
    assert ops(model)["If"] == 1
    with pytest.raises(
        BundleError, match=r"'/If' \(If\) is control flow that depends on the image or the batch"
    ):
        fold_shapes(model)


def test_control_flow_after_the_taps_does_not_matter() -> None:
    source = tiny_vit()
    control_flow(source, "output_importance")
    onnx.checker.check_model(source)
    assert "If" not in ops(built(source, (16, 16)).model)


def test_tokens_of_another_form() -> None:
    """A tensor that is not (B,T,C) with at least the grid's tokens cannot be tapped."""
    source = tiny_vit()
    taps = Taps((0,), ("/embeddings/projection/Conv_output_0",), CLS)
    with pytest.raises(BundleError, match=r"Conv_output_0.*expected \(B, T, C\) with T >= 16"):
        make_graph(cut(source, taps, (16, 16)), taps)


def test_operators_that_onnx_does_not_know() -> None:
    """Optimised sources hold operators of ONNX Runtime, behind which no shape can be inferred."""
    source = tiny_vit()
    source.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    (relu,) = [n for n in source.graph.node if n.name == "/encoder/layer.1/mlp/activation/Relu"]
    relu.op_type, relu.domain = "FastGelu", "com.microsoft"
    assert run(source, pixels(1, (16, 16)))["output_importance"].shape == (1, 16, 1)
    with pytest.raises(BundleError, match=r"layer.2/Add_1_output_0.*could not be inferred"):
        built(source, (16, 16))


def test_layers_of_different_width() -> None:
    source = tiny_vit()
    wide = "/encoder/layer.1/mlp/fc1/Add_output_0"
    taps = Taps((0, 1), (block(0), wide), CLS)
    with pytest.raises(BundleError, match=r"differ in width: \[16, 32\]"):
        make_graph(cut(source, taps, (16, 16)), taps)


# ---- folding ---------------------------------------------------------------------------------


def small(nodes: list[onnx.NodeProto], **weights: Any) -> onnx.ModelProto:
    """A graph from ``x`` (batch,3,2,2) to ``y``."""
    arrays = [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, 2, 2])
    graph = helper.make_graph(nodes, "small", [x], [onnx.ValueInfoProto(name="y")], arrays)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)


def batch_of_x() -> list[onnx.NodeProto]:
    """Nodes that compute ``b``, the batch, as int64 (1,)."""
    return [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "zero"], ["b"], axis=0),
    ]


def assert_folds(model: onnx.ModelProto) -> onnx.ModelProto:
    folded = fold_shapes(model)
    for batch in (1, 2, 3, 7):
        images = pixels(batch, (2, 2))
        np.testing.assert_array_equal(run(folded, images)["y"], run(model, images)["y"])
    return folded


def test_shape_with_several_times_the_batch() -> None:
    """Attention may fold its heads into the batch: (B*3, 4) is stored as (-1, 4)."""
    nodes = [
        *batch_of_x(),
        helper.make_node("Mul", ["b", "three"], ["b3"]),
        helper.make_node("Concat", ["b3", "four"], ["target"], axis=0),
        helper.make_node("Reshape", ["x", "target"], ["y"]),
    ]
    folded = assert_folds(small(nodes, zero=[0], three=[3], four=[4]))
    assert ops(folded) == {"Reshape": 1}


@pytest.mark.parametrize("rest", [[0, -1], [-1], [3, 2, -1]])
def test_shape_with_a_free_length(rest: list[int]) -> None:
    nodes = [
        *batch_of_x(),
        helper.make_node("Concat", ["b", "rest"], ["target"], axis=0),
        helper.make_node("Reshape", ["x", "target"], ["y"]),
    ]
    assert_folds(small(nodes, zero=[0], rest=rest))


def test_batch_at_the_end_of_a_shape() -> None:
    nodes = [
        *batch_of_x(),
        helper.make_node("Transpose", ["x"], ["last"], perm=[1, 2, 3, 0]),
        helper.make_node("Concat", ["twelve", "b"], ["target"], axis=0),
        helper.make_node("Reshape", ["last", "target"], ["y"]),
    ]
    assert_folds(small(nodes, zero=[0], twelve=[12]))


@pytest.mark.parametrize("op", ["Expand", "Reshape"])
def test_shape_for_an_expand(op: str) -> None:
    """Expand knows no -1, so the batch is put in, also where a Reshape shares the shape."""
    nodes = [
        *batch_of_x(),
        helper.make_node("Concat", ["b", "rest"], ["target"], axis=0),
        helper.make_node("ReduceMean", ["x"], ["column"], axes=[3]),
        helper.make_node("Expand", ["column", "target"], ["wide"]),
        helper.make_node(op, ["wide", "target"], ["y"]),
    ]
    assert_folds(small(nodes, zero=[0], rest=[3, 2, 4]))


def test_rows_for_the_batch_are_repeated() -> None:
    """A tensor made for the batch (here a bias of ones) becomes one row that is expanded."""
    nodes = [
        *batch_of_x(),
        helper.make_node("Concat", ["b", "rest"], ["target"], axis=0),
        helper.make_node("Expand", ["one", "target"], ["ones"]),
        helper.make_node("Add", ["x", "ones"], ["y"]),
    ]
    folded = assert_folds(small(nodes, zero=[0], rest=[3, 2, 2], one=np.array([1], np.float32)))
    assert ops(folded)["Shape"] == 1


def test_constant_beside_the_image() -> None:
    """What has nothing to do with the image is computed once."""
    nodes = [
        helper.make_node("Mul", ["a", "b"], ["ab"]),
        helper.make_node("Exp", ["ab"], ["e"]),
        helper.make_node("Mul", ["x", "e"], ["y"]),
    ]
    folded = assert_folds(small(nodes, a=np.array([2], np.float32), b=np.array([0.3], np.float32)))
    assert ops(folded) == {"Mul": 1}


def test_shape_that_is_not_linear_in_the_batch() -> None:
    nodes = [
        *batch_of_x(),
        helper.make_node("Mul", ["b", "b"], ["bb"]),
        helper.make_node("ReduceMean", ["x"], ["column"], axes=[3]),
        helper.make_node("Expand", ["column", "bb"], ["y"]),
    ]
    with pytest.raises(BundleError, match=r"shape 'bb' is .* not understood"):
        fold_shapes(small(nodes, zero=[0]))


def test_values_that_depend_on_the_batch() -> None:
    nodes = [
        *batch_of_x(),
        helper.make_node("Cast", ["b"], ["scale"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["x", "scale"], ["y"]),
    ]
    with pytest.raises(BundleError, match="'scale' depends on the batch in a way that is not understood"):
        fold_shapes(small(nodes, zero=[0]))


@pytest.mark.parametrize(("shape", "repeats"), [((4, 2), ["b", "one"]), ((2, 3), ["one", "b"])])
def test_values_that_are_repeated_along_another_axis(shape: tuple[int, int], repeats: list[str]) -> None:
    """A query of an attention pooling has a row for each image and head."""
    nodes = [
        *batch_of_x(),
        helper.make_node("Concat", repeats, ["repeats"], axis=0),
        helper.make_node("Tile", ["values", "repeats"], ["tiled"]),
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[0, 1, 2, 3], keepdims=0),
        helper.make_node("Mul", ["tiled", "mean"], ["y"]),
    ]
    folded = assert_folds(small(nodes, zero=[0], one=[1], values=pixels(1, shape)[0, 0]))
    assert ops(folded)["Tile"] == 1


def test_length_that_is_a_multiple_of_the_batch() -> None:
    """An Expand to two rows for each image."""
    nodes = [
        *batch_of_x(),
        helper.make_node("Mul", ["b", "two"], ["rows"]),
        helper.make_node("Concat", ["rows", "one"], ["target"], axis=0),
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[0, 1, 2, 3], keepdims=0),
        helper.make_node("Expand", ["mean", "target"], ["y"]),
    ]
    assert_folds(small(nodes, zero=[0], two=[2], one=[1]))


def test_rows_that_differ_are_not_taken_for_repeated() -> None:
    """A tensor with a row for each image that is not the same row (here a counter) is refused."""
    nodes = [
        *batch_of_x(),
        helper.make_node("Squeeze", ["b"], ["stop"]),
        helper.make_node("Range", ["start", "stop", "step"], ["count"]),
        helper.make_node("Cast", ["count"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["numbers", "column"], ["rows"]),
        helper.make_node("Add", ["x", "rows"], ["y"]),
    ]
    with pytest.raises(BundleError, match="'rows' depends on the batch in a way that is not understood"):
        fold_shapes(small(nodes, zero=[0], start=0, step=1, column=[-1, 1, 1, 1]))


# ---- copies ----------------------------------------------------------------------------------


def doubled(other: onnx.ModelProto) -> onnx.ModelProto:
    """A graph with a tiny ViT and, under names of its own, another on the same image."""
    source = tiny_vit()
    second = compose.add_prefix(other, "second/")
    for node in second.graph.node:
        node.input[:] = [INPUT if name == f"second/{INPUT}" else name for name in node.input]
    source.graph.node.extend(second.graph.node)
    source.graph.initializer.extend(second.graph.initializer)
    source.graph.output.append(onnx.ValueInfoProto(name=f"second/{CLS}"))
    return source


def test_copies_of_a_vit_become_one() -> None:
    source = doubled(tiny_vit())
    with pytest.raises(BundleError, match=r"several ViTs of 3 blocks.*'second/.*--taps"):
        find_taps(source, LAYERS)
    merged = merge_copies(source, ())
    taps = find_taps(merged, LAYERS, cls=f"second/{CLS}")
    assert taps.tokens == tuple(block(layer) for layer in LAYERS)
    graph = make_graph(cut(merged, taps, (16, 16)), taps)
    assert_same_numbers(source, graph, taps, pixels(2, (16, 16)))
    assert ops(graph.model)["Softmax"] == 3


def test_casts_that_change_nothing_make_no_difference() -> None:
    second = tiny_vit()
    cast = helper.make_node("Cast", [INPUT], ["as_float"], to=TensorProto.FLOAT)
    for node in second.graph.node:
        node.input[:] = ["as_float" if name == INPUT else name for name in node.input]
    second.graph.node.insert(0, cast)
    assert find_taps(merge_copies(doubled(second), ()), LAYERS).tokens == (block(0), block(2))


def test_vits_that_differ_stay_two() -> None:
    merged = merge_copies(doubled(tiny_vit(seed=1)), ())
    with pytest.raises(BundleError, match="several ViTs of 3 blocks"):
        find_taps(merged, LAYERS)
    pattern = "second//encoder/layer.{layer}/Add_1_output_0"
    taps = find_taps(merged, LAYERS, pattern, f"second/{CLS}")
    assert taps.tokens == tuple(pattern.replace("{layer}", str(layer)) for layer in LAYERS)


# ---- names -----------------------------------------------------------------------------------


def named(nodes: list[onnx.NodeProto], weights: list[str]) -> onnx.GraphProto:
    arrays = [numpy_helper.from_array(np.array([k], np.float32), name) for k, name in enumerate(weights)]
    x, y = onnx.ValueInfoProto(name="x"), onnx.ValueInfoProto(name="y")
    graph = helper.make_graph(nodes, "named", [x], [y], arrays)
    clean_names(graph)
    return graph


def test_collisions_get_numbers() -> None:
    nodes = [
        helper.make_node("Add", ["x", "a/b"], ["t1"], "/m/n/a"),
        helper.make_node("Add", ["t1", "a.b"], ["t2"], "/m/n.a"),
        helper.make_node("Add", ["t2", "onnx::Add_1"], ["t3"], ""),
        helper.make_node("Add", ["t3", "onnx::Add_1"], ["y"], ""),
    ]
    graph = named(nodes, ["a/b", "a.b", "onnx::Add_1"])
    assert [node.name for node in graph.node] == ["n.a", "n.a_2", "Add", "Add_2"]
    assert [weight.name for weight in graph.initializer] == ["a.b", "a.b_2", "Add.input1"]
    assert [list(node.input) for node in graph.node] == [
        ["x", "a.b"],
        ["n.a", "a.b_2"],
        ["n.a_2", "Add.input1"],
        ["Add", "Add.input1"],
    ]
    assert list(graph.node[-1].output) == ["y"]


def test_left_out_inputs_stay_left_out() -> None:
    nodes = [helper.make_node("Clip", ["x", "", "/m/limit"], ["/m/Clip_output_0", ""], "/m/Clip")]
    nodes.append(helper.make_node("Relu", ["/m/Clip_output_0"], ["y"], "/m/Relu"))
    graph = named(nodes, ["/m/limit"])
    assert list(graph.node[0].input) == ["x", "", "Clip.input2"]
    assert list(graph.node[0].output) == ["Clip", ""]
    assert list(graph.node[1].input) == ["Clip"]


def test_weight_named_like_an_input_or_output() -> None:
    """A source's weight that happens to have the name of the graph's input or output gets another."""
    nodes = [helper.make_node("Add", ["x", "w"], ["t"], "/Add"), helper.make_node("Relu", ["t"], ["y"], "/y")]
    graph = named(nodes, ["w"])
    assert [node.name for node in graph.node] == ["Add", "y"]
    assert [list(node.output) for node in graph.node] == [["Add"], ["y"]]


# ---- files -----------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"not a model", random.Random(0).randbytes(4096)])
def test_file_that_is_not_onnx(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(BundleError, match=r"model.onnx is not an ONNX model"):
        load_source(path)


def test_file_that_is_missing(tmp_path: Path) -> None:
    for path in (tmp_path / "model.onnx", tmp_path):
        with pytest.raises(BundleError, match=re.escape(f"no ONNX file {path}.")):
            load_source(path)


def test_external_data_of_the_source(tmp_path: Path) -> None:
    """A source may keep its weights in a second file; without it the message says so."""
    source, path = tiny_vit(), tmp_path / "model.onnx"
    onnx.save(tiny_vit(), path, save_as_external_data=True, location="model.data", size_threshold=0)
    loaded = load_source(path)
    taps = find_taps(loaded, LAYERS)
    assert_same_numbers(source, built(loaded, (16, 16)), taps, pixels(1, (16, 16)))
    (tmp_path / "model.data").unlink()
    with pytest.raises(BundleError, match=r"model\.data"):
        load_source(path)


@pytest.mark.parametrize("location", ["../model.data", "{absolute}", "link", "sub/../../model.data", "a\0b"])
def test_external_data_from_elsewhere(tmp_path: Path, location: str) -> None:
    """A stranger's file would bring any file of this user into the bundle."""
    folder = tmp_path / "source"
    (folder / "sub").mkdir(parents=True)
    (folder / "link").symlink_to(tmp_path / "model.data")
    onnx.save(tiny_vit(), folder / "m.onnx", save_as_external_data=True, location="w", size_threshold=0)
    (folder / "w").rename(tmp_path / "model.data")
    model = onnx.load(folder / "m.onnx", load_external_data=False)
    for tensor in model.graph.initializer:
        (where,) = (entry for entry in tensor.external_data if entry.key == "location")
        where.value = location.format(absolute=tmp_path / "model.data")
    (folder / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(
        BundleError, match=r"m\.onnx .*(takes weights from .* expected a file in|cannot be a file's name)"
    ):
        load_source(folder / "m.onnx")


def test_large_graphs_keep_their_weights_beside_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph, images = built(tiny_vit(), (16, 16)).model, pixels(2, (16, 16))
    before = run(graph, images)
    assert save_model(graph, tmp_path / "small.onnx") == ["small.onnx"]
    monkeypatch.setattr(onnx_file, "EXTERNAL_DATA_BYTES", 1000)
    assert save_model(graph, tmp_path / "large.onnx") == ["large.onnx", "large.onnx.data"]
    assert (tmp_path / "large.onnx.data").stat().st_size > 10_000
    read = load_source(tmp_path / "large.onnx")
    for name, values in run(read, images).items():
        np.testing.assert_array_equal(values, before[name])


def test_writing_a_large_graph_leaves_it_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph, images = built(tiny_vit(), (16, 16)).model, pixels(2, (16, 16))
    (first,) = run_model(graph, [images])
    monkeypatch.setattr(onnx_file, "EXTERNAL_DATA_BYTES", 1000)
    for _ in range(2):
        (again,) = run_model(graph, [images])
        for a, b in zip(first, again, strict=True):
            np.testing.assert_array_equal(a, b)


def test_tiny_source_is_read_as_it_was_written(tmp_path: Path) -> None:
    source = tiny_source(tmp_path)
    assert load_source(source.path).SerializeToString() == tiny_vit().SerializeToString()


def test_run_says_which_batch_failed() -> None:
    with pytest.raises(BundleError, match=r"images of shape \(1, 3, 5, 5\)"):
        run_model(cut(tiny_vit(), find_taps(tiny_vit(), [0]), (16, 16)), [pixels(1, (5, 5))])
