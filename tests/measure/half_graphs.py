"""What a ViT in half precision takes in ONNX Runtime, by the form of its graph.

    python tests/measure/half_graphs.py [DINOv2-L-14] [--provider CUDA|CPU] [--batches 8 16] [--seconds 120]

The ViT has random weights (support/random_vit.py).  Each form is compared with the graph in float32 on the
same device, then timed with its inputs and outputs in the device's memory.  Prints the highest 1 - cosine
of a token and of CLS, and medians of milliseconds an image; with torch and CUDA also which kernels the
fastest one runs.  Ends by itself after ``--seconds``; forms that fail say why.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # tests/, for gpu and support

from gpu.checkout import run_from_checkout

if __name__ == "__main__":
    run_from_checkout()

import argparse
import faulthandler
import gc
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from musc_edge.export.attention import with_attention_nodes
from musc_edge.export.gelu import with_whole_gelu
from musc_edge.export.graph import cut, make_graph
from musc_edge.export.half import FLOAT, HALF, to_half
from musc_edge.export.heads import with_heads_last
from musc_edge.export.norms import with_whole_norms
from musc_edge.export.onnx_file import save_graph
from musc_edge.export.source import default_layers
from musc_edge.export.taps import find_taps
from musc_edge.runtime.vit.onnx_backend import FAULTY_ON_CPU, import_onnxruntime
from support.graph_variants import with_products_apart, with_scales_in_products
from support.random_vit import SHAPES, random_vit

Array = npt.NDArray[Any]
Form = Callable[[ir.Model], ir.Model]
START = time.perf_counter()


def main() -> None:
    """Print a row for each form."""
    parser = argparse.ArgumentParser()
    parser.add_argument("vit", nargs="?", default="DINOv2-L-14", choices=SHAPES)
    parser.add_argument("--provider", choices=("CUDA", "CPU"), default="CUDA")
    parser.add_argument("--batches", type=int, nargs="+", default=[8, 16])
    parser.add_argument("--seconds", type=int, default=120)
    args = parser.parse_args()
    faulthandler.dump_traceback_later(args.seconds, exit=True)
    side, version = SHAPES[args.vit].side, import_onnxruntime().__version__
    images = np.random.default_rng(0).standard_normal((max(args.batches), 3, side, side)).astype(np.float32)
    model = source(args.vit)
    print(f"{args.vit} at {side}, ONNX Runtime {version}, {args.provider}; made in {elapsed()}")
    print(f"{'':34} casts   1-cos token  CLS     ms an image at {args.batches}", flush=True)
    bench = Bench(args.provider, images, args.batches)
    with tempfile.TemporaryDirectory() as folder:
        for number, (name, form) in enumerate(forms().items()):
            path = Path(folder) / f"{number}.onnx"
            try:
                bench.row(name, form(model), path)
            except Exception as error:
                print(f"{name:34} failed: {' '.join(str(error).split())[:150]}", flush=True)
            path.unlink(missing_ok=True)
            gc.collect()
        if args.provider == "CUDA" and bench.times:
            bench.profile(model, Path(folder) / "best.onnx")
    print(f"done in {elapsed()}")


class Bench:
    """Prints rows of forms, and what the fastest one does."""

    def __init__(self, provider: str, images: Array, batches: list[int]) -> None:
        self.times: dict[str, float] = {}
        self._provider = provider
        self._batches = [images[:batch] for batch in batches]
        self._reference: list[Array] = []

    def row(self, name: str, made: ir.Model, path: Path) -> None:
        """Compare and time a form; the first one is what the others are compared with."""
        save_graph(made, path)
        run = Runner(path, self._provider)
        found = run.outputs(self._batches[0][:2])
        self._reference = self._reference or found
        times = [run.median(batch) for batch in self._batches]
        self.times[name] = times[0]
        casts = sum(node.op_type == "Cast" for node in made.graph)
        cells = f"{name:34} {casts:5}   {errors(self._reference, found)}  {columns(times)}"
        print(f"{cells}   ({elapsed()})", flush=True)

    def profile(self, model: ir.Model, path: Path) -> None:
        """Time the fastest form with images that come from the host, and list its kernels."""
        name = min(self.times, key=lambda key: self.times[key])
        save_graph(forms()[name](model), path)
        run = Runner(path, self._provider)
        times = [run.median(batch, from_host=True) for batch in self._batches]
        print(f"{'fastest, images from the host':34} {'':27}  {columns(times)}   ({elapsed()})")
        print(f"kernels of: {name.strip()}, {len(self._batches[0])} images", flush=True)
        print(kernels(run, self._batches[0]))


def columns(times: list[float]) -> str:
    return "  ".join(f"{milliseconds:6.2f}" for milliseconds in times)


def elapsed() -> str:
    return f"{time.perf_counter() - START:.0f} s"


def source(vit: str) -> ir.Model:
    """The float32 graph of a bundle for a ViT with random weights."""
    shape = SHAPES[vit]
    model = random_vit(shape, alike=True)
    taps = find_taps(model, default_layers(shape.blocks), "block_{layer}", "cls")
    made = ir.from_proto(make_graph(cut(model, taps, (shape.side, shape.side)), taps).model)
    rng = np.random.default_rng(1)
    for node in list(made.graph):
        for index, value in enumerate(node.inputs):
            if value is not None and is_shared(value):
                node.replace_input_with(index, own_weight(made.graph, value, rng))
    return made


def is_shared(value: ir.Value) -> bool:
    """Whether a value is a weight that several nodes have."""
    weight = value.const_value is not None and value.const_value.size > 1 and value.dtype == FLOAT
    return weight and len(list(value.uses())) > 1


def own_weight(graph: ir.Graph, value: ir.Value, rng: np.random.Generator) -> ir.Value:
    """A weight of the same shape, mean and deviation as another one."""
    assert value.const_value is not None
    values = value.const_value.numpy()
    drawn = rng.standard_normal(values.shape, np.float32) * values.std() + values.mean()
    name = f"{value.name}.{len(graph.initializers)}"
    own = ir.Value(
        name=name,
        shape=value.shape,
        type=value.type,
        const_value=ir.tensor(drawn.astype(np.float32), name=name),
    )
    graph.register_initializer(own)
    return own


def forms() -> dict[str, Form]:
    """Graphs by what they are called; first the one that the others are compared with."""
    last = [with_whole_gelu, with_heads_last]
    return {
        "float32, in pieces": lambda model: model.clone(),
        "nodes, stream in float32": lambda model: half(nodes(model), FLOAT),
        "nodes, stream in half": lambda model: half(nodes(model), HALF),
        "  with Gelu, heads last: a bundle": lambda model: half(nodes(model, *last), HALF),
        "  that, LayerScale in weights": lambda model: half(
            nodes(model, *last, with_scales_in_products), HALF
        ),
        "  that, three products for QKV": lambda model: half(
            nodes(model, *last, with_scales_in_products, with_products_apart), HALF
        ),
        "float32, nodes": lambda model: nodes(model, *last),
        "in pieces, stream in half": lambda model: half(model.clone(), HALF),
        "in pieces, stream in float32": lambda model: half(model.clone(), FLOAT),
    }


def nodes(model: ir.Model, *changes: Callable[[ir.Model], int]) -> ir.Model:
    """The graph with attention as nodes and whole norms, changed further."""
    found = with_attention_nodes(model)
    assert found is not None
    with_whole_norms(found.model)
    for change in changes:
        count = change(found.model)
        assert count, change
    return found.model


def half(model: ir.Model, stream: ir.DataType) -> ir.Model:
    to_half(model, tuple(str(o.name) for o in model.graph.outputs if o.name != "cls"), stream)
    return model


class Runner:
    """A session with the settings of runtime/vit/onnx_backend.py."""

    def __init__(self, path: Path, provider: str) -> None:
        self._ort = ort = import_onnxruntime()
        self._device = provider.lower()
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.enable_mem_pattern = False
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        settings = {"use_tf32": "0"} if provider == "CUDA" else {}
        if provider == "CUDA" and hasattr(ort, "preload_dlls"):
            ort.preload_dlls()
        name = f"{provider}ExecutionProvider"
        skipped = FAULTY_ON_CPU if provider == "CPU" else None
        self._session = ort.InferenceSession(
            str(path), options, providers=[(name, settings)], disabled_optimizers=skipped
        )
        if self._session.get_providers()[0] != name:
            raise RuntimeError(f"runs on {self._session.get_providers()}")
        self._session.disable_fallback()

    def outputs(self, images: Array) -> list[Array]:
        """Tokens and CLS, as they come, in double precision."""
        found = self._session.run(None, {self._session.get_inputs()[0].name: images})
        return [value.astype(np.float64) for value in found]

    def bound(self, images: Array, from_host: bool = False) -> Any:
        """Inputs and outputs in the device's memory, or only the outputs."""
        binding = self._session.io_binding()
        name = self._session.get_inputs()[0].name
        if from_host:
            binding.bind_cpu_input(name, images)
        else:
            binding.bind_ortvalue_input(name, self._ort.OrtValue.ortvalue_from_numpy(images, self._device, 0))
        for output in self._session.get_outputs():
            kind = np.float16 if output.type == "tensor(float16)" else np.float32
            shape = [len(images), *output.shape[1:]]
            value = self._ort.OrtValue.ortvalue_from_shape_and_type(shape, kind, self._device, 0)
            binding.bind_ortvalue_output(output.name, value)
        return binding

    def run(self, binding: Any) -> None:
        """Run once, to the end."""
        self._session.run_with_iobinding(binding)
        binding.synchronize_outputs()

    def median(self, images: Array, from_host: bool = False) -> float:
        """Milliseconds an image, of ten runs or of those that fit into two seconds."""
        binding, found = self.bound(images, from_host), []
        for number in range(13):
            start = time.perf_counter()
            self.run(binding)
            found.append(time.perf_counter() - start)
            if number >= 3 and sum(found) > 2:
                break
        return float(1000 * np.median(found[min(3, len(found) - 1) :])) / len(images)


def errors(reference: list[Array], found: list[Array]) -> str:
    """Highest 1 - cosine of a token, and of CLS."""
    worst = []
    for a, b in zip(reference, found, strict=True):
        cosine = (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)
        worst.append(1 - float(cosine.min()))
    return f"{max(worst[:-1]):8.1e}  {worst[-1]:8.1e}"


def kernels(run: Runner, images: Array) -> str:
    """The kernels that take longest, with their share of a run, by torch's profiler."""
    try:
        from torch.profiler import ProfilerActivity, profile
    except ImportError as error:
        return f"no profile: {error}"
    binding = run.bound(images)
    run.run(binding)
    with profile(activities=[ProfilerActivity.CUDA]) as recorded:
        run.run(binding)
    rows = sorted(recorded.key_averages(), key=lambda row: -row.device_time_total)
    total = sum(row.device_time_total for row in rows) or 1
    return "\n".join(
        f"{100 * row.device_time_total / total:5.1f} % {row.count:4} x {row.key.replace('void ', '')[:62]}"
        for row in rows[:10]
    )


if __name__ == "__main__":
    main()
