"""Time a ViT with attention in pieces and as nodes in turn, and with GELU as a node as well.

    python tests/measure/attention.py VIT.onnx|ViT-B-16 --image-size 224 [--batch 8] [--rounds 12]
        [--precision fp16] [--provider CUDA]

VIT.onnx is an ONNX file as ``musc-export onnx`` takes it, ViT-B-16 a random ViT (support/random_vit.py).
The graphs run by turns, forwards and backwards, in ONNX Runtime with the settings of the product.  A row is
a graph: milliseconds an image of wall time and of the processor's time, medians, and the median of the ratios
to the pieces of the same round, with the quarter below and above.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from musc_edge.export.adopt import OnnxSource
from musc_edge.export.attention import with_attention_nodes
from musc_edge.export.gelu import with_whole_gelu
from musc_edge.export.half import to_half
from musc_edge.export.onnx_file import save_graph
from musc_edge.runtime.types import PreprocessSpec
from musc_edge.runtime.vit.onnx_backend import import_onnxruntime
from support.random_vit import SHAPES, random_vit
from support.sources import MEAN, STD, quiet

Array = npt.NDArray[Any]


def graphs(vit: str, size: tuple[int, int], precision: str, folder: Path) -> dict[str, Path]:
    """Write the graphs that are compared, by what they are called."""
    source = Path(vit)
    if vit in SHAPES:
        source = folder / "source.onnx"
        onnx.save(random_vit(SHAPES[vit]), source)
    spec = PreprocessSpec(size, "squash", "bicubic", MEAN, STD)
    pieces = OnnxSource(source, None, spec, vit).load(quiet).graph().model
    nodes, gelu = with_attention_nodes(pieces), with_attention_nodes(pieces)
    assert nodes is not None
    assert gelu is not None
    made = {"in pieces": pieces, "as nodes": nodes.model}
    if count := with_whole_gelu(gelu.model):
        made[f"as nodes, and {count} Gelu"] = gelu.model
    for number, (_, model) in enumerate(made.items()):
        if precision == "fp16":
            to_half(model, tuple(str(o.name) for o in model.graph.outputs if o.name != "cls"))
        save_graph(model, folder / f"{number}.onnx")
    return {name: folder / f"{number}.onnx" for number, name in enumerate(made)}


def session(path: Path, provider: str) -> Any:
    """A session with the settings of runtime/vit/onnx_backend.py."""
    ort = import_onnxruntime()
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.enable_mem_pattern = False
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    settings = {"use_tf32": "0"} if provider == "CUDA" else {}
    name = f"{provider}ExecutionProvider"
    made = ort.InferenceSession(str(path), options, providers=[name], provider_options=[settings])
    assert made.get_providers()[0] == name, made.get_providers()
    return made


def timed(sessions: Sequence[Any], images: Array, rounds: int) -> tuple[Array, Array]:
    """Seconds of wall and of processor time, (rounds, graphs), of an image."""
    name = sessions[0].get_inputs()[0].name
    wall, cpu = np.zeros((2, rounds, len(sessions)))
    for number in range(-2, rounds):  # two rounds to warm up
        order = range(len(sessions))
        for k in order if number % 2 else reversed(order):
            start, used = time.perf_counter(), time.process_time()
            sessions[k].run(None, {name: images})
            if number >= 0:
                wall[number, k] = time.perf_counter() - start
                cpu[number, k] = time.process_time() - used
    return wall / len(images), cpu / len(images)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("vit")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--precision", choices=("fp32", "fp16"), default="fp32")
    parser.add_argument("--provider", choices=("CPU", "CUDA"), default="CPU")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        size = args.image_size, args.image_size
        paths = graphs(args.vit, size, args.precision, Path(folder))
        sessions = [session(path, args.provider) for path in paths.values()]
    images = np.random.default_rng(0).standard_normal((args.batch, 3, *size)).astype(np.float32)
    feed = {sessions[0].get_inputs()[0].name: images[:2]}
    first, *others = ([value.astype(np.float32) for value in s.run(None, feed)] for s in sessions)
    off = [0.0, *(max(float(np.abs(a - b).max()) for a, b in zip(first, o, strict=True)) for o in others)]
    wall, cpu = timed(sessions, images, args.rounds)
    print(
        f"{Path(args.vit).name} at {size[0]}, {args.precision}, {args.provider}, {args.batch} at once, "
        f"{args.rounds} rounds, {os.cpu_count()} cores, ONNX Runtime {import_onnxruntime().__version__}\n"
    )
    print("| attention | wall, ms | to pieces | processor, ms | to pieces | largest difference |")
    print("|---|---|---|---|---|---|")
    for k, name in enumerate(paths):
        cells = []
        for seconds in (wall, cpu):
            low, middle, high = np.percentile(seconds[:, k] / seconds[:, 0], (25, 50, 75))
            cells += [f"{1000 * np.median(seconds[:, k]):.1f}", f"{middle:.3f} ({low:.3f} to {high:.3f})"]
        print(f"| {name} | {' | '.join(cells)} | {off[k]:.1e} |")


if __name__ == "__main__":
    main()
