"""Measure what docs/small-defects.md says: how small a defect may be, and what masked backgrounds gain.

    python tests/measure/regions.py spots BUNDLE ELPV TEXTILE TILES
    python tests/measure/regions.py backgrounds BUNDLE ELPV TEXTILE TILES

ELPV is the unpacked package elpv-dataset 1.0.0.post1, TEXTILE that of conformal-clip-data 0.1.4, TILES a
folder of photographs of magnetic tiles in MVTec AD's layout.  Tables in Markdown go to standard output.

``spots``: into good images a dark spot is drawn at a random place, so many patches wide; how well do their
raw scores tell them from good ones?
``backgrounds``: magnetic tiles lie a little anywhere on a plain table: how much of a patch must be on them?
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from unittest import mock

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))

from musc_edge import ReadOptions, mutual_scores, open_bundle, score_lot
from musc_edge.runtime.images import inside
from musc_edge.runtime.scoring.anomaly_map import raw_scores
from musc_edge.runtime.types import Array, Bundle
from support.accuracy.pool import features
from support.accuracy.products import GOOD, Sample, Sources, samples

GOOD_IMAGES, BAD_IMAGES, DRAWS = 40, 10, 3
WIDTHS = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0)
"""Diameters of spots, in patches."""
DARKER = (0.2, 0.4)
"""How much darker a spot is than what it lies on, as a share."""
SHARES_ON_PRODUCT = (0.5, 0.9, 1.0)
DEGREES = {"1": (1,), "1,3": (1, 3), "1,3,5": (1, 3, 5)}


def spotted(path: Path, width: float, darker: float, bundle: Bundle, rng: np.random.Generator) -> Image.Image:
    """An image with a spot ``width`` patches wide, its edge soft over a fifth of its radius."""
    shot = Image.open(path).convert("RGB")
    grid = bundle.manifest.grid
    patch = shot.height / grid[0], shot.width / grid[1]
    y, x = (rng.uniform(2, cells - 2) * side for cells, side in zip(grid, patch, strict=True))
    rows, columns = np.ogrid[: shot.height, : shot.width]
    away = np.hypot((rows - y) / patch[0], (columns - x) / patch[1]) / (width / 2)
    weight = darker * np.clip((1.1 - away) / 0.2, 0, 1)[..., None]
    return Image.fromarray(np.round(np.asarray(shot) * (1 - weight)).astype(np.uint8))


def auroc(labels: Array, scores: Array) -> float:
    """The share of pairs of a bad and a good image in which the bad one scores higher."""
    bad, good = scores[labels], scores[~labels]
    return float(np.mean((bad[:, None] > good) + 0.5 * (bad[:, None] == good)))


def scores(tokens: Array, rows: Array, bundle: Bundle, degrees: tuple[int, ...]) -> Array:
    """Raw scores of a lot of some images."""
    m = bundle.manifest
    maps = mutual_scores(tokens[:, rows], m.grid, degrees).reshape(-1, *m.grid)
    return raw_scores(maps, m.preprocess.size)


def spots(bundle: Bundle, product: str, sources: Sources, folder: Path) -> None:
    """Print the rows of the table of spots for a product."""
    rng = np.random.default_rng(0)
    paths = samples(product, sources)[GOOD]
    drawn = [paths[i] for i in rng.permutation(len(paths))[: GOOD_IMAGES + BAD_IMAGES]]
    lot, kinds = [Sample(path, GOOD) for path in drawn], [(d, w) for d in DARKER for w in WIDTHS]
    for darker, width in kinds:
        for k, path in enumerate(drawn[GOOD_IMAGES:]):
            file = folder / f"{product}-{darker}-{width}-{k}.png"
            spotted(path, width, darker, bundle, rng).save(file)
            lot.append(Sample(file, f"{darker} {width}"))
    tokens = features(bundle, lot, threads=2).tokens
    labels = np.repeat([False, True], (GOOD_IMAGES, BAD_IMAGES))
    for darker in DARKER:
        for name, degrees in DEGREES.items():
            cells = []
            for width in WIDTHS:
                first = GOOD_IMAGES + BAD_IMAGES * (1 + kinds.index((darker, width)))
                rows = np.r_[:GOOD_IMAGES, first : first + BAD_IMAGES]
                cells.append(f"{auroc(labels, scores(tokens, rows, bundle, degrees)):.3f}")
            print(f"| {product} | {darker:.0%} | {name} | {' | '.join(cells)} |", flush=True)


def on_a_table(path: Path, rng: np.random.Generator) -> Image.Image:
    """A part of 300 pixels a side, a little anywhere on a plain table of 420."""
    table = rng.normal(225, 2, (420, 420)).clip(0, 255).astype(np.uint8)
    left, top = rng.integers(40, 81, 2)
    with Image.open(path) as part:
        table[top : top + 300, left : left + 300] = np.asarray(part.convert("L").resize((300, 300)))
    return Image.fromarray(table)


def backgrounds(bundle: Bundle, sources: Sources, folder: Path) -> None:
    """Print the rows of the table of backgrounds, by the default method."""
    of_kind = samples("magnetic tiles", sources)
    found: dict[str, list[float]] = {}
    for draw in range(DRAWS):
        rng = np.random.default_rng(draw)
        lot = folder / str(draw)
        lot.mkdir()
        for kind, count in ((GOOD, GOOD_IMAGES), ("blowhole", BAD_IMAGES)):
            for number in rng.permutation(len(of_kind[kind]))[:count]:
                on_a_table(of_kind[kind][number], rng).save(lot / f"{kind}{number}.png")
        for least in (None, *SHARES_ON_PRODUCT):
            name = "not masked" if least is None else f"masked, {least:.0%}"
            with mock.patch.object(inside, "ON_PRODUCT", least or 0.5):
                result = score_lot(
                    lot, bundle, reading=ReadOptions(mask_background=inside.AUTO if least else None)
                )
            labels = np.array([not image.name.startswith(GOOD) for image in result.images])
            found.setdefault(name, []).append(auroc(labels, result.raw_scores))
    for name, values in found.items():
        print(f"| {name} | {' | '.join(f'{value:.3f}' for value in values)} |", flush=True)


def main(arguments: Sequence[str]) -> None:
    """Print a table."""
    what, bundle = arguments[0], open_bundle(arguments[1])
    sources = Sources(*map(Path, arguments[2:5]))
    with tempfile.TemporaryDirectory() as folder:
        if what == "spots":
            print(f"| product | darker by | degrees | {' | '.join(map(str, WIDTHS))} |")
            print(f"|---|---|---|{'---|' * len(WIDTHS)}")
            for product in ("mono cells", "textiles", "magnetic tiles"):
                spots(bundle, product, sources, Path(folder))
        else:
            print(f"| background | {' | '.join(f'draw {k}' for k in range(DRAWS))} |")
            print(f"|---|{'---|' * DRAWS}")
            backgrounds(bundle, sources, Path(folder))


if __name__ == "__main__":
    main(sys.argv[1:])
