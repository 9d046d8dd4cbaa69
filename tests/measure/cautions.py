"""Make docs/warnings.md: how often each warning comes where it should, and where it should not.

    python tests/measure/cautions.py BUNDLE ELPV TEXTILE > docs/warnings.md

ELPV is the unpacked package elpv-dataset 1.0.0.post1, TEXTILE that of conformal-clip-data 0.1.4.  Lots are
drawn at random from real solar cells of two kinds and from textiles (real-looking, simulated by their
authors), with and without defective images.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from musc_edge import mutual_scores, open_bundle
from musc_edge.runtime.images.survey import ReadOptions, survey_lot
from musc_edge.runtime.scoring.anomaly_map import raw_scores
from musc_edge.runtime.scoring.cautions import STAND_OUT, separate_group, stand_out
from musc_edge.runtime.store.features import HostStore
from musc_edge.runtime.types import Bundle, LotImage
from musc_edge.runtime.vit.extract import extract, store_shape
from musc_edge.runtime.vit.onnx_backend import OnnxBackend

GOOD, BAD = 150, 50
LOTS, SCORED_LOTS, IMAGES = 100, 10, 30
Pool = tuple[HostStore, HostStore]  # good and defective images of one product


def pool(bundle: Bundle, paths: Sequence[Path], count: int, seed: int) -> HostStore:
    """Features of ``count`` of the images, drawn at random."""
    chosen = [paths[i] for i in np.random.default_rng(seed).permutation(len(paths))[:count]]
    survey = survey_lot([LotImage(path.name, path) for path in chosen], ReadOptions(), threads=2)
    m = bundle.manifest
    tokens = np.empty(store_shape(count, bundle), m.tokens[0].dtype)
    store = HostStore(tokens, np.empty((count, m.cls_width), np.float32))
    with OnnxBackend(bundle) as backend:
        extract(survey, backend, m.preprocess, store, threads=2)
    return store


def products(bundle: Bundle, elpv: Path, textile: Path) -> dict[str, Pool]:
    """Good and defective images of each product."""
    data = elpv / "elpv_dataset/data"
    rows = [line.split() for line in (data / "labels.csv").read_text(encoding="ascii").splitlines()]
    simulated = textile / "conformal_clip_data/data/textile_images/simulated"
    paths = {
        f"{kind}crystalline cells": [
            [data / n for n, p, k in rows if (p, k) == (q, kind)] for q in ("0.0", "1.0")
        ]
        for kind in ("mono", "poly")
    }
    paths["textiles"] = [sorted((simulated / folder).iterdir()) for folder in ("nominal", "local")]
    return {
        name: (pool(bundle, good, GOOD, 0), pool(bundle, bad, BAD, 1)) for name, (good, bad) in paths.items()
    }


def drawn(rng: np.random.Generator, stores: Sequence[tuple[HostStore, int]]) -> HostStore:
    """A lot of so many images drawn from each store."""
    parts = [(store, rng.permutation(store.shape[1])[:count]) for store, count in stores]
    tokens = np.concatenate([store.tokens[:, rows] for store, rows in parts], axis=1)
    return HostStore(tokens, np.concatenate([store.cls[rows] for store, rows in parts]))


def mixed_table(pools: dict[str, Pool]) -> list[str]:
    """How often lots count as mixed."""
    mono, poly, textile = pools.values()
    lots = {
        **{
            f"60 {name}, 12 of them defective": [(good, 48), (bad, 12)] for name, (good, bad) in pools.items()
        },
        **{f"60 {name}, none defective": [(good, 60)] for name, (good, _) in pools.items()},
        **{f"20 {name}, 4 of them defective": [(good, 16), (bad, 4)] for name, (good, bad) in pools.items()},
        "mixed: 30 mono- and 30 polycrystalline cells": [(mono[0], 30), (poly[0], 30)],
        "mixed: 30 monocrystalline cells and 30 textiles": [(mono[0], 30), (textile[0], 30)],
        "mixed: 30 polycrystalline cells and 30 textiles": [(poly[0], 30), (textile[0], 30)],
        "mixed: 50 monocrystalline cells and 10 textiles": [(mono[0], 50), (textile[0], 10)],
        "mixed: 10 monocrystalline cells and 10 textiles": [(mono[0], 10), (textile[0], 10)],
    }
    rows = []
    for name, stores in lots.items():
        rng = np.random.default_rng(2)
        cls_only = [(HostStore(store.tokens[:, :, :1, :1], store.cls), count) for store, count in stores]
        warned = sum(separate_group(drawn(rng, cls_only).cls) > 0 for _ in range(LOTS))
        rows.append(f"| {name} | {warned} of {LOTS} |")
    return rows


def even_table(pools: dict[str, Pool], bundle: Bundle) -> list[str]:
    """How often nothing stands out."""
    rows = []
    for name, (good, bad) in pools.items():
        for defects in (0, 1, 3, 9):
            rng = np.random.default_rng(3)
            values = []
            for _ in range(SCORED_LOTS):
                lot = drawn(rng, [(good, IMAGES - defects), (bad, defects)])
                grid = bundle.manifest.grid
                maps = mutual_scores(lot.tokens, grid).reshape(-1, *grid)
                values.append(stand_out(raw_scores(maps, bundle.manifest.preprocess.size)))
            warned = sum(value < STAND_OUT for value in values)
            rows.append(
                f"| {name}, {defects} of {IMAGES} defective | {warned} of {SCORED_LOTS} "
                f"| {min(values):.2f} to {max(values):.2f} |"
            )
            print(rows[-1], file=sys.stderr, flush=True)
    return rows


def main() -> None:
    """Print the page."""
    bundle = open_bundle(sys.argv[1])
    pools = products(bundle, Path(sys.argv[2]), Path(sys.argv[3]))
    mixed, even = mixed_table(pools), even_table(pools, bundle)
    print((Path(__file__).parents[1] / "data" / "warnings_head.md").read_text(encoding="utf-8").strip())
    print("\n## Mixed products\n\n| lot | warned |\n|---|---|", *mixed, sep="\n")
    print(
        "\n## Nothing stands out\n\n| lot | warned | largest over median raw score |\n|---|---|---|",
        *even,
        sep="\n",
    )


if __name__ == "__main__":
    main()
