"""Make the tables of docs/copies.md on one defect that several images have, with and without burn-out.

    python tests/measure/repeated.py BUNDLE ELPV TILES POOLS

ELPV is the unpacked package elpv-dataset 1.0.0.post1, TILES a folder of magnetic tiles in MVTec AD's layout,
and POOLS keeps what was computed for tests/measure/accuracy.py, or is made.  A lot has good images, defective
ones, and COPIES images of one and the same defect: of tiles it is cut out by its mask and put on other good
tiles; of solar cells, which have no masks, one defective cell is taken again and again, moved and in other
light.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from musc_edge import open_bundle
from musc_edge.runtime.scoring.anomaly_map import raw_scores
from musc_edge.runtime.scoring.method import Method
from musc_edge.runtime.types import Array, Bundle, FloatArray

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.accuracy.pool import DEGREES, PairDistances, Pool, features, open_pool
from support.accuracy.products import GOOD, Sample, Sources, chosen, counts, samples

COPIES, DRAWS = 8, 3
LOTS = ((80, 6), (40, 6), (22, 3))
"""Good and other defective images of a lot, beside the copies."""
CHOICES = {"1": (1,), "1, 3, 5": (1, 3, 5)}


@dataclass(frozen=True)
class Scores:
    """Raw scores of a lot: of the good images, of the other defective ones, and of the copies."""

    good: Array
    others: Array
    copies: Array
    moved: float
    """Share of the patches, over layers and degrees, whose interval begins later."""


def jittered(shot: Image.Image, rng: np.random.Generator) -> Image.Image:
    """The part of an image once more: moved by up to 3 pixels, in other light, with noise."""
    values = np.asarray(shot.convert("L"), np.float32)
    dx, dy = rng.uniform(-3, 3, 2)
    matrix = np.array([[1, 0, dx], [0, 1, dy]])
    moved = cv2.warpAffine(values, matrix, shot.size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
    moved = moved * rng.uniform(0.93, 1.07) + rng.normal(0, 3, moved.shape)
    return Image.fromarray(np.clip(moved, 0, 255).round().astype(np.uint8))


def pasted(defect: Path, mask: Path, good: Path, rng: np.random.Generator) -> Image.Image:
    """A good image with the defect of another one, which is moved by up to 3 pixels."""
    target = np.asarray(Image.open(good).convert("L"), np.float32)
    size = target.shape[1], target.shape[0]
    source = np.asarray(Image.open(defect).convert("L").resize(size), np.float32)
    part = np.asarray(Image.open(mask).convert("L").resize(size), np.float32) / 255
    matrix = np.array([[1, 0, rng.uniform(-3, 3)], [0, 1, rng.uniform(-3, 3)]])
    there: Array = cv2.warpAffine(source, matrix, size, borderMode=cv2.BORDER_REFLECT)
    shape: Array = cv2.warpAffine(part, matrix, size, borderMode=cv2.BORDER_REFLECT)
    soft = np.clip(cv2.GaussianBlur(cv2.dilate(shape, np.ones((5, 5))), (0, 0), 2), 0, 1)
    level = np.median(target) - np.median(there)
    mixed = target * (1 - soft) + (there + level) * soft
    return Image.fromarray(np.clip(mixed, 0, 255).round().astype(np.uint8))


def mask_of(sample: Sample) -> Path:
    """The mask of a tile, in MVTec AD's layout."""
    root = sample.path.parents[2]
    return root / "ground_truth" / sample.kind / f"{sample.path.stem}_mask.png"


def copies_of(pool: Pool, defect: Sample, good: Array, rng: np.random.Generator) -> Iterator[Image.Image]:
    """COPIES images of one defect."""
    for row in good[:COPIES]:
        if pool.product == "magnetic tiles":
            yield pasted(defect.path, mask_of(defect), pool.samples[row].path, rng)
        else:
            yield jittered(Image.open(defect.path), rng)


def with_copies(pool: Pool, rows: Array, shots: list[Image.Image], bundle: Bundle) -> Array:
    """Distances (n,n,S,R,P) among the images ``rows`` of a pool and the copies behind them."""
    count = len(rows) + len(shots)
    with tempfile.TemporaryDirectory() as folder:
        made = []
        for number, shot in enumerate(shots):
            made.append(Sample(Path(folder) / f"{number}.png", "copy"))
            shot.save(made[-1].path)
        store = features(bundle, [*(pool.samples[row] for row in rows), *made], 2)
    near = np.empty((count, count, *pool.near.shape[2:]), np.float32)
    near[: len(rows), : len(rows)] = pool.near[np.ix_(rows, rows)]
    compare = PairDistances(store, pool.grid)
    for b in range(len(rows), count):
        for a in range(b):
            near[a, b], near[b, a] = compare((a, b))
    return near


def scored(pool: Pool, near: Array, method: Method, parts: tuple[Array, Array, Array]) -> Scores:
    """Score the images of ``parts`` as one lot."""
    lot = np.concatenate(parts)
    patches = near.shape[-1]
    maps = np.empty((len(lot), *pool.grid), np.float32)
    moved = np.zeros(len(lot))  # share of an image's patches
    used = [DEGREES.index(degree) for degree in method.degrees]
    for place, image in enumerate(lot):
        distances: FloatArray = near[image][lot[lot != image]][:, :, used]
        found = method.average(distances.reshape(len(lot) - 1, -1))
        maps[place] = found[0].reshape(-1, patches).mean(axis=0, dtype=np.float64).reshape(pool.grid)
        moved[place] = found[1].mean() if len(found) > 1 else 0
    raw = raw_scores(maps, pool.size)
    ends = np.cumsum([len(part) for part in parts])[:-1]
    of_good, of_others, of_copies = np.split(raw, ends)
    return Scores(of_good, of_others, of_copies, float(moved.mean()))


def auroc(low: Array, high: Array) -> float:
    """Probability that one of ``high`` is above one of ``low``."""
    above = (high[:, None] > low) + 0.5 * (high[:, None] == low)
    return float(above.mean())


def draws(pool: Pool, bundle: Bundle) -> Iterator[tuple[Array, Array, Array, Array]]:
    """Distances of drawn images, and which are good, defective and copies."""
    kinds = tuple({sample.kind for sample in pool.samples} - {GOOD} - {"grade 0.33", "grade 0.67"})
    for draw in range(DRAWS):
        rng = np.random.default_rng(draw)
        good, defective = rng.permutation(pool.of(GOOD)), rng.permutation(pool.of(*kinds))
        defect, others, spare = pool.samples[defective[0]], defective[1:7], good[80:]
        shots = list(copies_of(pool, defect, spare, rng))
        rows = np.concatenate([good[:80], others])
        yield (
            with_copies(pool, rows, shots, bundle), np.arange(80), np.arange(80, 86), np.arange(86, 94),
        )  # fmt: skip
        print(f"{pool.product}: draw {draw} of {defect.path.name}", file=sys.stderr, flush=True)


def lots(pool: Pool, bundle: Bundle) -> dict[tuple[int, int, int, str, bool], list[Scores]]:
    """Scores of all draws, by the number of good, defective and copied images, degrees and burn-out."""
    found: dict[tuple[int, int, int, str, bool], list[Scores]] = {}
    for near, good, others, copies in draws(pool, bundle):
        for (goods, defective), (name, degrees), count, burn_out in product(
            LOTS, CHOICES.items(), (COPIES, 0), (False, True)
        ):
            method = Method(pool.grid, degrees, burn_out=burn_out)
            parts = good[:goods], others[:defective], copies[:count]
            lot = found.setdefault((goods, defective, count, name, burn_out), [])
            lot.append(scored(pool, near, method, parts))
    return found


def mean(lots: list[Scores], value: Callable[[Scores], float]) -> float:
    """Mean over draws."""
    return float(np.mean([value(scores) for scores in lots]))


def _both(paper: list[Scores], burnt: list[Scores], value: Callable[[Scores], float]) -> str:
    return f"{mean(paper, value):.3f} → {mean(burnt, value):.3f}"


def table(found: dict[tuple[int, int, int, str, bool], list[Scores]], copies: int) -> Iterator[str]:
    """Rows of a table: AUROC of the copies, and of the other defects, against the good images."""
    for (goods, defective, count, name, burn_out), paper in found.items():
        if burn_out or count != copies:
            continue
        burnt = found[goods, defective, count, name, True]
        cells = [f"{goods}+{defective}" + f"+{count}" * bool(count), name]
        if count:
            cells.append(_both(paper, burnt, lambda s: auroc(s.good, s.copies)))
        cells.append(_both(paper, burnt, lambda s: auroc(s.good, s.others)))
        cells.append(f"{100 * mean(burnt, lambda s: s.moved):.1f} %")
        yield "| " + " | ".join(cells) + " |"


def main() -> None:
    """Print the page."""
    bundle = open_bundle(sys.argv[1])
    sources = Sources(Path(sys.argv[2]), Path("none"), Path(sys.argv[3]))
    for name in ("magnetic tiles", "mono cells"):
        picked = chosen(samples(name, sources), counts(name, 224))
        pool = open_pool(Path(sys.argv[4]) / f"{name.replace(' ', '-')}-224", name, picked, bundle)
        found = lots(pool, bundle)
        print(f"\n### {name.capitalize()}\n")
        print("| good + others + copies | degrees | copies | others | patches |\n|---|---|---|---|---|")
        print(*table(found, COPIES), sep="\n")
        print("\n| good + others | degrees | others | patches |\n|---|---|---|---|")
        print(*table(found, 0), sep="\n")


if __name__ == "__main__":
    main()
