"""Finding the tensors to tap in a source graph."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from musc_edge.export.taps import Taps, describe, find_taps
from musc_edge.runtime.errors import BundleError
from support.sources import CLS, block
from support.tiny_vit import INPUT, tiny_vit


def chain(*names: str) -> onnx.ModelProto:
    """A graph of nodes that do nothing, with these output names."""
    nodes = [helper.make_node("Identity", [a], [b]) for a, b in zip(("input", *names), names, strict=False)]
    return helper.make_model(helper.make_graph(nodes, "chain", [], []))


@pytest.mark.parametrize("prefix", ["", "/backbone", "/model/vision"])
@pytest.mark.parametrize("layers_name", ["layer", "layers"])
def test_names_of_hugging_face(prefix: str, layers_name: str) -> None:
    taps = find_taps(tiny_vit(prefix=prefix, layers_name=layers_name), (0, 2))
    assert taps == Taps(
        layers=(0, 2),
        tokens=tuple(f"{prefix}/encoder/{layers_name}.{layer}/Add_1_output_0" for layer in (0, 2)),
        cls=f"{prefix}/layernorm/Add_1_output_0",
    )


def without_names(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with numbers for names, as simplifiers and some exporters leave it."""
    new: dict[str, str] = {"": "", INPUT: INPUT}
    for node in model.graph.node:
        node.name = ""
        node.input[:] = [new.setdefault(name, str(len(new))) for name in node.input]
        node.output[:] = [new.setdefault(name, str(len(new))) for name in node.output]
    for value in (*model.graph.initializer, *model.graph.output):
        value.name = new.get(value.name, value.name)
    return model


@pytest.mark.parametrize("options", [{}, {"opset": 17, "fused_norm": True}, {"registers": 4, "heads": 2}])
def test_names_do_not_matter(options: dict[str, Any]) -> None:
    named, model = tiny_vit(**options), without_names(tiny_vit(**options))
    taps = find_taps(model, (0, 1, 2))
    place = {name: k for k, node in enumerate(model.graph.node) for name in node.output}
    wanted = find_taps(named, (0, 1, 2))
    assert [named.graph.node[place[name]].output[0] for name in (*taps.tokens, taps.cls)] == [
        *wanted.tokens,
        wanted.cls,
    ]


def test_default_layers_are_the_last_of_each_quarter() -> None:
    assert find_taps(tiny_vit()).layers == (0, 1, 2)


def test_last_block_that_is_an_output() -> None:
    """Its tensor bears the output's name."""
    model = tiny_vit()
    for node in model.graph.node:
        node.input[:] = ["last_hidden_state" if name == block(2) else name for name in node.input]
        node.output[:] = ["last_hidden_state" if name == block(2) else name for name in node.output]
    model.graph.output.append(onnx.ValueInfoProto(name="last_hidden_state"))
    assert find_taps(model, (1, 2)).tokens == (block(1), "last_hidden_state")


def test_norm_of_the_class_token_alone() -> None:
    """As CLIP has it: the token is taken first."""
    model = tiny_vit(opset=17, fused_norm=True)
    (norm,) = [node for node in model.graph.node if node.name == "/layernorm/LayerNormalization"]
    gather = helper.make_node("Gather", [norm.input[0], "first"], ["token"], axis=1)
    norm.input[0] = "token"
    model.graph.initializer.append(numpy_helper.from_array(np.array(0), "first"))
    model.graph.node.insert(list(model.graph.node).index(norm), gather)
    assert find_taps(model).cls == "/layernorm/LayerNormalization_output_0"


def test_sums_that_are_no_block() -> None:
    """GELU by tanh adds to its own input, and a mask is added within attention."""
    model = tiny_vit()
    for layer in range(3):
        (activation,) = [
            n for n in model.graph.node if n.name == f"/encoder/layer.{layer}/mlp/activation/Relu"
        ]
        hidden, result = activation.input[0], activation.output[0]
        activation.output[0] = f"relu.{layer}"
        add = helper.make_node("Add", [hidden, f"relu.{layer}"], [result], f"gelu.{layer}")
        model.graph.node.insert(list(model.graph.node).index(activation) + 1, add)
    assert find_taps(model).tokens == (block(0), block(1), block(2))


def test_layers_are_ordered_and_keep_their_names() -> None:
    taps = find_taps(tiny_vit(), [2, 0, 1])
    assert taps.blocks() == [(0, block(0)), (1, block(1)), (2, block(2))]


def test_given_names() -> None:
    model = chain("blk.0.out", "blk.1.out", "blk.1024.out", "pooled")
    taps = find_taps(model, [1024, 0], "blk.{layer}.out", "pooled")
    assert taps == Taps((0, 1024), ("blk.0.out", "blk.1024.out"), "pooled")
    assert find_taps(model, None, "blk.{layer}.out", "pooled").layers == (0, 1, 1024)


def test_names_of_each_block() -> None:
    model = chain("add_110", "add_230", "add_1846", "pooled")
    names = {11: "add_1846", 5: "add_230"}
    assert find_taps(model, None, names, "pooled") == Taps((5, 11), ("add_230", "add_1846"), "pooled")
    assert find_taps(model, [11], names, "pooled") == Taps((11,), ("add_1846",), "pooled")
    with pytest.raises(BundleError, match=r"names no block \[2\] of --layers; it names \[5, 11\]"):
        find_taps(model, [2, 5], names, "pooled")
    with pytest.raises(BundleError, match=r"no tensor 'add_2'; it has for example 'add_230'"):
        find_taps(model, None, {5: "add_2"}, "pooled")


def test_modules_are_said_where_the_file_names_them() -> None:
    model = tiny_vit()
    for node in model.graph.node:
        if node.output[0] == block(0):
            node.metadata_props.add(
                key="pkg.torch.onnx.name_scopes", value="['', 'encoder', 'layer.0', 'add_1']"
            )
        if node.output[0] == block(1):
            node.metadata_props.add(key="pkg.torch.onnx.name_scopes", value="not a list")
    lines = describe(find_taps(model), model)
    assert lines[:2] == [f"  layer 0: {block(0)} (in layer.0)", f"  layer 1: {block(1)}"]
    assert lines[-1] == f"  embedding: CLS from {CLS}; the source's outputs are 'output_importance'"


def test_characters_of_a_pattern_mean_themselves() -> None:
    with pytest.raises(BundleError, match="no tensor matches"):
        find_taps(chain("blk-0-out", CLS), [0], "blk.{layer}.out")


@pytest.mark.parametrize("layers", [(), (0, 0), (1, -1)])
def test_unusable_layers(layers: tuple[int, ...]) -> None:
    with pytest.raises(BundleError, match="different block indices of 0 or more") as caught:
        find_taps(tiny_vit(), layers)
    assert str(layers) in str(caught.value)


@pytest.mark.parametrize("pattern", [None, "/encoder/layer.{layer}/Add_1_output_0"])
def test_unknown_layer_says_which_exist(pattern: str | None) -> None:
    with pytest.raises(BundleError, match=r"no block \[3, 7\]; it has blocks 0 to 2"):
        find_taps(tiny_vit(), (1, 3, 7), pattern)


def test_no_block() -> None:
    with pytest.raises(BundleError, match=r"no block was found.*--taps.*5=NAME.*'blocks.0', 'pooled'"):
        find_taps(chain("blocks.0", "pooled"), [0])


def test_no_match_shows_a_name_of_the_graph() -> None:
    with pytest.raises(BundleError, match=r"'blk.\{layer\}.out'.*'stage.0.out'"):
        find_taps(chain("stem", "stage.0.out", "head"), [0], "blk.{layer}.out")


def test_pattern_without_a_place_for_the_layer() -> None:
    with pytest.raises(BundleError, match=r"'blk.0.out' has no \{layer\}"):
        find_taps(chain("blk.0.out", CLS), [0], "blk.0.out")


def test_two_final_norms() -> None:
    model = tiny_vit(opset=17, fused_norm=True)
    (norm,) = [node for node in model.graph.node if node.name == "/layernorm/LayerNormalization"]
    model.graph.node.add(op_type="LayerNormalization", input=norm.input, output=["other"])
    with pytest.raises(BundleError, match=r"found '/layernorm/.*', 'other'.*--cls.*'output_importance'"):
        find_taps(model)
    assert find_taps(model, cls="other").cls == "other"


def test_no_final_norm() -> None:
    model = tiny_vit()
    del model.graph.node[[block(2) in node.output for node in model.graph.node].index(True) + 1 :]
    with pytest.raises(BundleError, match=r"found none.*--cls"):
        find_taps(model)


def test_unknown_name_of_cls() -> None:
    with pytest.raises(BundleError, match=r"no tensor 'layernorm'.*'output_importance'"):
        find_taps(tiny_vit(), cls="layernorm")


def test_mean_of_the_patches() -> None:
    taps = find_taps(tiny_vit(), cls="mean")
    assert (taps.cls, taps.mean) == (CLS, True)
