"""What building an engine of ViT-L-14-336 at 518 pixels takes: time, size and memory, for docs/engines.md.

    python tests/measure/engine.py [--compute-capability 8.6] [--max-batch 8] [MODEL.onnx]

TensorRT-RTX builds it, which needs no GPU.  Without a model the weights are random, which decides neither
time nor size.  The graph is cut and tapped as that of any bundle.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from musc_edge.export.engine_builder import AS_EXPORTED, FLOAT32, UNFUSED, BuildOptions, build_plan
from musc_edge.export.graph import cut, make_graph
from musc_edge.export.onnx_file import save_model
from musc_edge.export.taps import find_taps
from musc_edge.runtime.vit.tensorrt_library import load_library

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # tests/, for support

from support.random_vit import Shape, random_vit

LARGE = Shape(width=1024, blocks=24, heads=16, patch=14, side=518)
LAYERS = (5, 11, 17, 23)


def make_model(path: Path) -> None:
    """The bundle's graph of a ViT with random weights, in float32."""
    source = random_vit(LARGE)
    taps = find_taps(source, LAYERS, "block_{layer}", "cls")
    save_model(make_graph(cut(source, taps, (LARGE.side, LARGE.side)), taps).model, path)


def peak_gb() -> float:
    """What this process held at most, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def main() -> None:
    """Build each form and print a line for it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path, nargs="?")
    parser.add_argument("--compute-capability", default="8.6")
    parser.add_argument("--max-batch", type=int, default=8)
    parser.add_argument("--make", action="store_true", help="only make the model, in a process of its own")
    args = parser.parse_args()
    if args.make:
        make_model(args.model)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = args.model or Path(folder) / "model.onnx"
        if not args.model:
            subprocess.run([sys.executable, __file__, "--make", str(path)], check=True)
        library = load_library("rtx")
        options = BuildOptions((1, args.max_batch, args.max_batch), (args.compute_capability,))
        print(f"{library} for {args.compute_capability}, 1 to {args.max_batch} images, {path.name}")
        for variant in (AS_EXPORTED, UNFUSED, FLOAT32) if args.model else (AS_EXPORTED, UNFUSED):
            start = time.perf_counter()
            plan = build_plan(library, path, options, variant)
            seconds, size = time.perf_counter() - start, memoryview(plan).nbytes / 1e6
            fused = bytes(memoryview(plan)).count(b"function={ name=_gemm_mha")
            del plan
            figures = f"{seconds:6.1f} s  {size:6.0f} MB  peak {peak_gb():.2f} GB"
            print(f"{variant:31} {figures}  {fused} fused attentions", flush=True)


if __name__ == "__main__":
    main()
