"""What loading a bundle's ViT takes, step by step, and what other settings of ONNX Runtime would save.

    python tests/measure/loading.py BUNDLE [--provider CUDA] [--batch 8] [--rounds 3]

Prints milliseconds, medians of rounds in which the settings take turns: to hash the weights, to make the
session, for its first run of a batch of zeros, which prepares what later runs use, and for its second; and by
how much the numbers of noise differ from those of the settings of runtime/vit/onnx_backend.py.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from musc_edge.runtime.types import Bundle
from musc_edge.runtime.vit.bundle import open_bundle
from musc_edge.runtime.vit.graphs import choose_graph, graph_path
from musc_edge.runtime.vit.hashes import sha256
from musc_edge.runtime.vit.onnx_backend import import_onnxruntime

OURS = "as they are"
CUDA: dict[str, dict[str, str]] = {
    "convolutions by heuristics": {"cudnn_conv_algo_search": "HEURISTIC"},
    "convolutions by default": {"cudnn_conv_algo_search": "DEFAULT"},
    "memory as requested": {"arena_extend_strategy": "kSameAsRequested"},
    "weights without an arena": {},
}
"""Options of the provider that each setting adds."""
LEVELS = {"basic optimisations alone": "ORT_ENABLE_BASIC", "no optimisations": "ORT_DISABLE_ALL"}
NO_ARENA = "weights without an arena"


def session(path: Path, provider: str, setting: str) -> Any:
    """A session with the settings of runtime/vit/onnx_backend.py, and those called ``setting`` besides."""
    ort = import_onnxruntime()
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.enable_mem_pattern = False
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if setting in LEVELS:
        options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, LEVELS[setting])
    if setting == NO_ARENA:
        options.add_session_config_entry("session.use_device_allocator_for_initializers", "1")
    name = f"{provider}ExecutionProvider"
    of_provider = {"use_tf32": "0", **CUDA.get(setting, {})} if provider == "CUDA" else {}
    made = ort.InferenceSession(str(path), options, providers=[name], provider_options=[of_provider])
    assert made.get_providers()[0] == name, made.get_providers()
    return made


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Milliseconds, and what ``work`` returns."""
    start = time.perf_counter()
    found = work()
    return 1000 * (time.perf_counter() - start), found


def steps(
    bundle: Bundle, path: Path, provider: str, batch: int, setting: str
) -> tuple[list[float], list[npt.NDArray[Any]]]:
    """Milliseconds of each step, and the outputs for noise."""
    name, size = bundle.manifest.input.name, bundle.manifest.preprocess.size
    zeros = np.zeros((batch, 3, *size), np.float32)
    noise = np.random.default_rng(0).standard_normal((2, 3, *size), np.float32)
    made, ready = timed(lambda: session(path, provider, setting))
    runs = [timed(lambda: ready.run(None, {name: zeros}))[0] for _ in range(2)]
    return [made, *runs], ready.run(None, {name: noise})


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--provider", choices=("CPU", "CUDA"), default="CPU")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    imported, ort = timed(import_onnxruntime)
    preload = getattr(ort, "preload_dlls", None) if args.provider == "CUDA" else None
    preloaded = timed(preload)[0] if preload else 0.0
    opened, bundle = timed(lambda: open_bundle(args.bundle))
    weights = [name for name in bundle.manifest.files if name.endswith(".data")]
    hashed, _ = timed(lambda: [sha256(bundle.root / name) for name in weights])
    graph = choose_graph(bundle, args.provider.lower(), ort.__version__)
    path = graph_path(bundle, graph)
    settings = [OURS, *(CUDA if args.provider == "CUDA" else ()), *LEVELS]
    _, ours = steps(bundle, path, args.provider, args.batch, OURS)  # starts the device
    found: dict[str, list[list[float]]] = {name: [] for name in settings}
    off = dict.fromkeys(settings, 0.0)
    for _ in range(args.rounds):
        for name in settings:
            spent, outputs = steps(bundle, path, args.provider, args.batch, name)
            found[name].append(spent)
            pairs = zip(outputs, ours, strict=True)
            off[name] = max(off[name], *(float(np.abs(a.astype(np.float32) - b).max()) for a, b in pairs))
    print(
        f"ONNX Runtime {ort.__version__}: imported in {imported:.0f} ms, CUDA's libraries loaded in "
        f"{preloaded:.0f}, bundle opened in {opened:.0f}, of which its weights' hash {hashed:.0f}; {graph}, "
        f"batches of {args.batch}\n"
    )
    print("| settings | session | first run | second | largest difference |\n|---|---|---|---|---|")
    for name, rounds in found.items():
        cells = " | ".join(f"{median(each):.0f}" for each in zip(*rounds, strict=True))
        print(f"| {name} | {cells} | {off[name]:.1e} |")


if __name__ == "__main__":
    main()
