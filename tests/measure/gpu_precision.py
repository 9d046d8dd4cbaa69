"""How far scores in the GPU's half precision and in int8 are from the CPU's, on real lots with a real ViT.

    python tests/measure/gpu_precision.py WORK BUNDLES ELPV TEXTILE TILES [--sizes 224,392] [--products ...]

Arguments as for accuracy.py; the lots are its pools of further images, whole.  The kernels' arithmetic is
done by numpy (support/gpu_arithmetic.py), which test_precision.py holds to what the kernels give.  Prints the
table of docs/gpu.md.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy import stats

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # tests/, for support

from musc_edge.kernels.precisions import PRECISIONS
from musc_edge.runtime.types import Array
from musc_edge.tools.evaluation.image_metrics import image_metrics
from musc_edge.tools.evaluation.pixel_metrics import pixel_metrics
from support.accuracy.drawn import DrawnLot, score_drawn
from support.accuracy.measured import with_masks
from support.accuracy.pool import DEGREES, Pool
from support.accuracy.products import PRODUCTS
from support.accuracy.setup import parser, setup
from support.gpu_arithmetic import all_distances

HEADER = (
    "| lot | compared in | largest change of a distance | of a patch score | of a raw score | of a rank "
    "| AUROC | AP | AUROC, AP of pixels |\n|---|---|---|---|---|---|---|---|---|"
)


def some_of(pool: Pool, images: int) -> Pool:
    """At most so many ``images`` of a pool, evenly over its kinds."""
    count = len(pool.samples)
    rows = np.linspace(0, count - 1, min(images, count)).round().astype(int)
    return replace(
        pool,
        samples=tuple(pool.samples[row] for row in rows),
        cls=pool.cls[rows],
        near=pool.near[np.ix_(rows, rows)],
        tokens=None if pool.tokens is None else pool.tokens[:, rows],
    )


def lines(pool: Pool, tiles: Path) -> Iterator[str]:
    """A line of the table for float32, and one for each precision."""
    everyone = np.arange(len(pool.samples))
    exact = score_drawn(pool, everyone)
    what = f"{len(everyone)} {pool.product} at {pool.size[0]}"
    scores = exact.maps(DEGREES)
    told = _told(exact, tiles)
    yield f"| {what}, patches {scores.min():.3f} to {scores.max():.3f} | float32 | | | | | {told} |"
    if pool.tokens is None:
        raise SystemExit(f"{what}: the pool has no tokens.")
    for precision in PRECISIONS:
        near = all_distances(pool.tokens, pool.grid, DEGREES, precision)
        lot = score_drawn(replace(pool, near=near), everyone)
        patch = np.abs(lot.maps(DEGREES) - scores).max()
        raw, others = lot.raw(DEGREES), exact.raw(DEGREES)
        moved = np.abs(stats.rankdata(raw) - stats.rankdata(others)).max()
        yield (
            f"| | {precision} | {_largest(near, pool.near):.1e} | {patch:.1e} | "
            f"{np.abs(raw - others).max():.1e} | {moved:g} | {_told(lot, tiles)} |"
        )


def _largest(near: Array, exact: Array) -> float:
    """The largest change of a distance between two images."""
    apart = zip(near, exact, ~np.eye(len(near), dtype=bool), strict=True)
    return max(float(np.abs(ours[others] - theirs[others]).max()) for ours, theirs, others in apart)


def _told(lot: DrawnLot, tiles: Path) -> str:
    """How well defects are told apart: AUROC and AP of images by their raw scores, and of pixels."""
    images = image_metrics(lot.labels, lot.raw(DEGREES), 0)
    of_pixels = ""
    if lot.pool.product == "magnetic tiles":
        pixels = pixel_metrics(with_masks(lot, DEGREES, tiles))
        of_pixels = f"{pixels.auroc:.4f}, {pixels.ap:.4f}"
    return f"{images.auroc.value:.4f} | {images.ap.value:.4f} | {of_pixels}"


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--sizes", default="224,392", help="image sizes (default: 224,392)")
    options.add_argument("--products", default=",".join(PRODUCTS), help="default: all")
    options.add_argument("--images", type=int, default=1000, help="of each lot at most (default: all)")
    given = options.parse_args()
    at = setup(given)
    print(HEADER, flush=True)
    for size in map(int, given.sizes.split(",")):
        for product in given.products.split(","):
            pool = some_of(at.further_pool(product, size, 0), given.images)
            for line in lines(pool, given.tiles):
                print(line, flush=True)


if __name__ == "__main__":
    main()
