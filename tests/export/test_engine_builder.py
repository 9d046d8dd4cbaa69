"""The builder with the real TensorRT-RTX, which needs no GPU to build: what it makes of real graphs.

What a plan fuses is read from the plan itself: it holds its kernels by name.
"""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from musc_edge.export.attention import with_attention_nodes
from musc_edge.export.engine_builder import (
    AS_EXPORTED,
    FLOAT32,
    UNFUSED,
    BuildOptions,
    NestedShares,
    build_plan,
)
from musc_edge.export.network import layers_of, raise_to_float32
from musc_edge.runtime.errors import BundleError, DeviceError
from musc_edge.runtime.types import no_progress
from musc_edge.runtime.vit import tensorrt_api
from musc_edge.runtime.vit.tensorrt_library import Library, load_library
from support.forks import run_forked
from support.gpu_machine import interrupt_main_thread, listening

pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT-RTX is for x86-64")

HEADS, WIDTH, TOKENS = 2, 128, 257
OPTIONS = BuildOptions((1, 2, 2), ("8.6",))


@pytest.fixture(scope="module")
def rtx() -> Library:
    return load_library("rtx")


@pytest.fixture(scope="module")
def tiny(tiny_bundle: Path) -> Path:
    return tiny_bundle / "model.onnx"


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One attention in half precision, with a convolution and a LayerNorm before it and a cast after."""
    path = tmp_path_factory.mktemp("half") / "model.onnx"
    onnx.save(half_attention(), path)
    return path


def half_attention() -> onnx.ModelProto:
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []
    rng = np.random.default_rng(0)

    def constant(values: Any) -> str:
        weights.append(numpy_helper.from_array(np.asarray(values), f"w{len(weights)}"))
        return weights[-1].name

    def weight(*shape: int) -> str:
        return constant((0.1 * rng.standard_normal(shape)).astype(np.float16))

    def node(op: str, *inputs: str, **attributes: Any) -> str:
        name = f"{op}_{len(nodes)}"
        nodes.append(helper.make_node(op, list(inputs), [name], name, **attributes))
        return name

    x = node("Conv", node("Cast", "x", to=TensorProto.FLOAT16), weight(WIDTH, WIDTH, 1), weight(WIDTH))
    x = node("Transpose", x, perm=[0, 2, 1])
    x = node("LayerNormalization", x, weight(WIDTH), weight(WIDTH))
    split = constant(np.array([0, -1, HEADS, WIDTH // HEADS]))
    query, key, value = (node("Reshape", node("MatMul", x, weight(WIDTH, WIDTH)), split) for _ in range(3))
    query, value = (node("Transpose", part, perm=[0, 2, 1, 3]) for part in (query, value))
    logits = node("MatMul", query, node("Transpose", key, perm=[0, 2, 3, 1]))
    logits = node("Mul", logits, constant(np.float16(0.125)))
    mixed = node("Transpose", node("MatMul", node("Softmax", logits, axis=-1), value), perm=[0, 2, 1, 3])
    x = node("Add", x, node("Reshape", mixed, constant(np.array([0, -1, WIDTH]))))
    nodes.append(helper.make_node("Cast", [x], ["out"], "out", to=TensorProto.FLOAT))
    source = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["b", WIDTH, TOKENS])
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, ["b", TOKENS, WIDTH])
    graph = helper.make_graph(nodes, "half", [source], [out], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def kernels(plan: Any) -> list[str]:
    """Names of the kernels in a plan."""
    return [name.decode() for name in re.findall(rb"function=\{ name=(\S+)", bytes(memoryview(plan)))]


@pytest.mark.slow
def test_small_vit_for_two_gpus(rtx: Library, tiny: Path) -> None:
    seen: list[float] = []
    options = BuildOptions((1, 8, 8), ("8.6", "8.9"), workspace=1 << 30)
    plan = build_plan(rtx, tiny, options, AS_EXPORTED, lambda stage, done, total, unit: seen.append(done))
    assert memoryview(plan).nbytes > 100_000
    assert seen == sorted(seen)
    assert seen[0] > 0
    assert seen[-1] == 100


def test_attention_is_fused_unless_it_is_broken(rtx: Library, half: Path) -> None:
    """What the gate's second try rests on."""
    plain, broken = (kernels(build_plan(rtx, half, OPTIONS, v, no_progress)) for v in (AS_EXPORTED, UNFUSED))
    assert any("mha" in name for name in plain)
    assert not any("mha" in name for name in broken)
    assert any("MaxrSubExpSumDiv" in name for name in broken), "the softmax is a kernel of its own"


def test_pieces_are_fused_as_a_node_is(rtx: Library, half: Path, tmp_path: Path) -> None:
    """Why engines are built from the pieces: ONNX's Attention, which this TensorRT parses, gives no more."""
    found = with_attention_nodes(ir.load(half))
    assert found is not None
    assert (found.nodes, found.pieces) == (1, 0)
    ir.save(found.model, tmp_path / "nodes.onnx")
    pieces, nodes = (
        kernels(build_plan(rtx, path, OPTIONS, AS_EXPORTED)) for path in (half, tmp_path / "nodes.onnx")
    )
    assert sum("mha" in name for name in pieces) == sum("mha" in name for name in nodes) > 0


def test_float32_has_nothing_in_half_precision(rtx: Library, half: Path) -> None:
    trt = rtx.module
    log = trt.Logger(trt.Logger.ERROR)
    network = trt.Builder(log).create_network(0)
    assert trt.OnnxParser(network, log).parse_from_file(str(half))
    outputs = [layer.get_output(0).dtype for layer in layers_of(network)]
    assert outputs.count(trt.DataType.HALF) > 10
    weights = raise_to_float32(trt, network)
    assert len(weights) == 8  # kernel, bias, norm's two, three products, the scale
    left = [layer for layer in layers_of(network) if layer.get_output(0).dtype == trt.DataType.HALF]
    assert [layer.type for layer in left] == [trt.LayerType.CAST], "the cast to half, which none reads now"


def test_float32_is_built(rtx: Library, half: Path) -> None:
    plan = build_plan(rtx, half, OPTIONS, FLOAT32)
    assert not any("mha" in name for name in kernels(plan))
    assert memoryview(plan).nbytes > 100_000


def test_graph_without_attention_cannot_be_broken(rtx: Library, tmp_path: Path) -> None:
    node = helper.make_node("Relu", ["x"], ["out"])
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["b", 3, 4, 4]) for name in ("x", "out")]
    graph = helper.make_graph([node], "relu", ends[:1], ends[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), tmp_path / "relu.onnx")
    with pytest.raises(BundleError, match="no softmax"):
        build_plan(rtx, tmp_path / "relu.onnx", OPTIONS, UNFUSED)


def test_graph_that_cannot_be_parsed(rtx: Library, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"not a graph")
    with pytest.raises(BundleError, match=r"TensorRT-RTX \S+ cannot parse .*model.onnx: \S+"):
        build_plan(rtx, path, OPTIONS, AS_EXPORTED)


def test_profile_that_cannot_be_built(rtx: Library, tiny: Path) -> None:
    with pytest.raises(DeviceError, match=r"cannot build .*model.onnx \(as exported\): \S+"):
        build_plan(rtx, tiny, BuildOptions((1, 9, 8), ("8.6",)), AS_EXPORTED)


def test_gpu_that_is_not_supported(rtx: Library, tiny: Path) -> None:
    with pytest.raises(DeviceError, match=r"no engine for compute capability 9.0; expected of 7.5, 8.0"):
        build_plan(rtx, tiny, BuildOptions((1, 1, 1), ("8.6", "9.0")), AS_EXPORTED)


def test_interrupt(rtx: Library, tiny: Path) -> None:
    reports = 0

    def progress(stage: str, done: float, total: float, unit: str) -> None:
        nonlocal reports
        reports += 1
        if reports == 5:
            interrupt_main_thread()

    with pytest.raises(KeyboardInterrupt), listening():
        build_plan(rtx, tiny, OPTIONS, AS_EXPORTED, progress)
    assert reports < 400  # a whole build of this graph has more


def test_rtx_has_no_timing_cache(rtx: Library, tiny: Path, tmp_path: Path) -> None:
    options = BuildOptions((1, 1, 1), ("8.6",), timing_cache=tmp_path / "timings")
    with pytest.raises(DeviceError, match="measures nothing"):
        build_plan(rtx, tiny, options, AS_EXPORTED)


def test_shares_of_nested_phases() -> None:
    shares = NestedShares()
    shares.start("build", None, 2)
    shares.start("part", "build", 4)
    assert shares.step("part", 0) == pytest.approx(1 / 8)
    assert shares.step("part", 1) == pytest.approx(2 / 8)
    assert shares.step("build", 0) == pytest.approx(1 / 2)
    shares.start("part", "build", 2)
    assert shares.step("part", 0) == pytest.approx(3 / 4)
    assert shares.step("unknown", 0) == pytest.approx(3 / 4)
    assert shares.step("build", 1) == pytest.approx(1)


def test_every_call_that_is_used_exists(rtx: Library) -> None:
    """The protocols name what the code calls; each is looked up in the real module."""
    missing = []
    for name, protocol in inspect.getmembers(tensorrt_api, inspect.isclass):
        if protocol.__module__ != tensorrt_api.__name__:
            continue
        real = getattr(rtx.module, name, None) or getattr(rtx.module, name.removeprefix("I"))
        used = [n for n in (*vars(protocol), *protocol.__annotations__) if not n.startswith("_")]
        missing += [f"{name}.{n}" for n in used if not hasattr(real, n)]
    assert missing == []


AFTER_GARBAGE = """
import gc
from musc_edge.runtime.vit.tensorrt_library import load_library, make_log

trt = load_library("rtx").module
gc.disable()
old = [trt.Builder(make_log(trt))]
old.append(old)  # as what an error keeps
del old

class Log(type(make_log(trt))):
    def log(self, severity, message):
        gc.collect()  # as it may happen at any time

trt.Builder(Log())
"""


@pytest.mark.long
def test_garbage_of_an_earlier_builder_does_not_lock_the_next() -> None:
    """TensorRT's own lock would be taken twice by one thread, which then waits for ever."""
    run = run_forked([sys.executable, "-c", AFTER_GARBAGE], timeout=60)
    assert run.returncode == 0, run.stderr
