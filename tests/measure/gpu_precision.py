"""How far scores in the GPU's half precision are from the CPU's, on a real lot with a real ViT.

    python tests/measure/gpu_precision.py BUNDLE LOT [--images 20]

The kernels run thread for thread on the CPU (support/cuda/cuda_cpu.h), so this takes minutes for 20 images.
Prints the line of docs/gpu.md.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
from scipy import stats

from musc_edge.kernels.thread import GpuThread
from musc_edge.runtime.gpu.scorer import CudaScorer
from musc_edge.runtime.images.listing import list_lot
from musc_edge.runtime.images.survey import ReadOptions, survey_lot
from musc_edge.runtime.scoring.anomaly_map import raw_scores
from musc_edge.runtime.scoring.method import Method
from musc_edge.runtime.scoring.mutual import CpuScorer
from musc_edge.runtime.store.features import HostStore
from musc_edge.runtime.types import FloatArray
from musc_edge.runtime.vit.bundle import open_bundle
from musc_edge.runtime.vit.extract import empty_slot, extract
from musc_edge.runtime.vit.onnx_backend import OnnxBackend

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # tests/, for support

from support.emulated_gpu import EmulatedGpu, build_library


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("lot", type=Path)
    parser.add_argument("--images", type=int, default=20)
    args = parser.parse_args()
    bundle = open_bundle(args.bundle)
    m = bundle.manifest
    survey = survey_lot(list_lot(args.lot)[: args.images], ReadOptions(), 1)
    store = HostStore(*empty_slot(bundle, len(survey.images)))
    with OnnxBackend(bundle, 1) as backend:
        extract(survey, backend, m.preprocess, store)
    by_cpu = CpuScorer(Method(m.grid))
    expected = by_cpu.score(store, by_cpu.plan(store.shape, store.dtype.itemsize))
    with tempfile.TemporaryDirectory() as folder:
        library = build_library(Path(folder) / "kernels.so", "-O2")
        with GpuThread(lambda: EmulatedGpu(library)) as device:
            by_gpu = CudaScorer(Method(m.grid), device)
            found = by_gpu.score(store, by_gpu.plan(store.shape, store.dtype.itemsize))

    def raw(scores: FloatArray) -> FloatArray:
        return raw_scores(scores.reshape(-1, *m.grid), m.preprocess.size)

    rank = stats.spearmanr(raw(expected), raw(found)).statistic
    print(
        f"| {m.backbone} at {m.preprocess.size[0]}, {len(expected)} images | {expected.min():.3f} to "
        f"{expected.max():.3f} | {np.abs(found - expected).max():.1e} | "
        f"{np.abs(raw(found) - raw(expected)).max():.1e} | {rank:.4f} |"
    )


if __name__ == "__main__":
    main()
