"""Finding the tensors to tap in a source graph."""

from __future__ import annotations

import onnx
import pytest
from onnx import helper

from musc_edge.export.taps import Taps, find_taps
from musc_edge.runtime.errors import BundleError
from support.sources import CLS, block
from support.tiny_vit import tiny_vit


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


@pytest.mark.parametrize(
    "name", ["/vision_model/post_layernorm/Add_1_output_0", "/layernorm/LayerNormalization_output_0"]
)
def test_other_names_of_the_final_norm(name: str) -> None:
    assert find_taps(chain(block(0), name), [0]).cls == name


def test_norms_inside_blocks_are_no_final_norm() -> None:
    inner = "/encoder/layer.0/layernorm_before/Add_1_output_0"
    assert find_taps(chain(inner, block(0), CLS), [0]).cls == CLS


def test_layers_are_ordered_and_keep_their_names() -> None:
    taps = find_taps(tiny_vit(), [2, 0, 1])
    assert taps.blocks() == [(0, block(0)), (1, block(1)), (2, block(2))]


def test_two_digits() -> None:
    names = [block(layer) for layer in range(12)]
    assert find_taps(chain(*names, CLS), [11, 1]).tokens == (block(1), block(11))


def test_given_names() -> None:
    model = chain("blk.0.out", "blk.1.out", "blk.10.out", "pooled")
    taps = find_taps(model, [10, 0], "blk.{layer}.out", "pooled")
    assert taps == Taps((0, 10), ("blk.0.out", "blk.10.out"), "pooled")


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


def test_no_block_by_name() -> None:
    with pytest.raises(BundleError, match=r"encoder/layer.0/Add_1_output_0.*--taps"):
        find_taps(chain("blocks.0", CLS), [0])


def test_no_match_shows_a_name_of_the_graph() -> None:
    with pytest.raises(BundleError, match=r"'blk.\{layer\}.out'.*'stage.0.out'"):
        find_taps(chain("stem", "stage.0.out", "head"), [0], "blk.{layer}.out")


def test_pattern_without_a_place_for_the_layer() -> None:
    with pytest.raises(BundleError, match=r"'blk.0.out' has no \{layer\}"):
        find_taps(chain("blk.0.out", CLS), [0], "blk.0.out")


def test_two_final_norms() -> None:
    other = "/text_model/layernorm/Add_1_output_0"
    with pytest.raises(BundleError, match="--cls") as caught:
        find_taps(chain(block(0), CLS, other), [0])
    assert CLS in str(caught.value)
    assert other in str(caught.value)
    assert find_taps(chain(block(0), CLS, other), [0], cls=other).cls == other


def test_no_final_norm() -> None:
    with pytest.raises(BundleError, match=r"found none.*--cls"):
        find_taps(chain(block(0), "pooled"), [0])


def test_unknown_name_of_cls() -> None:
    with pytest.raises(BundleError, match="no tensor 'pooled'"):
        find_taps(chain(block(0), CLS), [0], cls="pooled")


def test_two_encoders_are_not_mixed_up() -> None:
    """A graph with two towers has two tensors for each block: which one is meant has to be said."""
    text, vision = (f"/{tower}/encoder/layer.0/Add_1_output_0" for tower in ("text", "vision"))
    with pytest.raises(BundleError, match="--taps") as caught:
        find_taps(chain(vision, text, CLS), [0])
    assert text in str(caught.value)
    assert vision in str(caught.value)
